"""The sensor that starts runs for End Call Events that have arrived.

A tick lists the dates around today, and a few of the others in turn, so that its cost does not grow with the history.
"""

import json
from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg

from pipelines.calendar import local_day
from pipelines.events.files import Events, EventsUnavailable, day_folder
from pipelines.orchestration.jobs import ARCHIVE_DAY
from pipelines.orchestration.resources import EnvironmentParam, SourceParam
from pipelines.orchestration.run_requests import AFTER_REPORTS, RUN_KEY_TAG, RunRequests
from pipelines.settings import Calendar
from pipelines.steps.link.rows import EVENTS

AFTER_EVENTS = (dg.AssetKey(EVENTS), *AFTER_REPORTS)
# A call may have begun yesterday, and a clock may be a day ahead.
_NOW = (-1, 0, 1)
OTHERS_PER_TICK = 3


def end_call_events_arrived(calendar: Calendar, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Start a run for each date that has events for which no run was requested, and no unfinished run."""

    @dg.sensor(
        name="end_call_events_arrived",
        job=ARCHIVE_DAY,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run for each date with new End Call Events, at most one a minute.",
    )
    def tick(
        context: dg.SensorEvaluationContext, environment: EnvironmentParam, source: SourceParam
    ) -> dg.SensorResult | dg.SkipReason:
        if source.events is None:
            return dg.SkipReason("EVENTS_URL is not set.")
        # Date -> the key under which a run was last asked for; and the last of the other dates that was listed.
        cursor = {"asked": {}, "turn": "", **json.loads(context.cursor or "{}")}
        now, asked = environment.clock(), cursor["asked"]
        try:
            near, others = _dates_to_list(source.events.days(), local_day(now, calendar.zone), cursor["turn"])
            there = {day.isoformat(): _run_key_prefix(source.events, day) for day in (*near, *others)}
        except EventsUnavailable as error:
            return dg.SkipReason(str(error))
        wanted = {}
        for key, found in there.items():
            # A failed run is requested again, but only once an hour.
            run_key, last = f"{found}{now:%Y-%m-%dT%H}", asked.get(key, "")
            if not last.startswith(found) or (last != run_key and _failed(context.instance, last)):
                wanted[key] = run_key
        # A running run may have listed the files before the event arrived: the next tick decides.
        requests = RunRequests(context.instance, calendar, partitions, now).for_idle_dates(wanted, AFTER_EVENTS)
        asked |= {request.partition_key: request.run_key for request in requests}
        turn = others[-1].isoformat() if others else cursor["turn"]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None
            if requests
            else dg.SkipReason("No new End Call Events: every date with events has had a run."),
            cursor=json.dumps({"asked": asked, "turn": turn}, sort_keys=True),
        )

    return tick


def _dates_to_list(days: Sequence[date], today: date, turn: str) -> tuple[list[date], list[date]]:
    """Return the dates around `today`, and the next few of the others after `turn`."""
    near = [day for day in days if (day - today) // timedelta(days=1) in _NOW]
    others = [day for day in days if day not in near]
    after = [day for day in others if day.isoformat() > turn]
    return near, (after or others)[:OTHERS_PER_TICK]


def _run_key_prefix(stored: Events, day: date) -> str:
    """Return the date, its number of files and their bytes, which with the hour form the run key."""
    files = stored.files(day_folder(day))
    return f"{day}:{len(files)}:{sum(file.size for file in files)}:"


def _failed(instance: dg.DagsterInstance, run_key: str) -> bool:
    """Return whether the run that was requested under this key, or its last retry, failed or was canceled."""
    newest = instance.get_run_records(dg.RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
    return bool(newest) and newest[0].dagster_run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
