"""An index of the dates of a month on which a number, agent, UII or recording occurs: a search then reads few dates.

One file a month under `calls/_index/` (readers of Hive folders leave out names that begin with `_`): a row for each key
with the days of the month as bits, sorted by key, in small row groups, each of one kind. It names the dates that it
covers, each with the ETag that its file had, so an old or missing index costs time, but never a call. It covers no date
from whose file calls may be missing.

Keys: `a:` an agent's id, `l:` a login, `m:` a name, `q:` the id of a queue or campaign, `p:` its name, `c:` an account
and `u:` a UII, all in lower case; `n:` each six consecutive digits of a number (E.164, else as sent), and its last
five, four and so on, so that fewer digits begin some key wherever they are; `r:` a recording's id.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial, reduce
from itertools import chain, groupby
from operator import and_, or_
from posixpath import commonprefix
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket, Listed, ObjectReader
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import calls_index_key, calls_key, calls_prefix
from pipelines.ledger.files import date_of_folder
from pipelines.steps.calls.table import PARTIAL, SEPARATOR

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take

_COLUMNS_OF_INDEX: list[pa.Field[Any]] = [pa.field("key", pa.string()), pa.field("days", pa.uint32())]
_SCHEMA: Final = pa.schema(_COLUMNS_OF_INDEX)
_COVERS: Final = b"ringcx-archive/covers/4"  # another number for other content: an older index then covers nothing
month_of: Final = "{:%Y-%m}".format
_UNREADABLE: Final = (KeyMissing, StoreDamaged, pa.ArrowException, OSError, ValueError)
_ROW_GROUP: Final = 10_000
_DIGITS: Final = 6
_FEWEST_DIGITS: Final = 3  # fewer are in some number of any date
_WHOLE: Final = {"m:": "agent_name", "p:": "queue_name", "c:": "account_id", "u:": "uii"}
_SPLIT: Final = {"a:": "agent_id", "l:": "agent_login", "q:": "queue_id"}  # of several agents or queues
_COLUMNS: Final = (*_WHOLE.values(), *_SPLIT.values(), "ani", "dnis", "ani_e164", "dnis_e164", "recording_id")


@dataclass(frozen=True, slots=True)
class IndexKey:
    """A key to look up: its kind, and its text or a part of that (`in_lower_case`, except for recordings)."""

    kind: str
    text: str
    match: Literal["whole", "start", "part"] = "whole"


def in_lower_case(text: str) -> str:
    """Return text in lower case like the index and DuckDB; Python differs for some letters, such as Turkish İ."""
    return str(pc.utf8_lower(text).as_py())


def keys_of_number(digits: str) -> list[IndexKey]:
    """Return the keys that a date must have if a number contains these consecutive digits; none if they are too few."""
    if len(digits) < _DIGITS:
        return [IndexKey("n:", digits, "start")] if len(digits) >= _FEWEST_DIGITS else []
    # Two, since others share six digits: hardly one of a thousand dates then has both by chance.
    return [IndexKey("n:", digits[end - _DIGITS : end]) for end in (len(digits), len(digits) - 1) if end >= _DIGITS]


def files_between(bucket: Bucket, first: date, last: date) -> dict[date, Listed]:
    """Return the files of the table `calls` from one date to another, by date."""
    shared = commonprefix([first.isoformat(), last.isoformat()])
    found = {}
    for key, listed in bucket.list_keys(f"{calls_prefix(bucket.prefix)}date={shared}"):
        day = date_of_folder(key.split("/")[-2]) if key.endswith("/calls.parquet") else None
        if day is not None and first <= day <= last:
            found[day] = listed
    return found


def is_whole(bucket: Bucket, day: date, listed: Listed) -> bool:
    """Return whether a date's file can be read, and was written after every report of the date had been pulled."""
    source = ObjectReader(bucket, calls_key(bucket.prefix, day), listed.size)
    try:
        return PARTIAL not in (pq.read_metadata(pa.PythonFile(source, mode="r")).metadata or {})
    except _UNREADABLE:
        return False


def list_indexes(bucket: Bucket) -> dict[str, Listed]:
    """Return the existing indexes, by key."""
    return dict(bucket.list_keys(f"{calls_prefix(bucket.prefix)}_index/"))


def index_months(bucket: Bucket, first: date, last: date) -> Iterator[tuple[str, int]]:
    """Write the index of each month whose dates have changed; yield the month and the number of dates it covers."""
    files, indexes = files_between(bucket, first, last), list_indexes(bucket)
    for month, days in groupby(sorted(files), month_of):
        key = calls_index_key(bucket.prefix, month)
        there = MonthIndex.read(bucket, key, indexes[key]) if key in indexes else None
        covers = there.covers if there else {}
        of_month = ((day, files[day]) for day in days)
        etags = {day: of.etag for day, of in of_month if covers.get(day) == of.etag or is_whole(bucket, day, of)}
        if etags and covers != etags:
            _write(bucket, month, etags)
            yield month, len(etags)


