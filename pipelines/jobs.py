"""The jobs that the schedules, the sensors and the launchpad run: archive one day, look over all, prove some."""

from dagster import AssetCheckKey, AssetKey, AssetSelection, define_asset_job

STANDING_CHECK = "nothing_is_overdue"
_STANDING = AssetSelection.checks(AssetCheckKey(AssetKey("recordings"), STANDING_CHECK))

# The assets bring the partitions.
ARCHIVE_DAY = define_asset_job(
    "archive_day",
    selection=AssetSelection.all() - _STANDING,
    description="Pull the reports of one date, archive every recording they name, seal the date's manifest.",
)
STANDING = define_asset_job(
    "standing_check",
    selection=_STANDING,
    description="Look over all dates: what is missing now, and what the source will purge soon.",
)
