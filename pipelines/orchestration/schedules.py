"""The schedules: when dates are archived, checked, indexed and verified without anybody asking."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from pipelines.calendar import local_day
from pipelines.orchestration import priority
from pipelines.orchestration.jobs import ARCHIVE_DAY
from pipelines.settings import Calendar
from pipelines.wording import number


def all_schedules(calendar: Calendar) -> list[dg.ScheduleDefinition]:
    """Return the schedules, in the time zone of the archive."""

    @dg.schedule(
        cron_schedule="30 4 * * *",
        job=ARCHIVE_DAY,
        execution_timezone=calendar.archive_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            f"04:30: archives yesterday and the {number(calendar.archive_look_back_days, 'day')} before it, because "
            "rows and links arrive late."
        ),
    )
    def daily_archive(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        today = local_day(context.scheduled_execution_time, calendar.zone)
        for back in range(1, calendar.archive_look_back_days + 2):
            day = today - timedelta(days=back)
            if day >= calendar.archive_start_date:
                tags = priority.run_tags(day, today, calendar)
                yield dg.RunRequest(run_key=f"{today}:{day}", partition_key=day.isoformat(), tags=tags)

    @dg.schedule(
        cron_schedule="*/15 * * * *",
        job=ARCHIVE_DAY,
        execution_timezone=calendar.archive_timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every 15 minutes: archives today's recordings so far. Off by default, since it costs requests.",
    )
    def intraday_archive(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        now = context.scheduled_execution_time
        # Just after midnight no report covers the new day yet; the nightly run takes the old one.
        day = local_day(now - timedelta(minutes=10), calendar.zone)
        tags = priority.run_tags(day, day, calendar)
        yield dg.RunRequest(run_key=f"{now:%Y-%m-%dT%H:%M}:{day}", partition_key=day.isoformat(), tags=tags)

    def daily(hour: int, name: str, job_name: str, does: str) -> dg.ScheduleDefinition:
        return dg.ScheduleDefinition(
            name=name,
            cron_schedule=f"0 {hour} * * *",
            job_name=job_name,
            execution_timezone=calendar.archive_timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"{hour}:00: {does}",
        )

    to_check = "checks all dates for recordings that are missing or will be purged soon."
    to_index = "indexes the months in which the table of calls has changed."
    to_drill = "reads back recordings chosen at random and verifies them."
    return [
        daily_archive,
        intraday_archive,
        # Long after the nightly runs, and each by itself.
        daily(12, "daily_standing_check", "standing_check", to_check),
        daily(14, "daily_calls_index", "calls_index", to_index),
        daily(15, "daily_restore_drill", "restore_drill", to_drill),
    ]
