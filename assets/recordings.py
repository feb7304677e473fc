"""The recordings: known by their links, then held in the archive."""

from collections.abc import Iterable, Sequence
from datetime import date

import pyarrow.compute as pc
from dagster import (
    AssetExecutionContext,
    Config,
    MaterializeResult,
    ResourceParam,
    TableMetadataValue,
    asset,
)
from pydantic import Field

from assets.presentation import ProgressReporter, column_schema, counts, not_held, place, table, uri
from pipelines.archive import keys
from pipelines.ledger.schema import STATE_SCHEMA, values
from pipelines.ledger.store import Ledger
from pipelines.orchestration.failures import PermanentFailure, as_permanent_failure
from pipelines.orchestration.resources import Services
from pipelines.ringcx.reports.columns import REPORTS
from pipelines.steps.check.result import SAMPLE
from pipelines.steps.fetch.fetcher import Fetcher, refused_log_in
from pipelines.steps.fetch.reopen import Retried, reopen
from pipelines.steps.fetch.work_queue import standing_after, work_of
from pipelines.steps.link.extract_links import linked_days
from pipelines.steps.link.recordings_table import Recordings
from pipelines.steps.link.register_links import register_links
from pipelines.steps.link.rows import EVENTS
from pipelines.steps.pull.events import latency, waits


def _ids(recording_ids: Sequence[str]) -> TableMetadataValue:
    return table(("recording",), [(one,) for one in recording_ids[:SAMPLE]])


class RetryConfig(Config):
    """What somebody may ask of one run in the launchpad; a run without config tries nothing that is final."""

    retry_final: bool = Field(
        default=False,
        description="Try again every `missing`, `rejected` and `denied` recording of the date, once, in a new epoch.",
    )
    retry_recording_ids: list[str] = Field(
        default_factory=list,
        description=(
            "Try again the recordings with these ids, whatever their state; one that is held in the bucket is adopted "
            "and not fetched. The samples of the checks show ids."
        ),
    )


@asset(
    deps=[*REPORTS, EVENTS],
    group_name="recordings",
    kinds={"parquet"},
    metadata=column_schema(STATE_SCHEMA),
    description="The recordings that the date's rows link to. Each one not known before becomes `pending`.",
)
def recording_links(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[None]:
    """Register the recordings that the rows of the date link to."""
    with as_permanent_failure():
        found = register_links(
            services.ledger,
            date.fromisoformat(context.partition_key),
            zone=services.settings.zone,
            first=services.settings.archive_start_date,
            allowed=services.allowed,
            now=services.clock(),
            run_id=context.run.run_id,
        )
    return MaterializeResult(
        metadata={
            "dagster/partition_row_count": found.found,
            "links_in_rows": found.links,
            "recordings_found": found.found,
            "recordings_new": found.new,
            "recordings_known": found.known,
            "links_changed": found.relinked,
            "links_refused": sum(found.refused.values()),
            "of_both_sources": found.joined,
            "ambiguous": len(found.ambiguous),
            "held_twice": found.held_twice,
            "mono": found.by_layout.get("mono", 0),
            "stereo": found.by_layout.get("stereo", 0),
            **({"refused": table(("reason", "links"), sorted(found.refused.items()))} if found.refused else {}),
            **({"named_by_several_calls": _ids(found.shared)} if found.shared else {}),
            **({"ambiguous_sample": _ids(found.ambiguous)} if found.ambiguous else {}),
        }
    )


@asset(
    deps=[recording_links],
    group_name="recordings",
    kinds={"s3", "wav"},
    pool="ringcx_media",
    description=(
        "The WAV files in S3: everything `pending` and due is fetched, checked to be a whole recording, stored "
        "create-only with its SHA-256, and its state recorded. What is already held is never fetched again."
    ),
)
def recordings(
    context: AssetExecutionContext, config: RetryConfig, services: ResourceParam[Services]
) -> MaterializeResult[None]:
    """Fetch the due recordings of the date and record the state of each."""
    day, run_id = date.fromisoformat(context.partition_key), context.run.run_id
    ledger, allowed, prefix = services.ledger, services.allowed, services.bucket.prefix
    with as_permanent_failure():
        linked = linked_days(ledger, day, services.settings.zone, services.settings.archive_start_date)
        retried = _reopened(config, services, day, linked, run_id)
        work = work_of(ledger, day, linked, prefix, allowed, now=services.clock(), run_id=run_id)
        context.log.info("%d recordings known, %d due", len(work.known), len(work.due))
        result = _fetcher(services, run_id, ProgressReporter(context)).run(work)
        known = work.known
        if result.settled:
            known = standing_after(ledger, day, linked, now=services.clock(), run_id=run_id)
        event_latency = (
            _event_latency(ledger, known, day, run_id) if services.events is not None and result.archived else {}
        )
    if complaint := refused_log_in(result):
        raise PermanentFailure(complaint)
    return MaterializeResult(
        metadata={
            "not_held": not_held(known.reasons()),
            **counts(known.by_status()),
            "of_other_dates": known.dated_otherwise(day),
            "archived_now": result.archived,
            "adopted_now": result.adopted,
            "reopened_now": retried.fresh,
            "still_not_allowed": retried.refused,
            "megabytes_now": round(result.size / 1e6, 3),
            **event_latency,
            **uri(services.bucket, keys.day_prefix(prefix, day)),
            "archive": place(services.bucket, keys.day_prefix(prefix, day)),
        }
    )


def _reopened(config: RetryConfig, services: Services, day: date, linked: Iterable[date], run_id: str) -> Retried:
    return reopen(
        services.ledger,
        day,
        linked,
        all_final=config.retry_final,
        recording_ids=config.retry_recording_ids,
        allowed=services.allowed,
        now=services.clock(),
        run_id=run_id,
    )


def _fetcher(services: Services, run_id: str, progress: ProgressReporter) -> Fetcher:
    return Fetcher(
        ledger=services.ledger,
        bucket=services.bucket,
        media=services.recorders,
        rules=services.rules,
        concurrency=services.settings.archive_concurrency,
        run_id=run_id,
        clock=services.clock,
        stop=services.stop,
        progress=progress,
        quarantine_bytes=services.settings.archive_quarantine_max_mb << 20,
    )


def _event_latency(ledger: Ledger, known: Recordings, day: date, run_id: str) -> dict[str, float]:
    """How long the recordings that the run archived took from their End Call Event; nothing when none had one."""
    archived = known.held_by(run_id)
    days = {day, *values(pc.unique(archived["found_on"]))}
    at = dict(zip(values(archived["recording_id"]), values(archived["written_at"]), strict=True))
    taken = latency(waits(ledger, days, at))
    if taken is None:
        return {}
    return {
        "recordings_by_event": taken.recordings,
        "event_to_archive_median_s": taken.median_s,
        "event_to_archive_p95_s": taken.p95_s,
    }
