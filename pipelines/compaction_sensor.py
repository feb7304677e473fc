"""What starts the compaction of old dates without being asked.

A tick lists names in the ledger, reads no part, and asks for nothing twice: a date is due when its parts have changed
since it was asked for last, or once more when the grace of what was merged is over.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from dagster import (
    DailyPartitionsDefinition,
    DefaultSensorStatus,
    ResourceParam,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from pipelines.calendar import local_day
from pipelines.ledger.merged import is_merged, replaced_parts
from pipelines.resources import Services
from pipelines.run_requests import RunRequests
from pipelines.settings import Calendar

if TYPE_CHECKING:
    from pipelines.jobs import Job

EVERY_SECONDS = 3600
_MERGE, _REMOVE = "merge", "remove"
_NEVER = "9999"
_ULID = 26


def ledger_grows(calendar: Calendar, partitions: DailyPartitionsDefinition, job: "Job") -> SensorDefinition:
    """Starts a compaction for each old date that has small parts to merge, or merged ones to remove."""

    @sensor(
        name="ledger_grows",
        job=job,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Merges the ledger's small parts of dates that the night's runs come back to no more.",
    )
    def tick(context: SensorEvaluationContext, services: ResourceParam[Services]) -> SensorResult:
        now = services.clock()
        today = local_day(now, calendar.zone)
        grace = timedelta(days=services.settings.ledger_compaction_grace_days)
        # Date -> the day on which what was merged of it may be removed.
        later: dict[str, str] = json.loads(context.cursor or "{}")
        wanted: dict[str, str] = {}
        for day, names in sorted(services.ledger_parts.by_day().items(), reverse=True):
            key = day.isoformat()
            if not calendar.is_over_for_good(day, today):
                continue
            if later.get(key, _NEVER) <= today.isoformat():  # that run merges too, if there is something
                wanted[key] = f"{_REMOVE}:{key}:{later[key]}"
            elif has_to_merge(names):
                wanted[key] = f"{_MERGE}:{key}:{len(names)}:{max(names)}"
        requests = RunRequests(context.instance, calendar, partitions, now).where_idle(wanted)
        for key, run_key in ((one.partition_key or "", one.run_key or "") for one in requests):
            later.pop(key, None)
            if run_key.startswith(_MERGE):
                later[key] = (today + grace + timedelta(days=1)).isoformat()
        skip = None if requests else SkipReason("No old date has parts to merge, or merged ones whose grace is over.")
        return SensorResult(run_requests=requests, skip_reason=skip, cursor=json.dumps(later, sort_keys=True))

    return tick


def has_to_merge(names: Iterable[str]) -> bool:
    """Whether a folder of the date has more than one part that readers take, as far as names tell."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, _, own = name.rpartition("/")
        folders[folder].append(own)
    return any(_read_of(of_folder) > 1 for of_folder in folders.values())


def _read_of(names: Sequence[str]) -> int:
    """How many parts readers take: the largest merged one, what came after it, and what came late among the others."""
    largest = max(filter(is_merged, names), key=lambda one: (replaced_parts(one), one), default="")
    plain = [name for name in names if not is_merged(name)]
    before = sum(name[:_ULID] <= largest[:_ULID] for name in plain)
    late = max(0, before - replaced_parts(largest)) if largest else 0
    return bool(largest) + late + len(plain) - (before if largest else 0)
