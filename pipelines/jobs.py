"""The job that archives one day, as the schedules, the sensors and the launchpad run it."""

from typing import TYPE_CHECKING

from dagster import AssetSelection, define_asset_job

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def archive_day_job() -> "UnresolvedAssetJobDefinition":
    """All assets of one date; the assets bring the partitions."""
    return define_asset_job(
        "archive_day",
        selection=AssetSelection.all(),
        description="Pull both reports of one date, archive every recording they name, seal the date's manifest.",
    )
