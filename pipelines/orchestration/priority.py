"""The order of dates: today, then yesterday and the look-back, newest first, then older dates, oldest first.

The priority of a run's requests decides at the limiter, where runs compete for permits; the tags of a run decide in
Dagster's queue, where they compete for places. dagster.yaml sets how many places older dates may take.
"""

from collections.abc import Mapping
from datetime import date

from pipelines.orchestration.partitions import PARTITION_TAG
from pipelines.settings import Calendar

PRIORITY_TAG = "dagster/priority"
OLDER_TAG = "archive/older_date"  # on our own runs of dates before the look-back
_RANGE_START_TAG = "dagster/asset_partition_range_start"
_FIRST = 0
_OLDER = 1_000  # after every date of the look-back, which has 366 at most


def of_requests(day: date | None, today: date, calendar: Calendar) -> int:
    """Return the priority of the requests of a run of `day`, lower first; requests without a date come first."""
    if day is None:
        return _FIRST
    back = (today - day).days
    if back <= calendar.archive_look_back_days + 1:  # today, or a date of the nightly run
        return max(_FIRST, back)
    return _OLDER + day.toordinal()  # oldest first: what the source purges next


def run_tags(day: date, today: date, calendar: Calendar) -> dict[str, str]:
    """Return the tags of a run of `day` that a schedule or a sensor requests."""
    back = (today - day).days
    if back <= calendar.archive_look_back_days + 1:
        # Above 0, the priority of all other runs, such as a backfill's.
        return {PRIORITY_TAG: str(calendar.archive_look_back_days + 2 - max(0, back))}
    return {OLDER_TAG: "true"}


def day_of(tags: Mapping[str, str]) -> date | None:
    """Return the date of a run with these tags; the first date of a run of several."""
    key = tags.get(PARTITION_TAG) or tags.get(_RANGE_START_TAG)
    return date.fromisoformat(key) if key else None
