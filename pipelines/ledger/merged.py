"""Merged parts, which version 0.1.0 made of the small parts of old dates, and how each of their lines is read once.

A merged part holds all lines of the parts it replaces, one part after the other. Its Parquet metadata has a record of
them: name, SHA-256 and number of lines of each. The replaced parts may still be there, and are then not read. A merged
part that was merged again hands its record on.

Its name is `<ulid>-<number of parts>-<16 hex>.parquet`. The ULID is that of the last part it replaces, so that it keeps
that part's place in the order of writing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq
from ulid import ULID

RECORD_KEY = "ringcx-archive/merged/1"
"""The name of the record in the file's metadata, where it is JSON."""

# A ULID that begins with a 7 may stand for a time after the year 9999.
_NAME = re.compile(r"([0-6][0-9A-HJKMNP-TV-Z]{25})(?:-([1-9][0-9]*)-([0-9a-f]{16}))?\.parquet")
_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Replaced:
    """A part as it was when it was merged: its name in the ledger, SHA-256 in hex, lines."""

    name: str
    sha256: str
    lines: int


@dataclass(frozen=True, slots=True)
class Record:
    """What a merged part replaces. `parts`: those that a run wrote, in the order of their lines here; `between`: merged
    parts that were merged again.
    """

    parts: tuple[Replaced, ...]
    between: tuple[Replaced, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> Record:
        """Read it from a merged part's bytes.

        Raises:
            ValueError, pa.ArrowException, OSError: there is none, or it does not fit the lines.
        """
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            text = (file.metadata.metadata or {}).get(RECORD_KEY.encode())
            lines = file.metadata.num_rows
        try:
            stored = json.loads(text or b"null")
            parts, between = (
                tuple(Replaced(str(one["name"]), str(one["sha256"]), int(one["lines"])) for one in stored[name])
                for name in ("parts", "between")
            )
        except (KeyError, TypeError) as error:
            raise ValueError("its record of the parts it replaces is not in order") from error
        if not parts or sum(one.lines for one in parts) != lines:
            raise ValueError("it has not as many lines as the parts it says to replace")
        return cls(parts, between)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part to be read. Of a merged part the bytes are there already; `ranges` (first line, lines) says which of its
    lines are read, None for all.
    """

    name: str
    data: bytes | None = None
    ranges: tuple[tuple[int, int], ...] | None = None


def is_given(name: str) -> bool:
    """Whether the ledger gives such names to its parts."""
    return _NAME.fullmatch(name.rpartition("/")[2]) is not None


def is_merged(name: str) -> bool:
    """Whether the name is a merged part's."""
    return _replaces(name) > 0


def named_at(name: str) -> datetime:
    """Return when a part was written, or the last of those that a merged part replaces.

    Raises:
        ValueError: the name was not given by the ledger.
    """
    found = _NAME.fullmatch(name.rpartition("/")[2])
    if found is None:
        raise ValueError("its name was not given by the ledger")
    return ULID.from_str(found[1]).datetime


def resolve(names: Collection[str], read: Callable[[str], tuple[bytes, Record]]) -> list[Piece]:
    """Return what to read of the parts listed in a folder, in the order of names, so that every line comes once.

    `read` gives a merged part. The one that replaces most comes first. Two of them may overlap, made by two compactions
    at once that had listed at different moments: of the second only what the first lacks is read.
    """
    covered: set[str] = set()
    pieces: list[Piece] = []
    for name in sorted(filter(is_merged, names), key=lambda one: (-_replaces(one), one)):
        if name in covered:
            continue
        data, record = read(name)
        starts = accumulate((part.lines for part in record.parts), initial=0)
        ranges = [
            (start, part.lines) for part, start in zip(record.parts, starts, strict=False) if part.name not in covered
        ]
        if ranges:
            pieces.append(Piece(name, data, tuple(ranges) if len(ranges) < len(record.parts) else None))
        covered.update(one.name for one in (*record.parts, *record.between))
    pieces += [Piece(name) for name in names if not is_merged(name) and name not in covered]
    return sorted(pieces, key=lambda one: one.name)


def slices(
    data: bytes, ranges: Sequence[tuple[int, int]] | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the lines of a part, or of `ranges` of it, some thousand at a time; only `columns` where it has them.

    Every page that is read is verified.

    Raises:
        pa.ArrowException, OSError: the bytes are not the file that was written.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        start = 0
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in set(columns)]
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            table.validate()
            end = start + table.num_rows
            for first, lines in [(start, table.num_rows)] if ranges is None else ranges:
                low, high = max(first, start), min(first + lines, end)
                if low < high:
                    yield table.slice(low - start, high - low)
            start = end


def held_against(data: bytes, record: Record, original: Callable[[str], bytes | None]) -> tuple[str | None, bool]:
    """Compare a merged part with what it replaces, some thousand lines at a time.

    Args:
        data: the merged part.
        record: its own.
        original: the bytes of a part that it names, None where they are gone.

    Returns:
        The first part whose lines are not in their place, and whether every part was there to be compared, with the
        bytes that the record names.

    Raises:
        pa.ArrowException, OSError: a part is no whole file.
    """
    tables = slices(data)
    rest = next(tables, pa.table({}))

    def take(number: int) -> pa.Table:
        nonlocal rest
        while rest.num_rows < number and (table := next(tables, None)) is not None:
            rest = pa.concat_tables([rest, table])
        taken, rest = rest.slice(0, number), rest.slice(number)
        return taken

    all_there = True
    for part in record.parts:
        left = part.lines
        then = original(part.name)
        if then is None or hashlib.sha256(then).hexdigest() != part.sha256:
            all_there = False
            for start in range(0, left, _BATCH):
                take(min(_BATCH, left - start))
            continue
        for table in slices(then):
            left -= table.num_rows
            if left < 0 or not _equal(take(table.num_rows), table):
                return part.name, all_there
        if left:
            return part.name, all_there
    return None, all_there


def _equal(merged: pa.Table, table: pa.Table) -> bool:
    """Whether the same lines are in both; columns that only the merged part has must be empty."""
    if merged.num_rows != table.num_rows or not set(table.column_names) <= set(merged.column_names):
        return False
    for name in merged.column_names:
        column = merged[name]
        if name not in table.column_names:
            if column.null_count < len(column):
                return False
        elif not column.equals(table[name].cast(column.type)):
            return False
    return True


def _replaces(name: str) -> int:
    """How many parts a merged part replaces, by its name; 0 for any other."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return int(found[2] or 0) if found else 0
