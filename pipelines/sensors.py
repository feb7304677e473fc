"""What starts runs between the scheduled ones: recordings that have become due, and reports that failed.

A tick makes one listing of the ledger's states, a request per 1000 parts, and reads only the dates that changed since
the last tick. It ends after `TICK_SECONDS` and keeps its place; the next one goes on from there.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Self

from dagster import (
    DailyPartitionsDefinition,
    DefaultSensorStatus,
    ResourceParam,
    RunFailureSensorContext,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    run_failure_sensor,
    sensor,
)

from pipelines.ledger.store import Ledger, LedgerDamaged, LedgerError
from pipelines.priority import PARTITION_TAG
from pipelines.resources import Services
from pipelines.ringcx.columns import REPORTS
from pipelines.run_requests import AFTER_LINKS, AFTER_REPORTS, RunRequests
from pipelines.settings import Calendar
from pipelines.steps.changes import Position, changed_dates

if TYPE_CHECKING:
    from pipelines.jobs import Job

# Dagster gives a tick 60 s and keeps no cursor of one that took longer.
TICK_SECONDS = 7.0


@dataclass(slots=True)
class _Memory:
    """What a tick knows from the ones before it: how far it has read, and what is pending where.

    `due`: date of the recordings -> partition whose run fetches them -> the earliest `next_attempt_at` there.
    """

    position: Position = field(default_factory=Position)
    due: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: str | None) -> Self:
        if not cursor:
            return cls()
        stored = json.loads(cursor)
        return cls(Position.of(stored), stored["due"])

    def cursor(self) -> str:
        return json.dumps({**self.position.as_json(), "due": self.due}, sort_keys=True)

    def refresh(self, ledger: Ledger, partitions: DailyPartitionsDefinition, now: datetime) -> None:
        """Read the dates that changed since the last tick. The standing check names what is left out here."""

        def read(day: date) -> dict[str, str]:
            earliest: dict[str, str] = {}
            for state in ledger.pending(day):
                due = (state.next_attempt_at or state.written_at).isoformat()
                # A date outside the partitions (a defect of the row) is fetched by the run of the date that found it.
                keys = (day.isoformat(), state.found_on.isoformat())
                if partition := next(filter(partitions.has_partition_key, keys), None):
                    earliest[partition] = min(due, earliest.get(partition, due))
            return earliest

        for day, earliest in changed_dates(ledger, self.position, now, read, seconds=TICK_SECONDS):
            self.due.pop(day.isoformat(), None)
            if earliest and not isinstance(earliest, LedgerDamaged):
                self.due[day.isoformat()] = earliest

    def partitions_due(self, now: datetime) -> dict[str, str]:
        """Partition -> the earliest due time, where that has come; the newest partition first."""
        due: dict[str, str] = {}
        for earliest in self.due.values():
            for partition, at in earliest.items():
                if datetime.fromisoformat(at) <= now:
                    due[partition] = min(at, due.get(partition, at))
        return dict(sorted(due.items(), reverse=True))


def pending_recordings(calendar: Calendar, partitions: DailyPartitionsDefinition, job: "Job") -> SensorDefinition:
    """Starts a run for each date that has due pending recordings and no unfinished run."""

    @sensor(
        name="pending_recordings",
        job=job,
        minimum_interval_seconds=60,
        default_status=DefaultSensorStatus.RUNNING,
        description="Comes back for recordings whose links were not ready: dates with due ones and no unfinished run.",
    )
    def tick(context: SensorEvaluationContext, services: ResourceParam[Services]) -> SensorResult:
        now = services.clock()
        memory = _Memory.of(context.cursor)
        try:
            memory.refresh(services.ledger, partitions, now)
        except LedgerError as error:  # what was read before it counts, and is kept
            return SensorResult(skip_reason=SkipReason(str(error)), cursor=memory.cursor())
        # A run that ended without a trace leaves the same due time: it is tried again, but once an hour.
        wanted = {key: f"{key}:{at}:{now:%Y-%m-%dT%H}" for key, at in memory.partitions_due(now).items()}
        requests = RunRequests(context.instance, calendar, partitions, now).where_idle(wanted, AFTER_LINKS)
        pending = len({partition for earliest in memory.due.values() for partition in earliest})
        skip = None if requests else SkipReason(f"{pending} dates have pending recordings; none is due without a run.")
        return SensorResult(run_requests=requests, skip_reason=skip, cursor=memory.cursor())

    return tick


def archive_despite_failed_report(
    calendar: Calendar, partitions: DailyPartitionsDefinition, job: "Job"
) -> SensorDefinition:
    """Where a report failed, archives what the date's other rows link to: a failed report takes nothing with it."""

    @run_failure_sensor(
        name="archive_despite_failed_report",
        request_job=job,
        default_status=DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="After a run whose report failed: fetches the recordings that the date's other rows link to.",
    )
    def tick(context: RunFailureSensorContext) -> Iterator[RunRequest | SkipReason]:
        run = context.dagster_run
        partition = run.tags.get(PARTITION_TAG, "")
        failed = {event.step_key for event in context.get_step_failure_events()}
        if failed.isdisjoint(REPORTS) or not partitions.has_partition_key(partition):
            yield SkipReason("No report of a date failed in that run.")
        else:
            requests = RunRequests(context.instance, calendar, partitions, datetime.now(UTC))
            yield requests.request(partition, f"despite:{run.run_id}", AFTER_REPORTS)

    return tick
