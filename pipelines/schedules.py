"""When days are archived without anybody asking.

Hand-written: `build_schedule_from_partitioned_job` asks for *today* under `end_offset=1`, and only once ever. No
network call and no ledger read happens inside a tick.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from dagster import DefaultScheduleStatus, RunRequest, ScheduleDefinition, ScheduleEvaluationContext, schedule

from pipelines import priority
from pipelines.calendar import local_day
from pipelines.settings import Calendar

if TYPE_CHECKING:
    from pipelines.jobs import Job


def daily_archive(calendar: Calendar, job: "Job") -> ScheduleDefinition:
    """Every night: yesterday, and the `ARCHIVE_LOOK_BACK_DAYS` before it, because rows and links arrive late."""

    @schedule(
        name="daily_archive",
        cron_schedule="30 4 * * *",
        job=job,
        execution_timezone=calendar.archive_timezone,
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"04:30: archives yesterday and the {calendar.archive_look_back_days} days before it.",
    )
    def tick(context: ScheduleEvaluationContext) -> Iterator[RunRequest]:
        today = local_day(_instant(context), calendar.zone)
        for back in range(1, calendar.archive_look_back_days + 2):
            day = today - timedelta(days=back)
            if day >= calendar.archive_start_date:
                tags = priority.run_tags(day, today, calendar)
                yield RunRequest(run_key=f"{today}:{day}", partition_key=day.isoformat(), tags=tags)

    return tick


def intraday_archive(calendar: Calendar, job: "Job") -> ScheduleDefinition:
    """Every 15 minutes: today. Off until somebody switches it on, since it costs requests."""

    @schedule(
        name="intraday_archive",
        cron_schedule="*/15 * * * *",
        job=job,
        execution_timezone=calendar.archive_timezone,
        default_status=DefaultScheduleStatus.STOPPED,
        description="Every 15 minutes: archives what today has so far. Off by default.",
    )
    def tick(context: ScheduleEvaluationContext) -> Iterator[RunRequest]:
        now = _instant(context)
        # Just after midnight no report covers the new day yet; the night's run takes the old one.
        day = local_day(now - timedelta(minutes=10), calendar.zone)
        tags = priority.run_tags(day, day, calendar)
        yield RunRequest(run_key=f"{now:%Y-%m-%dT%H:%M}:{day}", partition_key=day.isoformat(), tags=tags)

    return tick


def daily_standing_check(calendar: Calendar, job: "Job") -> ScheduleDefinition:
    """Every noon, when the night's runs are long over: what is missing, over all dates."""
    return ScheduleDefinition(
        name="daily_standing_check",
        cron_schedule="0 12 * * *",
        job=job,
        execution_timezone=calendar.archive_timezone,
        default_status=DefaultScheduleStatus.RUNNING,
        description="12:00: looks over all dates for what is missing and what the source will purge soon.",
    )


def daily_restore_drill(calendar: Calendar, job: "Job") -> ScheduleDefinition:
    """Every afternoon, between the runs: some recordings of all dates are read back and proved."""
    return ScheduleDefinition(
        name="daily_restore_drill",
        cron_schedule="0 15 * * *",
        job=job,
        execution_timezone=calendar.archive_timezone,
        default_status=DefaultScheduleStatus.RUNNING,
        description="15:00: reads recordings back from the bucket, chosen at random, and proves them.",
    )


def _instant(context: ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time
