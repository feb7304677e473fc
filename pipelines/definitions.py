"""Wiring, nothing else: which assets, job, schedules, sensors and resources make up the code location."""

from dagster import Definitions, ResourceDefinition, in_process_executor

from assets.checks import completeness_checks
from assets.compaction import compaction_assets
from assets.drill import drill_assets
from assets.events import event_assets
from assets.manifest import manifest_assets
from assets.plan import backfill_plan
from assets.recordings import recording_assets
from assets.reports import report_assets
from pipelines import settings
from pipelines.alert_sensors import alerts
from pipelines.compaction_sensor import ledger_grows
from pipelines.event_sensors import end_call_events_arrived
from pipelines.jobs import archive_day_job, compact_day_job, restore_drill_job, standing_check_job
from pipelines.memory import calm_collector, choose_allocator
from pipelines.partitions import daily_partitions
from pipelines.resources import services_resource
from pipelines.schedules import daily_archive, daily_restore_drill, daily_standing_check, intraday_archive
from pipelines.sensors import archive_despite_failed_report, pending_recordings

choose_allocator()
calm_collector()


def build_defs(*, calendar: settings.Calendar | None = None, services: ResourceDefinition | None = None) -> Definitions:
    """Fresh definitions; tests give their own `calendar` and `services`."""
    days = calendar or settings.load(settings.Calendar)
    partitions = daily_partitions(days)
    events = days.events_url is not None
    job, standing, drill = archive_day_job(), standing_check_job(), restore_drill_job()
    compact = compact_day_job()
    return Definitions(
        assets=[
            *report_assets(partitions, days.reports),
            *(event_assets(partitions) if events else []),
            *recording_assets(partitions, days.reports, events=events),
            *manifest_assets(partitions),
            *drill_assets(),
            *compaction_assets(partitions, days),
        ],
        asset_checks=completeness_checks(partitions, days.reports, events=events),
        jobs=[job, standing, drill, compact, backfill_plan],
        schedules=[
            daily_archive(days, job),
            intraday_archive(days, job),
            daily_standing_check(days, standing),
            daily_restore_drill(days, drill),
        ],
        sensors=[
            pending_recordings(days, partitions, job),
            *([end_call_events_arrived(days, partitions, job)] if events else []),
            archive_despite_failed_report(days, partitions, job),
            ledger_grows(days, partitions, compact),
            alerts(),
        ],
        resources={"services": services or services_resource()},
        # A process a step costs 4-5 s each, and its killed worker leaves orphans; threads do the work inside a step.
        executor=in_process_executor,
    )


defs = build_defs()
