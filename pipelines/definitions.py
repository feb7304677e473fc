"""Wiring, nothing else: which assets, job, schedules, sensors and resources make up the code location."""

from datetime import timedelta

from dagster import (
    AssetsDefinition,
    AssetSpec,
    Definitions,
    FreshnessPolicy,
    ResourceDefinition,
    in_process_executor,
)

from assets.checks import completeness_checks
from assets.drill import restore_drill
from assets.events import end_call_events
from assets.manifest import daily_manifest
from assets.plan import backfill_plan
from assets.recordings import recording_links, recordings
from assets.reports import agent_segment_metadata, global_call_type_detail, interaction_metadata
from pipelines import settings
from pipelines.memory import tune_allocator, tune_gc
from pipelines.orchestration.jobs import ARCHIVE_DAY, STANDING, daily_partitions
from pipelines.orchestration.resources import services_resource
from pipelines.orchestration.schedules import all_schedules
from pipelines.orchestration.sensors.alerts import alerts
from pipelines.orchestration.sensors.events import end_call_events_arrived
from pipelines.orchestration.sensors.pending import archive_despite_failed_report, pending_recordings
from pipelines.steps.link.rows import EVENTS

_SOURCES = (agent_segment_metadata, global_call_type_detail, interaction_metadata, end_call_events)

tune_allocator()
tune_gc()


def build_defs(*, calendar: settings.Calendar | None = None, services: ResourceDefinition | None = None) -> Definitions:
    """Return fresh definitions; tests give their own `calendar` and `services`."""
    days = calendar or settings.load(settings.Calendar)
    partitions = daily_partitions(days)
    events = days.events_url is not None
    return Definitions(
        assets=_of_a_date(days),
        asset_checks=completeness_checks(partitions, days.reports, events=events),
        jobs=[ARCHIVE_DAY, STANDING, backfill_plan, restore_drill],
        schedules=all_schedules(days),
        sensors=[
            pending_recordings(days, partitions),
            *([end_call_events_arrived(days, partitions)] if events else []),
            archive_despite_failed_report(days, partitions),
            alerts(),
        ],
        resources={"services": services or services_resource()},
        # A process a step costs 4-5 s each, and its killed worker leaves orphans; threads do the work inside a step.
        executor=in_process_executor,
    )


def _of_a_date(calendar: settings.Calendar) -> list[AssetsDefinition]:
    """Return the assets that the settings ask for, each with the partitions, owner and freshness of a date."""
    sources = {*calendar.reports, *([EVENTS] if calendar.events_url is not None else [])}
    chosen = [asset for asset in _SOURCES if asset.key.to_user_string() in sources]
    chosen += [recording_links, recordings, daily_manifest]
    keys = {asset.key for asset in chosen}
    partitions = daily_partitions(calendar)

    def complete(spec: AssetSpec) -> AssetSpec:
        return spec.replace_attributes(
            deps=[dep for dep in spec.deps if dep.asset_key in keys],
            partitions_def=partitions,
            owners=[calendar.archive_owner] if calendar.archive_owner else [],
            # The night's run starts at 04:30: at noon something of today's must be there.
            freshness_policy=FreshnessPolicy.cron("0 12 * * *", timedelta(hours=12), calendar.archive_timezone),
        )

    return [asset.map_asset_specs(complete) for asset in chosen]


defs = build_defs()
