"""The jobs that schedules, sensors and the launchpad run over dates."""

import dagster as dg

_STANDING = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("recordings"), "no_overdue_recordings"))

# The assets bring the partitions.
ARCHIVE_DAY = dg.define_asset_job(
    "archive_day",
    selection=dg.AssetSelection.all() - _STANDING,
    description="Pull the reports of one date, archive every recording they name, seal the date and write its calls.",
)
STANDING = dg.define_asset_job(
    "standing_check",
    selection=_STANDING,
    description="Check all dates for recordings that are missing now, or that the source will purge soon.",
)
