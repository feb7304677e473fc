"""The restore drill: every day some recordings, chosen at random, are read back and proved."""

import io
import random
from collections.abc import Iterator, Sequence
from itertools import islice

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    MaterializeResult,
    ResourceParam,
    TableMetadataValue,
    multi_asset,
)

from assets.presentation import OWNER, place, table
from pipelines.calendar import local_day
from pipelines.failures import told_in_a_sentence
from pipelines.jobs import RESTORE_DRILL
from pipelines.priority import PARTITION_TAG
from pipelines.resources import Services
from pipelines.run_requests import unfinished_dates
from pipelines.steps.verification.days import Archive
from pipelines.steps.verification.doubts import DayVerdict
from pipelines.steps.verification.drill import drill, keep, sealed_dates
from pipelines.steps.verification.report import Report

CHECK = "archive_is_as_sealed"
_SHOWN = 20
_DESCRIPTION = (
    "Every day some of the archive's dates and recordings, chosen at random (`ARCHIVE_DRILL_RECORDINGS` or "
    "`ARCHIVE_DRILL_SHARE`), are read back from the bucket and held against manifests and ledger, as "
    "`python -m pipelines.verify --read-data` does. The result is kept under `verifications/`. Belongs to no date: in "
    "a run of a date it does nothing."
)


def drill_assets() -> list[AssetsDefinition]:
    """The drill and its check."""

    # A multi-asset because only one that can be subset may leave out its check, as this one does in a run of a date
    # (`dagster asset materialize --select '*' --partition …` selects it too).
    @multi_asset(
        name=RESTORE_DRILL,
        specs=[
            AssetSpec(
                RESTORE_DRILL,
                group_name="proof",
                kinds={"s3", "json"},
                owners=[OWNER],
                description=_DESCRIPTION,
                skippable=True,
            )
        ],
        check_specs=[
            AssetCheckSpec(
                CHECK, asset=RESTORE_DRILL, description="The recordings that the drill read are as they were sealed."
            )
        ],
        can_subset=True,
    )
    def restore_drill(
        context: AssetExecutionContext, services: ResourceParam[Services]
    ) -> Iterator[MaterializeResult[None]]:
        if PARTITION_TAG in context.run.tags:
            context.log.info("A drill is not part of a date's run; materialize restore_drill by itself")
            return
        with told_in_a_sentence():
            yield _drilled(context, services)

    return [restore_drill]


def _drilled(context: AssetExecutionContext, services: Services) -> MaterializeResult[None]:
    settings, started = services.settings, services.clock()
    seed = f"{random.SystemRandom().getrandbits(64):016x}"
    today = local_day(started, settings.zone)
    # A date whose run is not over has every right to differ from its last manifest.
    busy = unfinished_dates(context.instance)
    days = [day for day in sealed_dates(services.bucket) if day < today and day.isoformat() not in busy]
    verdicts: list[DayVerdict] = []
    with Report(
        bucket=services.bucket.name,
        prefix=services.bucket.prefix,
        started_at=started.isoformat(),
        read_data={
            "recordings": settings.archive_drill_recordings,
            "share": settings.archive_drill_share,
            "seed": seed,
        },
        signatures=services.verifier is not None,
        sealed_dates=len(days),
    ) as report:
        for verdict in drill(
            _archive(services),
            days,
            recordings=settings.archive_drill_recordings,
            share=settings.archive_drill_share,
            seed=seed,
            tell=report.tell,
            progress=lambda *_: None,
        ):
            report.add(verdict)
            verdicts.append(verdict)
            context.log.info("%s: %d recordings read, %d doubts", verdict.day, verdict.read, verdict.doubts.total())
        document = io.StringIO()
        report.write(document, services.clock())
        key = keep(services.bucket, today, document.getvalue(), now=started)
        result = report.sum
        doubts = [(one["date"], one["kind"], one["sentence"]) for one in islice(report.doubts(), _SHOWN)]
    return MaterializeResult(
        asset_key=RESTORE_DRILL,
        metadata={
            "dates": result.dates,
            "recordings_read": result.read,
            "megabytes_read": round(result.read_bytes / 1e6, 3),
            "recordings_held": result.held,
            "doubts": result.doubts,
            "seed": seed,
            "result": place(services.bucket, key),
            "by_date": _by_date(verdicts),
        },
        check_results=[
            AssetCheckResult(
                check_name=CHECK,
                passed=bool(result.dates) and not result.doubts,
                severity=AssetCheckSeverity.ERROR if result.doubts else AssetCheckSeverity.WARN,
                description=result.sentence(),
                metadata={
                    "doubts": result.doubts,
                    "result": place(services.bucket, key),
                    **({"first_doubts": table(("date", "kind", "sentence"), doubts)} if doubts else {}),
                },
            )
        ],
    )


def _archive(services: Services) -> Archive:
    return Archive(
        bucket=services.bucket,
        ledger=services.ledger,
        parts=services.ledger_parts,
        zone=services.settings.zone,
        accounts=services.settings.ringcx_account_ids,
        reports=services.settings.reports,
        verifier=services.verifier,
        threads=services.settings.archive_concurrency,
        start=services.settings.archive_start_date,
    )


def _by_date(verdicts: Sequence[DayVerdict]) -> TableMetadataValue:
    columns = ("date", "held", "read", "megabytes_read", "doubts")
    rows = [(str(one.day), one.held, one.read, one.read_bytes / 1e6, one.doubts.total()) for one in verdicts]
    return table(columns, rows)
