"""The sealed content of a date: the manifest, and the catalog that people query."""

from datetime import date
from functools import partial

import dagster as dg

from assets.presentation import column_schema, not_held, s3_link, stored_at, verdict_and_counts
from pipelines import storage
from pipelines.archive.keys import catalog_key
from pipelines.archive.proof.seal import CATALOG_SCHEMA
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore
from pipelines.steps.link.extract_links import linked_days
from pipelines.steps.seal.seal_day import Stores, neighbours_to_seal, seal_day


@dg.asset(
    deps=["recordings"], group_name="proof", kinds={"s3", "json", "parquet"}, metadata=column_schema(CATALOG_SCHEMA)
)
def daily_manifest(
    context: dg.AssetExecutionContext, environment: EnvironmentParam, ledger: LedgerStore, archive: ArchiveStore
) -> dg.MaterializeResult[None]:
    """The sealed list of the recordings dated this day, each with its state and reason, and with key, size and SHA-256
    if it is archived.

    A manifest never changes; when the date changes, it gets a new manifest with the next number. Also writes the date's
    part of the catalog, whose columns, rows and address are shown here, and seals the other dates under which calls
    over midnight are stored.
    """
    day, run_id = date.fromisoformat(context.partition_key), context.run.run_id
    with as_permanent_failure():
        settings, states, bucket = environment.settings, ledger.open(), archive.open()
        signer = storage.signer(settings)
        stores = Stores(bucket, states, settings)
        seal = partial(seal_day, stores, now=environment.clock(), run_id=run_id, signer=signer)
        sealed = seal(day)
        # The dates that found its recordings too: their verdict may wait for what this run archived.
        found_on = sealed.recordings.found_on()
        others = (linked_days(states, day, settings) | found_on) - {day}
        neighbours = {other: seal(other) for other in neighbours_to_seal(stores, others)}
    new = [sealed_day.isoformat() for sealed_day, result in neighbours.items() if not result.manifest.unchanged]
    manifest, verdict = sealed.manifest, sealed.verdict
    return dg.MaterializeResult(
        metadata={
            **verdict_and_counts(verdict, sealed.recordings.by_status()),
            **({"percent_held": round(100 * verdict.held / verdict.expected, 2)} if verdict.expected else {}),
            "megabytes": round(sealed.recordings.size() / 1e6, 3),
            "manifest_number": manifest.number,
            "manifest_is_new": not manifest.unchanged,
            # In four groups: in one it is wider than its place on the page, and cuts off the verdict.
            "manifest_sha256": " ".join(manifest.sha256[start : start + 16] for start in range(0, 64, 16)),
            "manifest_is_signed": signer is not None,
            "manifests_of_neighbours": ", ".join(new) or "none new",
            "manifest": s3_link(bucket, manifest.key),
            **stored_at(bucket, "catalog", catalog_key(bucket.prefix, day), len(sealed.recordings)),
            "not_held": not_held(sealed.recordings.reasons()),
        }
    )
