"""Wiring, nothing else: which assets, job, schedules, sensors and resources make up the code location."""

from dagster import Definitions, ResourceDefinition, in_process_executor

from assets.checks import completeness_checks
from assets.drill import restore_drill
from assets.events import event_assets
from assets.manifest import manifest_assets
from assets.plan import backfill_plan
from assets.recordings import recording_assets
from assets.reports import report_assets
from pipelines import settings
from pipelines.memory import calm_collector, choose_allocator
from pipelines.orchestration.jobs import ARCHIVE_DAY, STANDING, daily_partitions
from pipelines.orchestration.resources import services_resource
from pipelines.orchestration.schedules import all_schedules
from pipelines.orchestration.sensors.alerts import alerts
from pipelines.orchestration.sensors.events import end_call_events_arrived
from pipelines.orchestration.sensors.pending import archive_despite_failed_report, pending_recordings

choose_allocator()
calm_collector()


def build_defs(*, calendar: settings.Calendar | None = None, services: ResourceDefinition | None = None) -> Definitions:
    """Fresh definitions; tests give their own `calendar` and `services`."""
    days = calendar or settings.load(settings.Calendar)
    partitions = daily_partitions(days)
    events = days.events_url is not None
    return Definitions(
        assets=[
            *report_assets(partitions, days.reports),
            *(event_assets(partitions) if events else []),
            *recording_assets(partitions, days.reports, events=events),
            *manifest_assets(partitions),
        ],
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


defs = build_defs()
