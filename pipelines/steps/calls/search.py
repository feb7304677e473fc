"""Search of the table `calls`: DuckDB filters what the archive's S3 client reads from the bucket.

Dates are read from the newest to the oldest, until enough calls are found. DuckDB gets tables in memory: it opens no
file and no connection, and loads no extension.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache, partial
from itertools import groupby, islice
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.errors import KeyMissing, StorageUnavailable, StoreDamaged
from pipelines.archive.keys import calls_index_key, calls_key
from pipelines.calendar import FIRST_DAY, dates_between
from pipelines.settings import StorageSettings
from pipelines.steps.calls.month_index import (
    IndexKey,
    MonthIndex,
    files_between,
    in_lower_case,
    is_whole,
    keys_of_number,
    list_indexes,
    month_of,
)
from pipelines.steps.calls.numbers import NumberQuery
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, CALLS_SCHEMA, SEPARATOR
from pipelines.steps.link.recording_date import near
from pipelines.steps.parallel import map_in_order
from pipelines.wording import number

_FIRST_DATES: Final = 4
_DATES_AT_ONCE: Final = 16
_BATCHES_AT_ONCE: Final = 2
_WORTH_AN_INDEX: Final = 16
_MONTHS: Final = 240
_ALL: Final = 1 << 40
_RANGES: Final = 5


@dataclass(frozen=True, slots=True)
class Parties:
    """Agents, queues or campaigns, and accounts, by their ids."""

    agents: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A search between two dates, both included; an empty field does not restrict it.

    Attributes:
        number: the caller's or the called number, in any format, or a part of it.
        agent: a whole id or login, or a part of a name.
        queue: the whole id of a queue or campaign, or a part of its name.
        uii: with or without the apostrophe of a spreadsheet.
        disposition, notes: a part of the text.
        digits_in_names: an `agent` or a `queue` with digits may also be a part of a name.
        recordings: ids; the recording must have one of them.
        within: parties; a call must have at least one of them. None for all calls.
        shortest_s, longest_s: length of the recorded part in seconds, or of the whole call if that is unknown.
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
    recordings: tuple[str, ...] = ()
    within: Parties | None = None
    digits_in_names: bool = True
    shortest_s: float | None = None
    longest_s: float | None = None


class CallSearch:
    """A search engine over the calls of a bucket. Safe to share between threads.

    All searches together hold at most two batches of dates in memory, in the order of request: a search over years
    delays another by one batch.

    Every method raises StorageUnavailable or StorageRefused if the bucket does not answer, StorageUnavailable also if a
    search cannot be finished, and StoreDamaged if a date's file is not what was written.
    """

    def __init__(self, bucket: Bucket, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._region = settings.archive_phone_region
        self._lock = threading.Lock()
        self._batches = ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix="search")
        self._index = lru_cache(maxsize=_MONTHS)(partial(MonthIndex.read, bucket))
        self._is_whole = lru_cache(maxsize=31 * _MONTHS)(partial(is_whole, bucket))
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

    def files(self, query: Query) -> dict[date, Listed]:
        """Return the dates of a query that the table has, with their files; calls of other dates cannot be found."""
        return files_between(self._bucket, query.first, query.last)

    def not_searched(self, query: Query, files: Mapping[date, Listed]) -> list[date]:
        """Return the dates of a query of which calls may be missing, sorted: no file is among `files`, or it cannot be
        read, or was written before every report of the date had been pulled.
        """
        indexes, covers = list_indexes(self._bucket), dict[date, str]()
        for _, index in map_in_order(partial(self._index_of, indexes), set(map(month_of, files))):
            covers.update(index.covers if index else {})
        unsure = {day for day, listed in files.items() if covers.get(day) != listed.etag}
        read = map_in_order(lambda day: self._is_whole(day, files[day]), unsure)
        whole = files.keys() - unsure | {day for day, is_so in read if is_so}
        return [day for day in dates_between(query.first, query.last) if day not in whole]

    def find(
        self,
        query: Query,
        files: Mapping[date, Listed] | None = None,
        *,
        limit: int = 200,
        offset: int = 0,
        columns: Sequence[str] = CALLS_SCHEMA.names,
        stop: Callable[[], bool] = lambda: False,
    ) -> pa.Table:
        """Return calls, newest first: at most `limit` of them, after the first `offset`.

        `files` is what `files` returned for the query; None lists them now. `columns` are of CALLS_SCHEMA, `date`
        first; fewer are read sooner. If `stop` returns True before a batch of dates, StorageUnavailable is raised.
        """
        where = _condition(query, self._region)
        found = [CALLS_SCHEMA.empty_table().select(columns)]
        for days in _growing(self._candidates(query, self.files(query) if files is None else files)):
            if stop():
                raise StorageUnavailable("The search was given up")
            batch = self._batches.submit(self._matching, days, where, offset=offset, limit=limit, columns=columns)
            passed, table = batch.result()
            found.append(table)
            offset, limit = offset - passed, limit - table.num_rows
            if limit <= 0:
                break
        return pa.concat_tables(found)

    def call(self, day: date, account_id: str, uii: str) -> pa.Table:
        """Return all rows of one call, dated `day` or an adjacent date, in CALLS_SCHEMA."""
        days = sorted((day for day in near({day}) if day >= FIRST_DAY), reverse=True)
        where = "account_id = ? AND lower(uii) = lower(?)", [account_id, uii]
        return self._matching(days, where, offset=0, limit=_ALL, columns=CALLS_SCHEMA.names)[1]

    def _candidates(self, query: Query, files: Mapping[date, Listed]) -> Iterator[date]:
        """Yield the dates that may have a matching call, newest first."""
        if query.within == Parties():
            return
        wanted = _wanted(query, self._region)
        newest_first = sorted(files, reverse=True)
        if not wanted or len(files) < _WORTH_AN_INDEX:
            yield from newest_first
            return
        by_month = {month: list(days) for month, days in groupby(newest_first, month_of)}
        indexes = list_indexes(self._bucket)

        def of_month(month: str) -> list[date]:
            index = self._index_of(indexes, month)
            there = index.days(wanted) if index else None
            if index is None or there is None:
                return by_month[month]
            return [day for day in by_month[month] if index.covers.get(day) != files[day].etag or day.day in there]

        for _, days in map_in_order(of_month, by_month):
            yield from days

    def _index_of(self, indexes: Mapping[str, Listed], month: str) -> MonthIndex | None:
        key = calls_index_key(self._bucket.prefix, month)
        return self._index(key, indexes[key]) if key in indexes else None

    def _matching(
        self, days: Iterable[date], where: tuple[str, list[Any]], *, offset: int, limit: int, columns: Sequence[str]
    ) -> tuple[int, pa.Table]:
        """Return how many of the first `offset` calls that meet a condition `days` have, and `columns` of the next ones
        (at most `limit`), newest first. The other columns than the condition's are read only if a row matches.
        """
        condition, values = where
        names = [
            name for name in CALLS_FILE_SCHEMA.names if re.search(rf"\b{name}\b", condition) or name == "started_at"
        ]
        files: list[tuple[date, pq.ParquetFile]] = []
        tables: list[pa.Table] = []
        for day, read in map_in_order(lambda day: self._read(day, names), days):
            if read is not None:
                file, table = read
                index = pa.array(np.full(table.num_rows, len(files), np.int32))
                row = pa.array(np.arange(table.num_rows, dtype=np.int32))
                tables.append(table.append_column("file_index", index).append_column("row", row))
                files.append((day, file))
        if not files:
            return 0, CALLS_SCHEMA.empty_table().select(columns)
        with self._cursor() as cursor:
            cursor.register("calls", pa.concat_tables(tables))
            # Indices follow the dates from the newest; within a date rows of one moment keep their order.
            sql = (
                f"SELECT file_index, row FROM calls WHERE {condition} "  # noqa: S608 - no value is in it
                f"ORDER BY file_index, started_at DESC NULLS LAST, row LIMIT {offset + limit:d}"
            )
            hits: Any = cursor.sql(sql, params=values).fetchnumpy()
        passed = min(offset, len(hits["row"]))
        hits = {name: column[passed:] for name, column in hits.items()}

        def rows_of(index: int) -> pa.Table:
            day, file = files[index]
            with self._undamaged(day):
                rows = _rows(file, hits["row"][hits["file_index"] == index], columns[1:])
            return rows.add_column(0, CALLS_SCHEMA.field("date"), pa.array([day] * rows.num_rows, pa.date32()))

        indices: list[int] = np.unique(hits["file_index"]).tolist()
        found = [rows for _, rows in map_in_order(rows_of, indices)]
        return passed, pa.concat_tables([CALLS_SCHEMA.empty_table().select(columns), *found])

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a cursor for this search alone, so that a long search delays no other."""
        try:
            with self._lock:
                cursor = self._database.cursor()
            with closing(cursor):
                yield cursor
        except duckdb.Error:  # its message may quote what was looked for
            raise StorageUnavailable(
                "The search needs more memory than it may use, or was interrupted; search fewer dates at a time"
            ) from None

    def _read(self, day: date, names: Sequence[str]) -> tuple[pq.ParquetFile, pa.Table] | None:
        """Return the file of a date, in memory, and the columns with these names; None if the file does not exist."""
        try:
            body = self._bucket.get_bytes(calls_key(self._bucket.prefix, day))
        except KeyMissing:
            return None
        with self._undamaged(day):
            file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
            return file, _columns(file, range(file.num_row_groups), names)

    @contextmanager
    def _undamaged(self, day: date) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError):
            raise StoreDamaged(
                f"{calls_key(self._bucket.prefix, day)} in the bucket {self._bucket.name} is not the table that was "
                f"written there; materialize `calls` for {day} again"
            ) from None


