"""What starts runs between the scheduled ones: recordings that have become due, and reports that failed.

A tick reads the ledger and Dagster's own run list, nothing else. It reads only dates whose state changed since the
last tick, so that its cost follows what happens and not what the archive holds.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Self

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterInstance,
    DagsterRunStatus,
    DailyPartitionsDefinition,
    DefaultSensorStatus,
    ResourceParam,
    RunFailureSensorContext,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    run_failure_sensor,
    sensor,
)

from pipelines import priority
from pipelines.calendar import local_day
from pipelines.ledger.store import Ledger
from pipelines.priority import PARTITION_TAG
from pipelines.resources import Services
from pipelines.ringcx.columns import REPORTS
from pipelines.settings import Calendar

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

RUN_KEY_TAG = "dagster/run_key"
REPORT_KEYS = frozenset(AssetKey(report) for report in REPORTS)
MANIFEST = AssetKey("daily_manifest")
AFTER_LINKS = (AssetKey("recordings"), MANIFEST)
# A manifest lists its whole day, so one a minute of a day that still grows would outgrow the recordings' own list.
SEALED_EVERY = timedelta(hours=1)
AFTER_REPORTS = (AssetKey("recording_links"), *AFTER_LINKS)
UNFINISHED = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)
# Writers on other machines have other clocks: parts this much older than the newest one seen are looked at again.
CLOCK_OVERLAP = timedelta(minutes=10)
RUNS_PER_TICK = 20
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Memory:
    """What a tick knows from the ones before it: how far it has read, and what is pending where.

    `due`: date of the recordings -> partition whose run fetches them -> the earliest `next_attempt_at` there.
    """

    read_to: datetime
    due: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: str | None) -> Self:
        if not cursor:
            return cls(_NEVER)
        stored = json.loads(cursor)
        return cls(datetime.fromisoformat(stored["read_to"]), stored["due"])

    def cursor(self) -> str:
        return json.dumps({"read_to": self.read_to.isoformat(), "due": self.due}, sort_keys=True)

    def refresh(self, ledger: Ledger, partitions: DailyPartitionsDefinition, now: datetime) -> None:
        """Read the dates that got a new part since the last tick."""
        # A part from a clock ahead of ours must not make us blind to what is written until ours has caught up.
        newest = since = min(self.read_to, now)
        for day, written_at in ledger.state_days().items():
            if written_at > since - CLOCK_OVERLAP:
                self._read(ledger, day, partitions)
                newest = max(newest, min(written_at, now))
        self.read_to = newest

    def _read(self, ledger: Ledger, day: date, partitions: DailyPartitionsDefinition) -> None:
        earliest: dict[str, str] = {}
        for state in ledger.pending(day):
            due = (state.next_attempt_at or state.written_at).isoformat()
            # A date outside the partitions (a defect of the row) is fetched by the run of the date that found it.
            own = day.isoformat()
            partition = own if partitions.has_partition_key(own) else state.found_on.isoformat()
            earliest[partition] = min(due, earliest.get(partition, due))
        if earliest:
            self.due[day.isoformat()] = earliest
        else:
            self.due.pop(day.isoformat(), None)

    def partitions_due(self, now: datetime) -> dict[str, str]:
        """Partition -> the earliest due time, where that has come; the newest partition first."""
        due: dict[str, str] = {}
        for earliest in self.due.values():
            for partition, at in earliest.items():
                if datetime.fromisoformat(at) <= now:
                    due[partition] = min(at, due.get(partition, at))
        return dict(sorted(due.items(), reverse=True))


def pending_recordings(
    calendar: Calendar, partitions: DailyPartitionsDefinition, job: "UnresolvedAssetJobDefinition"
) -> SensorDefinition:
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
        memory.refresh(services.ledger, partitions, now)
        due = memory.partitions_due(now)
        requests = list(islice(_wanted(context.instance, due, now, calendar), RUNS_PER_TICK))
        pending = len({partition for earliest in memory.due.values() for partition in earliest})
        skip = None if requests else SkipReason(f"{pending} dates have pending recordings; none is due without a run.")
        return SensorResult(run_requests=requests, skip_reason=skip, cursor=memory.cursor())

    return tick


def _wanted(instance: DagsterInstance, due: dict[str, str], now: datetime, calendar: Calendar) -> Iterator[RunRequest]:
    """A run for each due partition that has none unfinished, and got none for the same reason this hour."""
    for partition, at in due.items():
        # A run that ended without a trace leaves the same due time: it is tried again, but once an hour.
        run_key = f"{partition}:{at}:{now:%Y-%m-%dT%H}"
        unfinished = RunsFilter(statuses=list(UNFINISHED), tags={PARTITION_TAG: partition})
        # Asked for here too and not left to Dagster: else the newest dates, if they fail for ever, take every place.
        had = RunsFilter(tags={RUN_KEY_TAG: run_key})
        if not instance.get_run_records(unfinished, limit=1) and not instance.get_run_records(had, limit=1):
            yield RunRequest(
                run_key=run_key,
                partition_key=partition,
                asset_selection=to_run(instance, AFTER_LINKS, partition, now, calendar),
                tags=place_in_line(partition, now, calendar),
            )


def to_run(
    instance: DagsterInstance, assets: Sequence[AssetKey], partition: str, now: datetime, calendar: Calendar
) -> list[AssetKey]:
    """`assets`, but for the manifest of a day that is not over and was sealed within the hour."""
    if date.fromisoformat(partition) < local_day(now, calendar.zone):
        return list(assets)
    lately = AssetRecordsFilter(
        asset_key=MANIFEST, asset_partitions=[partition], after_timestamp=(now - SEALED_EVERY).timestamp()
    )
    sealed = instance.fetch_materializations(lately, limit=1).records
    return [asset for asset in assets if asset != MANIFEST or not sealed]


def place_in_line(partition: str, now: datetime, calendar: Calendar) -> dict[str, str]:
    """The tags that give a run of the partition its place in Dagster's queue."""
    return priority.run_tags(date.fromisoformat(partition), local_day(now, calendar.zone), calendar)


def archive_despite_failed_report(calendar: Calendar, job: "UnresolvedAssetJobDefinition") -> SensorDefinition:
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
        partition = run.tags.get(PARTITION_TAG)
        failed = {step for event in context.get_step_failure_events() if (step := event.step_key)}
        if partition is None or not failed & {key.to_user_string() for key in REPORT_KEYS}:
            yield SkipReason("No report failed in that run.")
        else:
            yield RunRequest(
                run_key=f"despite:{run.run_id}",
                partition_key=partition,
                asset_selection=list(AFTER_REPORTS),
                tags=place_in_line(partition, datetime.now(UTC), calendar),
            )

    return tick
