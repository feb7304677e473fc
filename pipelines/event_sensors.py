"""What starts a run when End Call Events have arrived.

A tick lists the dates that calls end on now, and a few of the others in turn, so that its cost does not grow with the
history and a late event of any date is found within a day. It reads no event.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Self

from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    DailyPartitionsDefinition,
    DefaultSensorStatus,
    ResourceParam,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from pipelines.calendar import local_day
from pipelines.events.place import EventsUnavailable
from pipelines.events.stored import StoredEvents, day_folder
from pipelines.resources import Services
from pipelines.run_requests import AFTER_REPORTS, RUN_KEY_TAG, RunRequests
from pipelines.settings import Calendar
from pipelines.steps.rows import EVENTS

if TYPE_CHECKING:
    from pipelines.jobs import Job

AFTER_EVENTS = (AssetKey(EVENTS), *AFTER_REPORTS)
# A call may have begun yesterday, and a clock may be a day ahead.
_NOW = (-1, 0, 1)
OTHERS_PER_TICK = 3


@dataclass(slots=True)
class _Memory:
    """What a tick knows from the ones before it.

    `asked`: date -> number of files, bytes and the hour when a run was last asked for, as its run key has them.
    `turn`: the last of the other dates that was looked at.
    """

    asked: dict[str, str] = field(default_factory=dict)
    turn: str = ""

    @classmethod
    def of(cls, cursor: str | None) -> Self:
        if not cursor:
            return cls()
        stored = json.loads(cursor)
        return cls(stored["asked"], stored["turn"])

    def cursor(self) -> str:
        return json.dumps({"asked": self.asked, "turn": self.turn}, sort_keys=True)

    def to_look_at(self, days: Sequence[date], today: date) -> Iterator[date]:
        """The dates around `today`, and the next few of the others."""
        near = {today + timedelta(days=step) for step in _NOW}
        yield from sorted(near & set(days))
        others = [day for day in days if day not in near]
        after = [day for day in others if day.isoformat() > self.turn]
        for day in (after or others)[:OTHERS_PER_TICK]:
            self.turn = day.isoformat()
            yield day


def end_call_events_arrived(calendar: Calendar, partitions: DailyPartitionsDefinition, job: "Job") -> SensorDefinition:
    """Starts a run for each date that has events no run was asked to take, and no unfinished run."""

    @sensor(
        name="end_call_events_arrived",
        job=job,
        minimum_interval_seconds=60,
        default_status=DefaultSensorStatus.RUNNING,
        description="Takes End Call Events as they arrive: at most one run a minute and date.",
    )
    def tick(context: SensorEvaluationContext, services: ResourceParam[Services]) -> SensorResult | SkipReason:
        if services.events is None:
            return SkipReason("EVENTS_URL is not set.")
        memory, now = _Memory.of(context.cursor), services.clock()
        try:
            wanted = dict(
                _wanted(context.instance, services.events, memory, local_day(now, calendar.zone), f"{now:%Y-%m-%dT%H}")
            )
        except EventsUnavailable as error:
            return SkipReason(str(error))
        # A run under way may have listed before the event came: the next tick asks.
        requests = RunRequests(context.instance, calendar, partitions, now).where_idle(wanted, AFTER_EVENTS)
        memory.asked |= {one.partition_key: one.run_key for one in requests if one.partition_key and one.run_key}
        skip = None if requests else SkipReason("No date has events that no run was asked to take.")
        return SensorResult(run_requests=requests, skip_reason=skip, cursor=memory.cursor())

    return tick


def _wanted(
    instance: DagsterInstance, stored: StoredEvents, memory: _Memory, today: date, hour: str
) -> Iterator[tuple[str, str]]:
    """Yield each date with events that no run was asked to take, and the run key to ask with."""
    for day in memory.to_look_at(stored.days(), today):
        key = day.isoformat()
        files = stored.files(day_folder(day))
        there = f"{key}:{len(files)}:{sum(file.size for file in files)}:"
        # A run that failed is asked for again, but once an hour.
        run_key, asked = f"{there}{hour}", memory.asked.get(key, "")
        if not asked.startswith(there) or (asked != run_key and _failed(instance, asked)):
            yield key, run_key


def _failed(instance: DagsterInstance, run_key: str) -> bool:
    """Whether the run that was asked for under this key, or its last retry, came to nothing."""
    newest = instance.get_run_records(RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
    return bool(newest) and newest[0].dagster_run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
