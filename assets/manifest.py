"""What a date holds, sealed: the manifest, and the catalog that people query."""

from datetime import date

from dagster import (
    AssetExecutionContext,
    MaterializeResult,
    ResourceParam,
    asset,
)

from assets.presentation import counts, not_held, place, uri
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import Services
from pipelines.steps.link.extract_links import linked_days
from pipelines.steps.seal.manifest import seal_day, seal_neighbours


@asset(
    deps=["recordings"],
    group_name="proof",
    kinds={"s3", "json"},
    description=(
        "The sealed list of the recordings dated this day, each with its state and reason, and with key, size and "
        "SHA-256 if it is archived. Written once; a day that changed gets a new number. Also updates the catalog, "
        "and seals the other dates under which calls over midnight are stored."
    ),
)
def daily_manifest(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[None]:
    """Seal the date, and its neighbours under which calls over midnight are stored."""
    day = date.fromisoformat(context.partition_key)
    with as_permanent_failure():
        now, run_id = services.clock(), context.run.run_id
        stores = (services.ledger, services.ledger_parts, services.bucket)
        sealed = seal_day(*stores, day, now=now, run_id=run_id, signer=services.signer)
        known = services.settings
        others = linked_days(services.ledger, day, known.zone, known.archive_start_date) - {day}
        also = seal_neighbours(
            *stores,
            others,
            first=known.archive_start_date,
            now=now,
            run_id=run_id,
            signer=services.signer,
        )
    for of, one in {day: sealed, **also}.items():
        if one.outdated:
            context.log.warning(
                "The manifest of %s may lack what another run has just written to that date: that run seals it "
                "again when it ends. If it was stopped, run %s again",
                of,
                of,
            )
    new = [of.isoformat() for of, one in also.items() if not one.manifest.unchanged]
    return MaterializeResult(
        metadata={
            **counts(sealed.recordings.by_status()),
            "megabytes": round(sealed.recordings.size() / 1e6, 3),
            "manifest_number": sealed.manifest.number,
            "manifest_is_new": not sealed.manifest.unchanged,
            "manifest_sha256": sealed.manifest.sha256,
            "manifest_is_signed": services.signer is not None,
            "manifests_of_neighbours": ", ".join(new) or "none new",
            **uri(services.bucket, sealed.manifest.key),
            "manifest": place(services.bucket, sealed.manifest.key),
            "catalog": place(services.bucket, sealed.catalog),
            "not_held": not_held(sealed.recordings.reasons()),
        }
    )
