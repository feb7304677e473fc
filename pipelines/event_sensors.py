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
    RunRequest,
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
from pipelines.priority import PARTITION_TAG
from pipelines.resources import Services
from pipelines.sensors import AFTER_REPORTS, RUN_KEY_TAG, UNFINISHED, place_in_line, to_run
from pipelines.steps.rows import EVENTS

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

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


def end_call_events_arrived(
    partitions: DailyPartitionsDefinition, job: "UnresolvedAssetJobDefinition"
) -> SensorDefinition:
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
        memory = _Memory.of(context.cursor)
        try:
            requests = list(_wanted(context.instance, services, services.events, memory, partitions))
        except EventsUnavailable as error:
            return SkipReason(str(error))
        skip = None if requests else SkipReason("No date has events that no run was asked to take.")
        return SensorResult(run_requests=requests, skip_reason=skip, cursor=memory.cursor())

    return tick


def _wanted(
    instance: DagsterInstance,
    services: Services,
    stored: StoredEvents,
    memory: _Memory,
    partitions: DailyPartitionsDefinition,
) -> Iterator[RunRequest]:
    now = services.clock()
    for day in list(memory.to_look_at(stored.days(), local_day(now, services.settings.zone))):
        key = day.isoformat()
        if not partitions.has_partition_key(key):
            continue
        files = stored.files(day_folder(day))
        there = f"{len(files)}:{sum(file.size for file in files)}"
        # A run that failed is asked for again, but once an hour.
        run_key = f"{key}:{there}:{now:%Y-%m-%dT%H}"
        asked = memory.asked.get(key, "")
        if asked.startswith(f"{key}:{there}:") and (asked == run_key or not _failed(instance, asked)):
            continue
        unfinished = RunsFilter(statuses=list(UNFINISHED), tags={PARTITION_TAG: key})
        # A run under way may have listed before the event came: the next tick asks.
        if not instance.get_run_records(unfinished, limit=1):
            memory.asked[key] = run_key
            yield RunRequest(
                run_key=run_key,
                partition_key=key,
                asset_selection=to_run(instance, AFTER_EVENTS, key, now, services.settings),
                tags=place_in_line(key, now, services.settings),
            )


def _failed(instance: DagsterInstance, run_key: str) -> bool:
    """Whether the run that was asked for under this key, or its last retry, came to nothing."""
    newest = instance.get_run_records(RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
    return bool(newest) and newest[0].dagster_run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
