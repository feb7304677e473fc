"""The sensor that starts runs for End Call Events that have arrived."""

from datetime import timedelta

import dagster as dg

from pipelines.calendar import local_day
from pipelines.events.files import EventsUnavailable, day_folder
from pipelines.orchestration.jobs import ARCHIVE_DAY
from pipelines.orchestration.resources import EnvironmentParam, SourceParam
from pipelines.orchestration.run_requests import AFTER_REPORTS, RunRequests
from pipelines.ringcx.reports.columns import EVENTS
from pipelines.settings import Calendar

AFTER_EVENTS = (dg.AssetKey(EVENTS), *AFTER_REPORTS)
# A call may have begun yesterday, and a clock may be a day ahead. Other dates have their events taken by their runs.
_NEAR = (-1, 0, 1)


def end_call_events_arrived(calendar: Calendar, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Start a run for each date that has no unfinished run, but events for which no run was requested."""

    @dg.sensor(
        name="end_call_events_arrived",
        job=ARCHIVE_DAY,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run for each date that has new End Call Events; looks for them once a minute.",
    )
    def tick(
        context: dg.SensorEvaluationContext, environment: EnvironmentParam, source: SourceParam
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now, wanted = environment.clock(), {}
        today = local_day(now, calendar.zone)
        try:
            for day in (today + timedelta(days=near) for near in _NEAR):
                if files := source.events.files(day_folder(day)):
                    wanted[str(day)] = f"{day}:{len(files)}:{sum(files.values())}"
        except EventsUnavailable as error:
            return dg.SkipReason(str(error))
        # A running run may have listed the files before the event arrived: the next tick decides.
        requests = RunRequests(context.instance, calendar, partitions, now).for_idle_dates(wanted, AFTER_EVENTS)
        return requests or dg.SkipReason("No new End Call Events: every date with events has had a run.")

    return tick
