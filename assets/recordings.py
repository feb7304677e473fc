"""The recordings of a date: registered by their links, then archived."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from assets.presentation import (
    calls_page,
    column_schema,
    counted,
    listing,
    not_held,
    progress_logger,
    stored_at,
    table,
    verdict_and_counts,
    without_zeros,
)
from pipelines.archive import keys
from pipelines.ledger.schema import STATE_SCHEMA, values
from pipelines.ledger.store import Ledger
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore, SourceParam
from pipelines.ringcx.reports.columns import EVENTS, REPORTS
from pipelines.steps.check.result import LISTED
from pipelines.steps.check.verdict import judge_date
from pipelines.steps.fetch.fetcher import Fetcher
from pipelines.steps.fetch.work_queue import reopen, work_queue
from pipelines.steps.link.extract_links import linked_days
from pipelines.steps.link.recordings_table import RecordingsTable
from pipelines.steps.link.register_links import matched_recordings, register_links
from pipelines.steps.pull.events import seconds_to_archive
from pipelines.wording import number


def _ids(recording_ids: Sequence[str]) -> dg.MarkdownMetadataValue:
    return listing(pd.DataFrame({"recording": recording_ids[:LISTED]}))


class RetryConfig(dg.Config):
    """Options for a single run in the launchpad. A run without config retries no final state."""

    retry_final: bool = Field(
        default=False,
        description="Retry every `missing`, `rejected` and `denied` recording of the date once, in a new epoch.",
    )
    retry_recording_ids: list[str] = Field(
        default_factory=list,
        description=(
            "Retry the recordings with these ids, whatever their state. A recording that is in the bucket is "
            "adopted, not fetched. The samples of the checks show ids."
        ),
    )


@dg.asset(deps=[*REPORTS, EVENTS], group_name="recordings", kinds={"parquet"}, metadata=column_schema(STATE_SCHEMA))
def recording_links(
    context: dg.AssetExecutionContext, environment: EnvironmentParam, source: SourceParam, ledger: LedgerStore
) -> dg.MaterializeResult[None]:
    """The recordings that the date's rows link to. Each new one is `pending`, or `rejected` if its link is refused."""
    with as_permanent_failure():
        day, states, settings = date.fromisoformat(context.partition_key), ledger.open(), environment.settings
        now, run_id = environment.clock(), context.run.run_id
        found = register_links(states, day, settings, allowed=source.allowed, now=now, run_id=run_id)
    counts = found.counts
    names = {"new": "recordings_new", "known": "recordings_known", "with a refused link": "links_refused"}
    what = counted({says: counts[name] for says, name in names.items()}, "none so far")
    recordings = number(counts["recordings_found"], "recording")
    return dg.MaterializeResult(
        metadata={
            "summary": f"The rows of {day} link to {recordings}; {what}.",
            "dagster/partition_row_count": counts["recordings_found"],
            "dagster/uri": states.uri("recording_states", day),
            **{name: counts[name] for name in ("recordings_found", "recordings_new")},
            **without_zeros(counts),
            **({"refused": table(("reason", "links"), sorted(found.refused.items()))} if found.refused else {}),
            **({"named_by_several_calls": _ids(found.shared)} if found.shared else {}),
            **({"ambiguous_sample": _ids(found.ambiguous)} if found.ambiguous else {}),
        }
    )


@dg.asset(deps=[recording_links], group_name="recordings", kinds={"s3", "wav"}, pool="ringcx_media")
def recordings(  # noqa: PLR0917 - what it touches
    context: dg.AssetExecutionContext,
    config: RetryConfig,
    environment: EnvironmentParam,
    source: SourceParam,
    ledger: LedgerStore,
    archive: ArchiveStore,
) -> dg.MaterializeResult[None]:
    """The WAV files in S3. Every recording that is `pending` and due is fetched, checked for completeness, and stored
    create-only with its SHA-256; then its state is recorded. An archived recording is never fetched again.
    """
    day, run_id, now = date.fromisoformat(context.partition_key), context.run.run_id, environment.clock()
    with as_permanent_failure():
        settings, states, bucket, allowed = environment.settings, ledger.open(), archive.open(), source.allowed
        linked = linked_days(states, day, settings)
        ids, all_final = config.retry_recording_ids, config.retry_final
        again, refused = reopen(states, day, linked, ids, all_final=all_final, allowed=allowed, now=now, run_id=run_id)
        matched = matched_recordings(states, day, linked, now=now, run_id=run_id)
        queue = work_queue(matched, allowed, bucket.prefix, now=now, run_id=run_id)
        context.log.info("%s known, %d due", number(len(matched), "recording"), len(queue))
        attempt, progress = source.attempt(bucket), progress_logger(context.log)
        result = Fetcher(attempt, states, settings.archive_concurrency, run_id, progress).run(queue)
        if result.settled:
            matched = matched_recordings(states, day, linked, now=environment.clock(), run_id=run_id)
        verdict = judge_date(states, bucket, day, settings, now=environment.clock(), run_id=run_id)
        archived = values(matched.archived["date"]).count(day)
        event_latency = _event_latency(states, matched, day, run_id) if settings.events_url and result.archived else {}
    now_too = {"adopted_now": result.adopted, "reopened_now": again, "still_not_allowed": refused}
    return dg.MaterializeResult(
        metadata={
            **verdict_and_counts(verdict, matched.by_status()),
            "archived_now": result.archived,
            "megabytes_now": round(result.size / 1e6, 3),
            **without_zeros({"of_other_dates": len(matched) - values(matched.lines["date"]).count(day), **now_too}),
            **event_latency,
            "not_held": not_held(matched.reasons()),
            **calls_page(settings, day),
            **stored_at(bucket, "archive", keys.day_prefix(bucket.prefix, day), archived),
        }
    )


def _event_latency(ledger: Ledger, matched: RecordingsTable, day: date, run_id: str) -> dict[str, float]:
    """Return how long the recordings that the run archived took after their End Call Event; empty if none had one."""
    archived = matched.archived.filter(pc.equal(matched.archived["run_id"], pa.scalar(run_id)))
    seconds = seconds_to_archive(ledger, {day, *values(pc.unique(archived["found_on"]))}, archived)
    if seconds.empty:
        return {}
    return {
        "recordings_by_event": len(seconds),
        "event_to_archive_median_s": round(float(seconds.median()), 1),
        "event_to_archive_p95_s": round(float(seconds.quantile(0.95)), 1),
    }
