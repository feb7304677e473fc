"""The restore drill: every day some recordings, chosen at random, are read back and proved. A job: it makes no data."""

import io
import random
from itertools import islice

from dagster import OpExecutionContext, ResourceParam, job, op

from assets.presentation import place, table
from pipelines.calendar import local_day
from pipelines.orchestration.failures import PermanentFailure, as_permanent_failure
from pipelines.orchestration.resources import Services
from pipelines.orchestration.run_requests import unfinished_dates
from pipelines.steps.verify.days import Archive
from pipelines.steps.verify.drill import drill, keep, sealed_dates
from pipelines.steps.verify.report import Report

_SHOWN = 20
_DESCRIPTION = (
    "Every day some of the archive's dates and recordings, chosen at random (`ARCHIVE_DRILL_RECORDINGS` or "
    "`ARCHIVE_DRILL_SHARE`), are read back from the bucket and held against manifests and ledger, as "
    "`python -m pipelines.verify --read-data` does. The result is kept under `verifications/`. Fails when something is "
    "not as it was sealed or cannot be read. Succeeds, and says so, while there is no sealed date to read."
)


@op
def prove_sample(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Read recordings back, keep the result, and fail with its sentence when there are doubts."""
    seed = f"{random.SystemRandom().getrandbits(64):016x}"
    rows: list[tuple[str, int, int, float, int]] = []
    with as_permanent_failure():
        settings, started = services.settings, services.clock()
        today = local_day(started, settings.zone)
        # A date whose run is not over has every right to differ from its last manifest.
        busy = unfinished_dates(context.instance)
        size = {"recordings": settings.archive_drill_recordings, "share": settings.archive_drill_share}
        bucket = services.bucket
        days = [day for day in sealed_dates(bucket) if day < today and day.isoformat() not in busy]
        report = Report(
            bucket=bucket.name,
            prefix=bucket.prefix,
            started_at=started.isoformat(),
            read_data={**size, "seed": seed},
            signatures=services.verifier is not None,
            sealed_dates=len(days),
        )
        for one in drill(
            _archive(services),
            days,
            recordings=settings.archive_drill_recordings,
            share=settings.archive_drill_share,
            seed=seed,
            tell=report.tell,
        ):
            report.dates.append(one)
            rows.append((str(one.day), one.held, one.read, one.read_bytes / 1e6, one.doubts.total()))
            context.log.info("%s: %d recordings read, %d doubts", one.day, one.read, one.doubts.total())
        document = io.StringIO()
        report.write(document, services.clock())
        key = keep(bucket, today, document.getvalue(), now=started)
        result, sentence = report.sum(), report.sentence()
        if not days:
            sentence = "There is no sealed date to read back yet: dates count from the day after their run."
        first = [(one["date"], one["kind"], one["sentence"]) for one in islice(report.doubts(), _SHOWN)]
    context.log.info(sentence)
    metadata = {
        "sentence": sentence,
        "dates": result["dates"],
        "recordings_read": result["read"],
        "megabytes_read": round(result["read_bytes"] / 1e6, 3),
        "recordings_held": result["held"],
        "doubts": result["doubts"],
        "seed": seed,
        "result": place(bucket, key),
        "by_date": table(("date", "held", "read", "megabytes_read", "doubts"), rows),
        "first_doubts": table(("date", "kind", "sentence"), first),
    }
    if result["doubts"]:
        raise PermanentFailure(sentence, metadata)
    context.add_output_metadata(metadata)


@job(description=_DESCRIPTION)
def restore_drill() -> None:
    """Read some recordings back, chosen at random over all dates, and prove them."""
    prove_sample()


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
