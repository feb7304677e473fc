"""What a date holds, sealed: the manifest, and the catalog that people query."""

from datetime import date
from functools import partial

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
from pipelines.steps.seal.manifest import neighbours_to_seal, seal_day


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
        parts, bucket, settings = services.ledger_parts, services.bucket, services.settings
        stores, now, run_id = (services.ledger, parts, bucket), services.clock(), context.run.run_id
        seal = partial(seal_day, *stores, now=now, run_id=run_id, signer=services.signer)
        sealed = seal(day)
        others = linked_days(services.ledger, day, settings.zone, settings.archive_start_date) - {day}
        first = settings.archive_start_date
        neighbours = {other: seal(other) for other in neighbours_to_seal(parts, bucket, others, first)}
    for sealed_day, manifest in {day: sealed, **neighbours}.items():
        if manifest.outdated:
            context.log.warning(
                "The manifest of %s may lack what another run has just written to that date: that run seals it "
                "again when it ends. If it was stopped, run %s again",
                sealed_day,
                sealed_day,
            )
    new = [other.isoformat() for other, manifest in neighbours.items() if not manifest.manifest.unchanged]
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
