"""How the assets show what they did: tables, places in the archive, progress."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
from dagster import (
    AssetExecutionContext,
    AssetObservation,
    MetadataValue,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

from pipelines.archive.bucket import Bucket
from pipelines.ledger.states import Status
from pipelines.steps.fetch.fetcher import FetchResult

OWNER = "team:recording-archive"
PROGRESS_SECONDS = 30.0
PROGRESS_SHARE = 0.1

Cell = str | int | float


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> TableMetadataValue:
    """Return a table for the UI. A column is `float` if any of its values is, else `int` or `string` by its values."""
    types = [_type([row[index] for row in rows]) for index in range(len(columns))]
    return MetadataValue.table(
        records=[TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        schema=TableSchema([TableColumn(name, kind) for name, kind in zip(columns, types, strict=True)]),
    )


def _type(values: Sequence[Cell]) -> str:
    kinds = {type(value) for value in values}
    return "string" if not kinds or str in kinds else "float" if float in kinds else "int"


def counts(by_status: Counter[Status]) -> dict[str, int]:
    """How many recordings stand where, under constant names so that the UI plots them over dates."""
    return {"found": by_status.total(), **{str(status): by_status[status] for status in Status}}


def not_held(reasons: pa.Table) -> TableMetadataValue:
    """The recordings that should exist and are not held: how many for each state and reason (`Recordings.reasons`), and
    what happens next.
    """
    rows = []
    for one in reasons.to_pylist():
        soonest = one["next_attempt_at"]
        following = f"tried again from {soonest:%Y-%m-%d %H:%M} UTC" if soonest else "final"
        rows.append((one["status"], one["reason"] or "new", one["recordings"], following, one["example"]))
    return table(("state", "reason", "recordings", "next", "example"), sorted(rows))


def place(bucket: Bucket, prefix: str) -> MetadataValue:
    """Where something lies: a link into the AWS console, or the address where the store is not Amazon's."""
    if bucket.is_amazon:
        return MetadataValue.url(f"https://s3.console.aws.amazon.com/s3/buckets/{bucket.name}?prefix={prefix}")
    return MetadataValue.path(f"s3://{bucket.name}/{prefix}")


class ProgressReporter:
    """Shows a long step's progress in the UI: an observation every 30 s or 10 %, not one per recording."""

    def __init__(self, context: AssetExecutionContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._told_at = clock()
        self._told = 0

    def __call__(self, progress: FetchResult) -> None:
        """Take note of `progress`, and tell it when it is time."""
        ahead = progress.settled - self._told
        if not ahead or (ahead < progress.due * PROGRESS_SHARE and self._clock() - self._told_at < PROGRESS_SECONDS):
            return
        self._told, self._told_at = progress.settled, self._clock()
        megabytes = progress.size / 1e6
        self._context.log.info("%d of %d recordings done, %.1f MB archived", progress.settled, progress.due, megabytes)
        self._context.log_event(
            AssetObservation(
                asset_key=self._context.asset_key,
                partition=self._context.partition_key,
                metadata={"done": progress.settled, "due": progress.due, "megabytes_archived": round(megabytes, 1)},
            )
        )
