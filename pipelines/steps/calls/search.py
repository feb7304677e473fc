"""Search the table `calls`: DuckDB filters what is read from the bucket through our own S3 client.

Dates are read from the newest to the oldest, and no further than the wanted calls need. DuckDB gets tables in memory:
it opens no file and no connection, and loads no extension.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice, takewhile
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import calls_key, calls_prefix
from pipelines.calendar import FIRST_DAY
from pipelines.ledger.parts import date_of
from pipelines.settings import StorageSettings
from pipelines.steps.calls.numbers import NumberQuery
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, CALLS_SCHEMA, SEPARATOR
from pipelines.steps.link.extract_links import near
from pipelines.steps.parallel import map_in_order

_THREADS: Final = 16
_DATES_AT_ONCE: Final = 16
_NEWEST_FIRST: Final = "date DESC, started_at DESC NULLS LAST, uii, recording_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What somebody looks for between two dates, both included; what is empty is not looked at.

    Attributes:
        number: of either side, in any format, or a part of it.
        agent: an id, a login, or a part of a name.
        queue: of a queue or campaign, its id or a part of its name.
        uii: with or without the apostrophe of a spreadsheet.
        disposition, notes: a part of the text.
        shortest_s, longest_s: of the recorded part, in seconds; of the whole call where that is unknown.
    """

    first: date
    last: date
    number: str = ""
    agent: str = ""
    queue: str = ""
    account: str = ""
    direction: str = ""
    uii: str = ""
    disposition: str = ""
    notes: str = ""
    state: str = ""
    shortest_s: float | None = None
    longest_s: float | None = None


class CallSearch:
    """Searches the calls of a bucket. Safe to share between threads.

    Every method raises StorageUnavailable or StorageRefused when the bucket does not answer, and StoreDamaged when a
    date's file is not what was written.
    """

    def __init__(self, bucket: Bucket, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._region = settings.archive_phone_region
        self._lock = threading.Lock()
        self._database = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "enable_external_access": False,
                "python_enable_replacements": False,
                "memory_limit": "400MB",
            },
        )

    def find(self, query: Query, *, limit: int = 200, offset: int = 0) -> pa.Table:
        """Return calls in CALLS_SCHEMA, the newest first: at most `limit` of them, after the first `offset`."""
        condition, values = _condition(query, self._region)
        days = sorted(self.indexed(query.first, query.last), reverse=True)
        found, rows = [CALLS_SCHEMA.empty_table()], 0
        for batch in _batches(self._tables(days)):
            of_batch = self._filter(batch, condition, values)
            found.append(of_batch)
            rows += of_batch.num_rows
            if rows >= offset + limit:
                break
        return pa.concat_tables(found).slice(offset, limit)

    def call(self, day: date, account_id: str, uii: str) -> pa.Table:
        """Return all rows of one call, which may be dated `day` or a date next to it, in CALLS_SCHEMA."""
        days = sorted(day for day in near({day}) if day >= FIRST_DAY)
        tables = [table for _, table in self._tables(days)]
        return self._filter(tables, "account_id = ? AND lower(uii) = ?", [account_id, uii.lower()])

    def indexed(self, first: date, last: date) -> set[date]:
        """Return the dates between these two that the table has; calls of the others cannot be found."""
        prefix = calls_prefix(self._bucket.prefix)
        both = zip(first.isoformat(), last.isoformat(), strict=True)
        start = f"{prefix}date={''.join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], both))}"
        keys = (key for key, _ in self._bucket.list_keys(start) if key.endswith("/calls.parquet"))
        days = (date_of(key.split("/")[-2]) for key in keys)
        return {day for day in days if day is not None and first <= day <= last}

    def not_indexed(self, first: date, last: date) -> list[date]:
        """Return the dates between these two that the table does not have, sorted."""
        known = self.indexed(first, last)
        days = (first + timedelta(days=after) for after in range((last - first).days + 1))
        return [day for day in days if day not in known]

    def _tables(self, days: Iterable[date]) -> Iterator[tuple[date, pa.Table]]:
        for day, table in map_in_order(self._read, days, threads=_THREADS):
            if table is not None:
                yield day, table

    def _read(self, day: date) -> pa.Table | None:
        key = calls_key(self._bucket.prefix, day)
        try:
            table = pq.read_table(
                pa.BufferReader(self._bucket.get_bytes(key)), page_checksum_verification=True, use_threads=False
            )
            table = table.select(CALLS_FILE_SCHEMA.names).cast(CALLS_FILE_SCHEMA)
        except KeyMissing:
            return None
        except (pa.ArrowException, OSError, ValueError, KeyError):
            raise StoreDamaged(
                f"{key} in the bucket {self._bucket.name} is not the table that was written there; materialize `calls` "
                f"of {day} again"
            ) from None
        dates = pa.array([day], pa.date32()).take(pa.array([0] * table.num_rows, pa.int64()))
        return table.add_column(0, CALLS_SCHEMA.field("date"), dates)

    def _filter(self, tables: Sequence[pa.Table], condition: str, values: Sequence[object]) -> pa.Table:
        if not tables:
            return CALLS_SCHEMA.empty_table()
        with self._lock, closing(self._database.cursor()) as cursor:
            cursor.register("calls", pa.concat_tables(tables))
            sql = f"SELECT * FROM calls WHERE {condition} ORDER BY {_NEWEST_FIRST}"  # noqa: S608 - no value is in it
            found: Any = cursor.sql(sql, params=list(values)).to_arrow_table()
            cursor.unregister("calls")
        table: pa.Table = found.cast(CALLS_SCHEMA)
        return table