def _write(bucket: Bucket, month: str, etags: Mapping[date, str]) -> None:
    keys: list[pa.Array[Any]] = []
    bits: list[Any] = []
    for day in sorted(etags):
        body = pa.BufferReader(bucket.get_bytes(calls_key(bucket.prefix, day)))
        of_day = pc.unique(_keys(pq.read_table(body, columns=list(_COLUMNS), page_checksum_verification=True)))
        keys.append(of_day)
        bits.append(np.full(len(of_day), 1 << (day.day - 1), np.uint32))
    codes: Any = pa.chunked_array(keys, pa.string()).dictionary_encode().combine_chunks()
    days = np.zeros(len(codes.dictionary), np.uint32)
    np.bitwise_or.at(days, codes.indices.to_numpy(), np.concatenate(bits))
    table = pa.table([codes.dictionary, pa.array(days)], schema=_SCHEMA).sort_by("key")
    covers = json.dumps({str(day): etag for day, etag in sorted(etags.items())})
    table, out = table.replace_schema_metadata({_COVERS: covers.encode()}), io.BytesIO()
    kinds = pc.utf8_slice_codeunits(table["key"], 0, 1)
    with pq.ParquetWriter(
        out, table.schema, compression="zstd", use_dictionary=False, column_encoding={"key": "DELTA_BYTE_ARRAY"},
        write_page_checksum=True,
    ) as writer:  # fmt: skip
        for kind in pc.unique(kinds):
            writer.write_table(table.filter(pc.equal(kinds, kind)), row_group_size=_ROW_GROUP)
    bucket.put(calls_index_key(bucket.prefix, month), out.getvalue(), content_type="application/vnd.apache.parquet")


def _keys(calls: pa.Table) -> pa.ChunkedArray[Any]:
    columns: list[tuple[str, Any]] = [(kind, calls[name]) for kind, name in _WHOLE.items()]
    columns += [(kind, pc.list_flatten(pc.split_pattern(calls[name], SEPARATOR))) for kind, name in _SPLIT.items()]
    columns = [(kind, pc.utf8_lower(column)) for kind, column in columns]
    for side in ("ani", "dnis"):
        numbers = pc.unique(pc.coalesce(calls[f"{side}_e164"], calls[side]).drop_null())
        digits = pc.replace_substring_regex(numbers, "[^0-9]", "").to_pylist()
        pieces = {number[start : start + _DIGITS] for number in digits for start in range(len(number))}
        columns.append(("n:", pa.array(pieces, pa.string())))
    columns.append(("r:", calls["recording_id"]))
    found = [pc.binary_join_element_wise(kind, column.drop_null(), "") for kind, column in columns]
    chunks = [chunk for array in found for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.chunked_array(chunks, pa.string())


class MonthIndex:
    """The index of a month in the bucket, of which only the footer is in memory; `covers` has the ETag of each date's
    file from which the index was made.
    """

    def __init__(self, source: Callable[[], ObjectReader], metadata: pq.FileMetaData) -> None:
        self._source, self._metadata = source, metadata
        covers = json.loads((metadata.metadata or {}).get(_COVERS, b"{}"))
        self.covers: Mapping[date, str] = {date.fromisoformat(day): etag for day, etag in covers.items()}
        groups: Iterator[Any] = (
            metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)
        )
        self._bounds: list[tuple[str, str]] = [
            (found.min, found.max) if found and found.has_min_max else ("", "\U0010ffff") for found in groups
        ]

    @classmethod
    def read(cls, bucket: Bucket, key: str, listed: Listed) -> MonthIndex | None:
        """Return the index that was listed, or None if it cannot be read or has changed since."""
        try:
            source = partial(ObjectReader, bucket, key, listed.size)
            return cls(source, pq.read_metadata(pa.PythonFile(source(), mode="r")))
        except _UNREADABLE:
            return None

    def days(self, wanted: Sequence[Sequence[IndexKey]]) -> set[int] | None:
        """Return the days of the month that have all keys of one alternative, or None if the index cannot be read."""
        bounds = {key: _bounds_of(key) for key in chain.from_iterable(wanted)}
        groups = [
            group
            for group, (least, most) in enumerate(self._bounds)
            if any(least <= high and most >= low for low, high in bounds.values())
        ]
        if not groups:
            return set()
        try:
            with pq.ParquetFile(
                pa.PythonFile(self._source(), mode="r"), metadata=self._metadata, pre_buffer=True,
                page_checksum_verification=True,
            ) as file:  # fmt: skip
                table = file.read_row_groups(groups, use_threads=False)
        except _UNREADABLE:
            return None
        found = {key: _days_of(table, key) for key in bounds}
        bits = reduce(or_, (reduce(and_, map(found.__getitem__, keys)) for keys in wanted))
        return {day for day in range(1, 32) if bits >> (day - 1) & 1}


def _bounds_of(key: IndexKey) -> tuple[str, str]:
    least = key.kind if key.match == "part" else key.kind + key.text
    return least, least if key.match == "whole" else f"{least}\U0010ffff"


def _days_of(table: pa.Table, key: IndexKey) -> int:
    """Return the days that have a key, as bits."""
    if key.match == "whole":
        matches = pc.equal(table["key"], key.kind + key.text)
    elif key.match == "start":
        matches = pc.starts_with(table["key"], key.kind + key.text)
    else:
        text = pc.utf8_slice_codeunits(table["key"], len(key.kind))
        matches = pc.and_(pc.starts_with(table["key"], key.kind), pc.match_substring(text, key.text))
    return int(np.bitwise_or.reduce(np.asarray(table["days"].filter(matches))))
