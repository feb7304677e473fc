"""The ledger's small parts of an old date, merged: what many pulls, attempts and events have left behind."""

from datetime import date

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DailyPartitionsDefinition,
    MaterializeResult,
    ResourceParam,
    asset,
)

from assets.presentation import OWNER
from pipelines.calendar import local_day
from pipelines.failures import told_in_a_sentence
from pipelines.jobs import LEDGER_COMPACTION
from pipelines.resources import Services
from pipelines.settings import Calendar
from pipelines.steps.compact import Compacted, compact_day
from pipelines.steps.findings import number


def compaction_assets(partitions: DailyPartitionsDefinition, calendar: Calendar) -> list[AssetsDefinition]:
    """The compaction of a date."""

    @asset(
        name=LEDGER_COMPACTION,
        deps=["daily_manifest"],
        partitions_def=partitions,
        group_name="proof",
        kinds={"parquet"},
        owners=[OWNER],
        description=(
            "The date's parts of `report_rows`, `report_pulls`, `recording_states` and `event_reads`, merged into one "
            "of each once the night's runs come back to it no more. No line is left out. The small parts stay for "
            "`LEDGER_COMPACTION_GRACE_DAYS` and are removed then, where the rights allow it. A younger date is left "
            "alone."
        ),
    )
    def ledger_compaction(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[None]:
        day = date.fromisoformat(context.partition_key)
        with told_in_a_sentence():
            now = services.clock()
            if not calendar.is_over_for_good(day, local_day(now, calendar.zone)):
                return MaterializeResult(metadata={"said": f"{day} is within the look-back: nothing was merged."})
            done = compact_day(services.compaction, services.ledger_parts, services.bucket, day, now=now)
        return MaterializeResult(
            metadata={
                "parts_before": done.parts_before,
                "parts_read": done.parts_read,
                "parts_kept": done.kept,
                "parts_removed": done.removed,
                "folders_merged": done.merged,
                "parts_unwitnessed": done.unwitnessed,
                "said": _said(done, services.settings.ledger_compaction_grace_days),
            }
        )

    return [ledger_compaction]


def _said(done: Compacted, grace_days: int) -> str:
    said = [f"A reader opens {number(done.parts_read, 'part')}."]
    if not done.may_remove:
        said.append(
            f"The rights do not allow to remove what was merged (s3:DeleteObject on the ledger): "
            f"{number(done.kept, 'part stays', 'parts stay')} unread."
        )
    elif done.kept:
        said.append(
            f"{number(done.kept, 'merged part stays', 'merged parts stay')} unread for {grace_days} days from then on."
        )
    if done.unwitnessed:
        said.append(f"{number(done.unwitnessed, 'part')} came after the date was sealed and left alone: run the date.")
    return " ".join(said)
