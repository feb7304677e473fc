"""The job that reads a sample of the archive back every day."""

import json
import random

import dagster as dg
from ulid import ULID

from assets.presentation import s3_link, table
from pipelines import storage
from pipelines.archive.keys import verification_key
from pipelines.calendar import local_day
from pipelines.orchestration.failures import PermanentFailure, as_permanent_failure
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore
from pipelines.orchestration.run_requests import unfinished_dates
from pipelines.steps.verify.days import Archive, drill, sealed_dates
from pipelines.steps.verify.report import Verification

_SHOWN = 20


@dg.op
def prove_sample(
    context: dg.OpExecutionContext, environment: EnvironmentParam, ledger: LedgerStore, archive: ArchiveStore
) -> None:
    """Read recordings back, store the result, and fail with its sentence if there are discrepancies."""
    seed = f"{random.SystemRandom().getrandbits(64):016x}"
    with as_permanent_failure():
        settings, bucket, started = environment.settings, archive.open(), environment.clock()
        sealed = Archive(bucket, ledger.open(), settings, storage.verifier(settings), environment.clock)
        today = local_day(started, settings.zone)
        # A date with an unfinished run may differ from its last manifest.
        busy = unfinished_dates(context.instance)
        days = [day for day in sealed_dates(bucket) if day < today and day.isoformat() not in busy]
        report = Verification(
            {
                "bucket": bucket.name,
                "prefix": bucket.prefix,
                "started_at": started.isoformat(),
                "read_data": {"recordings": settings.archive_drill_recordings, "seed": seed},
                "signatures": sealed.verifier is not None,
                "sealed_dates": len(days),
            }
        )
        report.dates += drill(sealed, days, seed, report.found.append)
        document = json.dumps(report.document(environment.clock()), indent=1)
        key = verification_key(bucket.prefix, today, str(ULID.from_datetime(started)))
        bucket.put_new(key, document.encode(), content_type="application/json")
    sentence = report.sentence()
    if not days:
        sentence = "There is no sealed date to read back yet: a date counts from the day after its run."
    stored = {"seed": seed, "result": s3_link(bucket, key)}
    metadata = {"sentence": sentence, **_counts(report), **stored, **_tables(report)}
    if report.discrepancies:
        raise PermanentFailure(sentence, metadata)
    context.add_output_metadata(metadata)


def _counts(report: Verification) -> dict[str, float]:
    total = report.sum()
    return {
        "dates": total["dates"],
        "recordings_read": total["read"],
        "megabytes_read": round(total["read_bytes"] / 1e6, 3),
        "recordings_held": total["held"],
        "discrepancies": total["discrepancies"],
    }


def _tables(report: Verification) -> dict[str, dg.MetadataValue]:
    rows = [(day.date, day.held, day.read, day.bytes_read / 1e6, day.discrepancies.total()) for day in report.dates]
    first = [(found.date, found.kind, found.sentence) for found in report.discrepancies[:_SHOWN]]
    by_date = table(("date", "held", "read", "megabytes_read", "discrepancies"), rows)
    return {"by_date": by_date, "first_discrepancies": table(("date", "kind", "sentence"), first)}


@dg.job
def restore_drill() -> None:
    """Read back some of the archive's dates and recordings every day, chosen at random
    (`ARCHIVE_DRILL_RECORDINGS`), and compare them with manifests and ledger, as `ringcx-archive verify --read-data`
    does. The result is stored under `verifications/`. Fails if something is not as it was sealed or cannot be read.
    While there is no sealed date to read, it succeeds and says that there is none.
    """
    prove_sample()
