"""The one partition axis, and the jobs that schedules, sensors and the launchpad run over it."""

import dagster as dg

from pipelines.settings import Calendar

_STANDING = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("recordings"), "no_overdue_recordings"))

# The assets bring the partitions.
ARCHIVE_DAY = dg.define_asset_job(
    "archive_day",
    selection=dg.AssetSelection.all() - _STANDING,
    description="Pull the reports of one date, archive every recording they name, seal the date's manifest.",
)
STANDING = dg.define_asset_job(
    "standing_check",
    selection=_STANDING,
    description="Check all dates for recordings that are missing now, or that the source will purge soon.",
)


def daily_partitions(calendar: Calendar) -> dg.DailyPartitionsDefinition:
    """Return one partition for each local day from `ARCHIVE_START_DATE` on; `end_offset=1` includes today."""
    return dg.DailyPartitionsDefinition(
        start_date=calendar.archive_start_date.isoformat(), timezone=calendar.archive_timezone, end_offset=1
    )
