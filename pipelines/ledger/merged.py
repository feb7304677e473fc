"""Merged parts: many small parts of a folder once more as one, and how a reader takes each line once all the same.

A merged part holds the lines of the parts it replaces, one after the other, in their order, and none is left out. In
its foot stands a record: name, SHA-256 and number of lines of each. So whoever finds both reads the merged one and
leaves the replaced ones alone, however the moments of writing, listing and removing fall; and a verification can hold
them against each other while both are there. A merged part that is merged again hands its record on.

Its name is `<ulid>-<number of parts>-<16 hex>.parquet`: the ULID of the last part it replaces, so that it stands where
that one stood, in the order of writing and for everybody who asks for the newest part; and a hash of the names and
hashes of what it replaces, so that two who merge the same make the same name. When to merge: `compaction.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq
from ulid import ULID

__all__ = [
    "Piece",
    "Record",
    "Replaced",
    "held_against",
    "is_given",
    "is_merged",
    "merged_name",
    "named_at",
    "replaced_parts",
    "resolve",
    "slices",
]

RECORD_KEY = "ringcx-archive/merged/1"
"""Under this name the record stands in the file's metadata, as JSON."""

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
    """What a merged part says of itself. `parts`: the ones that a run wrote, in the order in which their lines stand
    here; `between`: merged ones that were merged again.
    """

    merged_at: datetime
    parts: tuple[Replaced, ...]
    between: tuple[Replaced, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Everything that it replaces."""
        return frozenset(one.name for one in (*self.parts, *self.between))

    def as_metadata(self) -> dict[str, str]:
        """The form in which it stands in the file."""
        return {
            RECORD_KEY: json.dumps(
                {
                    "merged_at": self.merged_at.astimezone(UTC).isoformat(),
                    "parts": [asdict(one) for one in self.parts],
                    "between": [asdict(one) for one in self.between],
                }
            )
        }

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
            merged_at = datetime.fromisoformat(stored["merged_at"]).astimezone(UTC)
        except (KeyError, TypeError) as error:
            raise ValueError("its record of the parts it replaces is not in order") from error
        if not parts or sum(one.lines for one in parts) != lines:
            raise ValueError("it has not as many lines as the parts it says to replace")
        return cls(merged_at, parts, between)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part to be read. The rest is there where it is a merged one: `parts` are those of which it gives the lines, and
    `ranges` (first line, lines) where these stand, None for all that it has.
    """

    name: str
    data: bytes | None = None
    record: Record | None = None
    parts: tuple[Replaced, ...] = ()
    ranges: tuple[tuple[int, int], ...] | None = None


def merged_name(folder: str, parts: Sequence[Replaced]) -> str:
    """The name of what is merged of these parts, each with the name that a run gave it."""
    last = max(_parsed(one.name)[0] for one in parts)
    digest = hashlib.sha256("\n".join(f"{one.name} {one.sha256}" for one in parts).encode()).hexdigest()[:16]
    return f"{folder}{last}-{len(parts)}-{digest}.parquet"


def is_given(name: str) -> bool:
    """Whether the ledger gives such names to its parts."""
    return _NAME.fullmatch(name.rpartition("/")[2]) is not None


def is_merged(name: str) -> bool:
    """Whether the name is a merged part's."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return found is not None and found[2] is not None


def replaced_parts(name: str) -> int:
    """How many parts a merged part replaces, by its name; 0 for any other."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return int(found[2] or 0) if found else 0


def named_at(name: str) -> datetime:
    """When a part was written, or the last one of those that a merged part replaces.

    Raises:
        ValueError: the name was not given by the ledger.
    """
    return ULID.from_str(_parsed(name)[0]).datetime


def resolve(names: Collection[str], read: Callable[[str], tuple[bytes, Record]]) -> tuple[list[Piece], frozenset[str]]:
    """What to read of the parts listed in a folder, in the order of names, so that every line comes once; and the names
    that merged parts replace, whether they are still there or not. `read` gives a merged part.

    The one that replaces most comes first. Two of them may overlap, when two were at it at once and listed at different
    moments: of the second only what the first has not is read.
    """
    covered: set[str] = set()
    pieces: list[Piece] = []
    for name in sorted(filter(is_merged, names), key=lambda one: (-replaced_parts(one), one)):
        if name in covered:
            continue
        data, record = read(name)
        starts = accumulate((part.lines for part in record.parts), initial=0)
        taken = [(part, start) for part, start in zip(record.parts, starts, strict=False) if part.name not in covered]
        if taken:
            parts = tuple(part for part, _ in taken)
            ranges = None if parts == record.parts else tuple((start, part.lines) for part, start in taken)
            pieces.append(Piece(name, data, record, parts, ranges))
        covered |= record.names
    pieces += [Piece(name) for name in names if not is_merged(name) and name not in covered]
    return sorted(pieces, key=lambda one: one.name), frozenset(covered)


def slices(
    data: bytes, ranges: Sequence[tuple[int, int]] | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The lines of a part, or of `ranges` of it, some thousand at a time; only `columns` where it has them. Every page
    that is read is verified.

    Raises:
        pa.ArrowException, OSError: the bytes are not the file that was written.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        start = 0
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in set(columns)]
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            table.validate()
            if ranges is None:
                yield table
            else:
                end = start + table.num_rows
                for first, lines in ranges:
                    low, high = max(first, start), min(first + lines, end)
                    if low < high:
                        yield table.slice(low - start, high - low)
                start = end


def held_against(
    data: bytes, record: Record, original: Callable[[str], bytes | None]
) -> tuple[frozenset[str], frozenset[str]]:
    """Hold a merged part against what it replaces, some thousand lines at a time.

    Args:
        data: the merged part.
        record: its own.
        original: the bytes of a part that it names, None where they are gone.

    Returns:
        The names of parts that could not be looked at (gone, or other bytes than the record says), and of those whose
        lines are not in their place.

    Raises:
        pa.ArrowException, OSError: a part is no whole file.
    """
    absent, wrong = set(), set()
    merged = _Lines(slices(data))
    for part in record.parts:
        bytes_then = original(part.name)
        if bytes_then is None or hashlib.sha256(bytes_then).hexdigest() != part.sha256:
            absent.add(part.name)
            merged.skip(part.lines)
            continue
        left = part.lines
        for table in slices(bytes_then):
            if table.num_rows > left or not _equal(merged.take(table.num_rows), table):
                wrong.add(part.name)
            left -= table.num_rows
        if left:
            wrong.add(part.name)
        if part.name in wrong:
            break  # from here on nothing stands where it should
    return frozenset(absent), frozenset(wrong)


class _Lines:
    """Lines that come in tables of any length, taken in other lengths."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest: pa.Table | None = None

    def take(self, number: int) -> pa.Table:
        """The next lines; fewer at the end."""
        taken: list[pa.Table] = []
        while number > 0:
            table = next(self._tables, None) if self._rest is None else self._rest
            if table is None:
                break
            taken.append(table.slice(0, number))
            self._rest = table.slice(number) if table.num_rows > number else None
            number -= taken[-1].num_rows
        return pa.concat_tables(taken) if taken else pa.table({})

    def skip(self, number: int) -> None:
        """Leave lines out."""
        while number > 0:
            step = min(number, _BATCH)
            self.take(step)
            number -= step


def _equal(merged: pa.Table, table: pa.Table) -> bool:
    """Whether the same lines stand in both; columns that only the merged one has must be empty."""
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


def _parsed(name: str) -> tuple[str, str | None]:
    found = _NAME.fullmatch(name.rpartition("/")[2])
    if found is None:
        raise ValueError("its name was not given by the ledger")
    return found[1], found[2]