def _columns(file: pq.ParquetFile, groups: Iterable[int], names: Sequence[str]) -> pa.Table:
    schema = pa.schema([CALLS_FILE_SCHEMA.field(name) for name in names])
    return file.read_row_groups(list(groups), columns=list(names), use_threads=False).select(names).cast(schema)


def _rows(file: pq.ParquetFile, rows: Any, columns: Sequence[str]) -> pa.Table:  # noqa: ANN401 - an array of numpy
    """Return columns of a file's rows with these numbers, in that order."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.unique(group_of[rows])
    read = np.flatnonzero(np.isin(group_of, groups))
    return _columns(file, groups.tolist(), columns).take(pa.array(np.searchsorted(read, rows)))


def sentence_of_lacking(days: Sequence[date]) -> str:
    """Return a sentence with dates (sorted, at least one) as `CallSearch.not_searched` returns them, and the remedy."""
    lacking, next_day = set(days), timedelta(days=1)
    starts = [day for day in days if day - next_day not in lacking]
    ends = [day for day in days if day + next_day not in lacking]
    ranges = list(zip(starts, ends, strict=True))
    shown = [str(start) if start == end else f"{start} to {end}" for start, end in ranges[-_RANGES:]]
    others = f" and {number(len(ranges) - _RANGES, 'earlier range')}" if len(ranges) > _RANGES else ""
    return (
        f"Not searched, or only in part: {', '.join(shown)}{others} ({number(len(days), 'date')}). Calls may be "
        "missing. Run those dates that `ringcx-archive status` calls unknown; for the others, materialize the asset "
        "calls in Dagster."
    )


def _growing(days: Iterator[date]) -> Iterator[list[date]]:
    """Yield dates in batches that grow: the newest calls may be enough."""
    size = _FIRST_DATES
    while batch := list(islice(days, size)):
        yield batch
        size = min(2 * size, _DATES_AT_ONCE)


def _wanted(query: Query, region: str) -> list[list[IndexKey]]:
    """Return alternative sets of keys: a date can match only if it has every key of a set. Empty: no index can help."""
    if query.recordings:
        return [[IndexKey("r:", recording)] for recording in query.recordings]
    if uii := _plain_uii(query):
        return [[IndexKey("u:", in_lower_case(uii))]]
    if query.number.strip():
        keys = [keys_of_number(digits) for digits in NumberQuery.of(query.number, region).alternatives]
        if keys and all(keys):
            return keys
    for typed, id_kinds, name_kind in ((query.agent, ("a:", "l:"), "m:"), (query.queue, ("q:",), "p:")):
        if text := in_lower_case(typed.strip()):
            by_name = [[IndexKey(name_kind, text, "part")]] if _may_be_name(query, text) else []
            return [*([IndexKey(kind, text)] for kind in id_kinds), *by_name]
    if (within := query.within) is not None:
        kinds = (("a:", within.agents), ("q:", within.queues), ("c:", within.accounts))
        return [[IndexKey(kind, in_lower_case(key_id))] for kind, ids in kinds for key_id in ids]
    return [[IndexKey("c:", in_lower_case(query.account))]] if query.account else []


def _may_be_name(query: Query, text: str) -> bool:
    return query.digits_in_names or not any(character.isdigit() for character in text)


def _plain_uii(query: Query) -> str:
    return query.uii.strip().removeprefix("'")


def _condition(query: Query, region: str) -> tuple[str, list[object]]:
    """Return a query as SQL with placeholders, and the values."""
    parts: list[tuple[str, list[object]]] = []
    if query.number.strip():
        parts.append(_number(NumberQuery.of(query.number, region)))
    for text, whole, name in (
        (query.agent.strip(), ("agent_id", "agent_login"), "agent_name"),
        (query.queue.strip(), ("queue_id",), "queue_name"),
    ):
        if text:
            either = [_among(column) for column in whole]
            if _may_be_name(query, text):
                either.append(_contains(name))
            parts.append((f"({' OR '.join(either)})", [text] * len(either)))
    if (within := query.within) is not None:
        has = "list_has_any(string_split(nullif({0}, ''), '" + SEPARATOR + "'), ?::VARCHAR[])"
        sql = f"({has.format('agent_id')} OR {has.format('queue_id')} OR list_contains(?::VARCHAR[], account_id))"
        parts.append((sql, [list(within.agents), list(within.queues), list(within.accounts)]))
    for name, text in (("account_id", query.account), ("direction", query.direction), ("state", query.state)):
        if text:
            parts.append((f"{name} = ?", [text]))
    if uii := _plain_uii(query):
        parts.append(("lower(uii) = lower(?)", [uii]))
    for name, text in (("disposition", query.disposition), ("notes", query.notes)):
        if text:
            parts.append((_contains(name), [text]))
    if query.recordings:
        parts.append((f"recording_id IN ({', '.join('?' * len(query.recordings))})", list(query.recordings)))
    for sign, length in ((">=", query.shortest_s), ("<=", query.longest_s)):
        if length is not None:
            parts.append((f"coalesce(segment_s, call_s) {sign} ?", [length]))
    return " AND ".join(sql for sql, _ in parts) or "true", [value for _, values in parts for value in values]


def _number(number: NumberQuery) -> tuple[str, list[object]]:
    parts: list[tuple[str, str]] = []
    if number.e164:
        parts.append(("{0}_e164 = ?", number.e164))
    if number.digits and not number.is_whole:
        parts.append(("contains(coalesce({0}_e164, regexp_replace({0}, '[^0-9]', '', 'g'), ''), ?)", number.digits))
    if parts:
        tests = " OR ".join(sql.format(side) for side in ("ani", "dnis") for sql, _ in parts)
        values = [value for _, value in parts]
        return f"({tests})", [*values, *values]
    return f"({_contains('ani')} OR {_contains('dnis')})", [number.text] * 2


def _among(column: str) -> str:
    return f"list_contains(string_split(lower(coalesce({column}, '')), '{SEPARATOR}'), lower(?))"


def _contains(column: str) -> str:
    return f"contains(lower(coalesce({column}, '')), lower(?))"
