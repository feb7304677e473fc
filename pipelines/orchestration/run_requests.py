"""Run requests: the rules that all sensors share when they start runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

import dagster as dg

from pipelines.calendar import local_day
from pipelines.orchestration import priority
from pipelines.settings import Calendar

PARTITION_TAG = "dagster/partition"
RUN_KEY_TAG = "dagster/run_key"
# On a run that was canceled because `ringcx-archive ui` stopped: it goes on when the UI runs again. The value is the
# run's own id, because a run that is executed again inherits the tag.
STOPPED_TAG = "archive/stopped_with_the_ui"
RUNS_PER_TICK = 20
MANIFEST = dg.AssetKey("daily_manifest")
_WITH_MANIFEST = (MANIFEST, dg.AssetKey("calls"))
AFTER_LINKS = (dg.AssetKey("recordings"), *_WITH_MANIFEST)
AFTER_REPORTS = (dg.AssetKey("recording_links"), *AFTER_LINKS)
# A manifest lists its whole day, so one a minute of a day that still grows would outgrow the recordings' own list.
SEALED_EVERY = timedelta(hours=1)
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True, slots=True)
class RunRequests:
    """The run requests of one tick at `now`."""

    instance: dg.DagsterInstance
    calendar: Calendar
    partitions: dg.DailyPartitionsDefinition
    now: datetime

    def for_idle_dates(self, wanted: Mapping[str, str], assets: Sequence[dg.AssetKey] = ()) -> list[dg.RunRequest]:
        """Return requests for `wanted` (partition -> run key), in its order, at most `RUNS_PER_TICK`.

        Dates without a partition or with an unfinished run are left out, and so are keys that were requested before:
        Dagster would refuse these keys itself, but only after they had taken the places of other dates.
        """
        busy = unfinished_dates(self.instance, list(wanted))
        asked = _tags(self.instance, dg.RunsFilter(tags={RUN_KEY_TAG: list(wanted.values())}), RUN_KEY_TAG)
        idle = (
            self.request(key, run_key, assets)
            for key, run_key in wanted.items()
            if self.partitions.has_partition_key(key) and key not in busy and run_key not in asked
        )
        return list(islice(idle, RUNS_PER_TICK))

    def request(self, partition: str, run_key: str, assets: Sequence[dg.AssetKey]) -> dg.RunRequest:
        """Return a request for `assets` of a date, or for all assets of the job if there are none; without the manifest
        if the day is not over and was sealed within the last hour.
        """
        today, day = local_day(self.now, self.calendar.zone), date.fromisoformat(partition)
        if MANIFEST in assets and day >= today:
            lately = dg.AssetRecordsFilter(
                asset_key=MANIFEST, asset_partitions=[partition], after_timestamp=(self.now - SEALED_EVERY).timestamp()
            )
            if self.instance.fetch_materializations(lately, limit=1).records:
                assets = [asset for asset in assets if asset not in _WITH_MANIFEST]
        return dg.RunRequest(
            run_key=run_key,
            partition_key=partition,
            asset_selection=list(assets) or None,
            tags=priority.run_tags(day, today, self.calendar),
        )


def unfinished_dates(instance: dg.DagsterInstance, among: Sequence[str] | None = None) -> set[str]:
    """Return the partitions of unfinished runs, running or waiting; `among` limits which partitions are looked up."""
    tags = {} if among is None else {PARTITION_TAG: list(among)}
    return _tags(instance, dg.RunsFilter(statuses=list(UNFINISHED), tags=tags), PARTITION_TAG)


def _tags(instance: dg.DagsterInstance, wanted: dg.RunsFilter, name: str) -> set[str]:
    return {value for record in instance.get_run_records(wanted) if (value := record.dagster_run.tags.get(name))}
