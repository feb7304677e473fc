"""The presentation of assets in the UI: tables, columns, addresses in the archive, progress."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

import dagster as dg
import pandas as pd
import pyarrow as pa

from pipelines.archive.bucket import Bucket
from pipelines.ledger.states import Status
from pipelines.settings import Settings
from pipelines.steps.check.result import LISTED
from pipelines.steps.check.verdict import DateVerdict, Verdict
from pipelines.steps.fetch.fetcher import FetchResult

_PROGRESS_SECONDS = 30.0
_PROGRESS_SHARE = 0.1


def table(columns: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> dg.TableMetadataValue:
    """Return a table for the UI, which has room for four short columns and never wraps an id: for ids use `listing`."""
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    # Dagster takes the types from the first row, if there is one.
    schema = None if records else dg.TableSchema([dg.TableColumn(name) for name in columns])
    return dg.MetadataValue.table(records, schema)


def listing(rows: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """Return rows as a list, which the UI opens in a window: a line for each row, without empty values."""
    # In a code span nothing that the source wrote is Markdown.
    texts = rows.astype(str).replace("`", "'", regex=True).to_dict("records")
    lines = [", ".join(f"{name} `{text}`" for name, text in row.items() if text) for row in texts]
    if len(lines) >= LISTED:
        lines.append(
            f"Only the first {LISTED} are listed here. For a page with all of them: `ringcx-archive certificate --date "
            "<date> --html all.html`."
        )
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))


def without_zeros(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers without the zeros, among which a problem is hard to find."""
    return {name: number for name, number in numbers.items() if number}


def counted(numbers: Mapping[str, int], otherwise: str) -> str:
    """Return numbers with what they count, for the end of a sentence, without zeros."""
    return ", ".join(f"{count:,} {name}" for name, count in numbers.items() if count) or otherwise


def verdict_and_counts(verdict: DateVerdict, by_status: Counter[Status]) -> dict[str, str | int]:
    """Return the verdict and the counts by state, under constant names that the UI plots; `found` only if known."""
    found = {} if verdict.verdict is Verdict.unknown else {"found": by_status.total()}
    others = {str(status): by_status[status] for status in Status} | {"accepted_losses": len(verdict.accepted)}
    sentence = f"{verdict.verdict}: {verdict.sentence}"
    return {"verdict": sentence, **found, "archived": by_status[Status.archived], **without_zeros(others)}


def not_held(reasons: pa.Table) -> str:
    """Return how many recordings are not archived, by state and reason, and the time of the first retry of each group.

    In words: a table here would be wider than its place on the asset's page, and cut off the verdict above it.
    """
    groups = []
    for row in sorted(reasons.to_pylist(), key=lambda row: (row["status"], row["reason"] or "")):
        soonest = row["next_attempt_at"]
        next_attempt = f"next attempt {soonest:%Y-%m-%d %H:%M} UTC" if soonest else "final"
        groups.append(f"{row['recordings']:,} {row['status']} ({row['reason'] or 'new'}), {next_attempt}")
    return "; ".join(groups) or "none"


def s3_link(bucket: Bucket, prefix: str) -> dg.MetadataValue:
    """Return a link into the AWS console, or the `s3://` address if the store is not Amazon's."""
    if bucket.is_amazon:
        return dg.MetadataValue.url(f"https://s3.console.aws.amazon.com/s3/buckets/{bucket.name}?prefix={prefix}")
    return dg.MetadataValue.path(f"s3://{bucket.name}/{prefix}")


def calls_page(settings: Settings, day: date) -> dict[str, dg.MetadataValue]:
    """Return a link to the page that lists every call and recording of a date; none if BROWSE_URL is not set."""
    if settings.browse_url is None:
        return {}
    return {"calls_page": dg.MetadataValue.url(f"{settings.browse_url}/?from={day}&to={day}")}


def stored_at(bucket: Bucket, name: str, key: str, rows: int) -> dict[str, dg.MetadataValue]:
    """Return where `rows` of a date are stored: address and number for the UI's catalog, and a link called `name`."""
    uri, count = dg.MetadataValue.text(f"s3://{bucket.name}/{key}"), dg.MetadataValue.int(rows)
    return {"dagster/uri": uri, "dagster/partition_row_count": count, name: s3_link(bucket, key)}


def column_schema(schema: pa.Schema) -> dict[str, dg.TableSchema]:
    """Return the metadata that shows a ledger table's columns in the UI's catalog."""
    columns = [dg.TableColumn(field.name, str(field.type)) for field in schema]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def progress_logger(log: logging.Logger) -> Callable[[FetchResult], None]:
    """Return a function that logs the progress of a long step every 30 s or 10 %, with its rate and the time left."""
    began = last = time.monotonic()
    reported = 0

    def report(progress: FetchResult) -> None:
        nonlocal last, reported
        now, ahead = time.monotonic(), progress.settled - reported
        if not ahead or (ahead < progress.due * _PROGRESS_SHARE and now - last < _PROGRESS_SECONDS):
            return
        last, reported = now, progress.settled
        rate = progress.settled / max(now - began, 0.001)
        left = timedelta(seconds=round((progress.due - progress.settled) / rate))
        log.info(
            "%d of %d recordings done, %.1f MB archived, %.1f recordings a second, about %s left",
            *(progress.settled, progress.due, progress.size / 1e6, rate, left),
        )

    return report
