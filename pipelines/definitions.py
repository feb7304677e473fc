"""The wiring, and nothing else: the assets, checks, jobs, schedules, sensors and resources of the code location."""

import warnings
from collections.abc import Callable
from datetime import timedelta

import dagster as dg

from assets import checks
from assets.calls import calls
from assets.events import end_call_events
from assets.manifest import daily_manifest
from assets.recordings import recording_links, recordings
from assets.reports import agent_segment_metadata, global_call_type_detail, interaction_metadata
from assets.upkeep.accept_losses import accept_losses
from assets.upkeep.backfill_plan import backfill_plan
from assets.upkeep.calls_index import calls_index
from assets.upkeep.restore_drill import restore_drill
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.jobs import ARCHIVE_DAY, STANDING
from pipelines.orchestration.resources import all_resources
from pipelines.orchestration.schedules import all_schedules
from pipelines.orchestration.sensors.alerts import alerts
from pipelines.orchestration.sensors.events import end_call_events_arrived
from pipelines.orchestration.sensors.pending import (
    archive_despite_failed_report,
    continue_stopped_runs,
    pending_recordings,
)
from pipelines.process_tuning import tune_allocator, tune_gc
from pipelines.ringcx.reports.columns import CURRENT, EVENTS, LEGACY
from pipelines.settings import Calendar, DagsterSettings, load

_ASSETS = (
    *(agent_segment_metadata, global_call_type_detail, interaction_metadata, end_call_events),
    *(recording_links, recordings, daily_manifest, calls),
)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that Dagster loads, from the environment's settings, in a process tuned for runs."""
    tune_allocator()
    tune_gc()
    return build_defs(calendar=load(DagsterSettings))


def build_defs(*, calendar: Calendar | None = None, environment: Environment | None = None) -> dg.Definitions:
    """Return fresh definitions; tests give their own `calendar` and `environment`."""
    days = calendar or load(Calendar)
    # `end_offset`: today is a partition, too.
    partitions = dg.DailyPartitionsDefinition(
        days.archive_start_date.isoformat(), timezone=days.archive_timezone, end_offset=1
    )
    # By noon: the nightly run starts at 04:30.
    fresh = dg.FreshnessPolicy.cron("0 12 * * *", timedelta(hours=12), days.archive_timezone)
    events = days.events_url is not None
    unused = {*LEGACY, *CURRENT, EVENTS} - {*days.reports, *([EVENTS] if events else [])}
    assets = [asset for asset in _ASSETS if asset.key.to_user_string() not in unused]
    keys = {asset.key for asset in assets}
    of_date = [check for check in checks.OF_A_DATE if {key.asset_key for key in check.check_keys} <= keys]
    if not days.uses_reports:
        of_date.remove(checks.mono_and_stereo_agree)

    def with_docs_link(text: str | None, section: str) -> str | None:
        link = f"\n\n[What to do when something is wrong]({days.archive_docs_url}/operations.md#{section})"
        return f"{text}{link}" if days.archive_docs_url else text

    def of_a_date(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(
            description=with_docs_link(spec.description, "what-the-metadata-says"),
            owners=[days.archive_owner] if days.archive_owner else [],
            deps=[dep for dep in spec.deps if dep.asset_key in keys],
            partitions_def=partitions,
            freshness_policy=fresh,
        )

    return dg.Definitions(
        assets=[asset.map_asset_specs(of_a_date) for asset in assets],
        asset_checks=[
            *(_with(check, partitions, with_docs_link) for check in of_date),
            _with(checks.no_overdue_recordings, None, with_docs_link),
        ],
        jobs=[ARCHIVE_DAY, STANDING, accept_losses, backfill_plan, calls_index, restore_drill],
        schedules=all_schedules(days),
        sensors=[
            pending_recordings(days, partitions),
            *([end_call_events_arrived(days, partitions)] if events else []),
            archive_despite_failed_report(days, partitions),
            continue_stopped_runs(days, partitions),
            alerts(),
        ],
        resources=all_resources(environment),
        # A process a step costs 4-5 s each, and its killed worker leaves orphans; threads do the work inside a step.
        executor=dg.in_process_executor,
    )


def _with(
    check: dg.AssetChecksDefinition,
    partitions: dg.DailyPartitionsDefinition | None,
    with_docs_link: Callable[[str | None, str], str | None],
) -> dg.AssetChecksDefinition:
    """Return `check` with partitions and a description; Dagster has a call for this on assets only."""
    ((output, spec),) = check.check_specs_by_output_name.items()
    description = with_docs_link(spec.description, "the-checks")
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this pinned Dagster: known, measured, and irrelevant to users.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        dated = dg.AssetCheckSpec(spec.name, asset=spec.asset_key, description=description, partitions_def=partitions)
    made: dg.AssetChecksDefinition = dg.AssetChecksDefinition.create(
        keys_by_input_name=check.keys_by_input_name,
        node_def=check.op,
        check_specs_by_output_name={output: dated},
        can_subset=False,
    )
    return made