def _batches(tables: Iterator[tuple[date, pa.Table]]) -> Iterator[list[pa.Table]]:
    while batch := [table for _, table in islice(tables, _DATES_AT_ONCE)]:
        yield batch


def _condition(query: Query, region: str) -> tuple[str, list[object]]:
    """Return a query as SQL without any value of it, and the values."""
    parts: list[tuple[str, list[object]]] = []
    if query.number.strip():
        parts.append(_number(NumberQuery.of(query.number, region)))
    if agent := query.agent.strip().lower():
        sql = f"({_among('agent_id')} OR {_among('agent_login')} OR {_contains('agent_name')})"
        parts.append((sql, [agent, agent, agent]))
    if queue := query.queue.strip().lower():
        parts.append((f"({_among('queue_id')} OR {_contains('queue_name')})", [queue, queue]))
    if query.account:
        parts.append(("account_id = ?", [query.account]))
    if query.direction:
        parts.append(("direction = ?", [query.direction]))
    if uii := query.uii.strip().lower().removeprefix("'"):
        parts.append(("lower(uii) = ?", [uii]))
    for name, text in (("disposition", query.disposition), ("notes", query.notes)):
        if text:
            parts.append((_contains(name), [text.lower()]))
    if query.state:
        parts.append(("state = ?", [query.state]))
    if query.shortest_s is not None:
        parts.append(("coalesce(segment_s, call_s) >= ?", [query.shortest_s]))
    if query.longest_s is not None:
        parts.append(("coalesce(segment_s, call_s) <= ?", [query.longest_s]))
    return " AND ".join(sql for sql, _ in parts) or "true", [value for _, values in parts for value in values]


def _number(number: NumberQuery) -> tuple[str, list[object]]:
    if number.e164:
        # As sent, too: a number that was sent without its area may be part of the one that is looked for.
        return "(ani_e164 = ? OR dnis_e164 = ?)", [number.e164, number.e164]
    if number.digits:
        digits = "contains(regexp_replace(coalesce({0}_e164, {0}, ''), '[^0-9]', '', 'g'), ?)"
        return f"({digits.format('ani')} OR {digits.format('dnis')})", [number.digits] * 2
    return f"({_contains('ani')} OR {_contains('dnis')})", [number.text] * 2


def _among(column: str) -> str:
    return f"list_contains(string_split(lower(coalesce({column}, '')), '{SEPARATOR}'), ?)"


def _contains(column: str) -> str:
    return f"contains(lower(coalesce({column}, '')), ?)"
