"""Parts as they are read: all that a folder holds, each line once, side by side, as what its kind of line should be.

Whole where a table of everything is wanted; some thousand lines at a time where only some of them are, or what comes
of them. Which folder holds what is `store.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ledger.files import Files
from pipelines.ledger.merged import Piece, Record, resolve, slices
from pipelines.ledger.parts import damage, damaged, date_of, is_part
from pipelines.ledger.schema import (
    EVENT_READ_SCHEMA,
    IN_PATH,
    PULL_SCHEMA,
    ROW_COLUMNS,
    ROW_SCHEMA,
    STATE_SCHEMA,
    conform,
    decode,
    state_ranks,
)

__all__ = ["Part", "lines", "read_parts"]

_T = TypeVar("_T")
_MOST_GONE = 20
_READERS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is read: its name, its bytes, and which of its lines (`merged.Piece.ranges`).

    Methods raise what `damage` turns into a sentence.
    """

    name: str
    data: bytes
    ranges: Sequence[tuple[int, int]] | None
    _apart: Executor

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of it, or these columns where it has them."""
        table = decode(self.data, columns)
        if self.ranges is not None:
            table = pa.concat_tables([table.slice(*one) for one in self.ranges])
        return lines(self.name, table)

    def bounds(self, column: str) -> tuple[str, str] | None:
        """The least and the greatest text of a column, by the part's foot; None where it does not say."""
        with pq.ParquetFile(pa.BufferReader(self.data)) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        columns = [group.column(place) for group in groups for place in range(group.num_columns)]
        found = [one.statistics for one in columns if one.path_in_schema == column]
        if not found or not all(one is not None and one.has_min_max for one in found):
            return None
        ends = [(str(one.min), str(one.max)) for one in found if one is not None]
        return min(least for least, _ in ends), max(greatest for _, greatest in ends)

    def each(self, make: Callable[[pa.Table], _T], columns: Sequence[str] | None = None) -> list[_T]:
        """What `make` makes of the same, some thousand lines at a time, in the thread that does so for all parts."""
        return self._each(lambda table: make(lines(self.name, table)), columns)

    def each_of(self, make: Callable[[pa.Table], _T], names: Sequence[str]) -> list[_T]:
        """The same of these columns of a part of states; a line is not looked at beyond them."""
        schema = pa.schema([STATE_SCHEMA.field(name) for name in names])
        return self._each(lambda table: make(conform(table, schema)), names)

    def _each(self, make: Callable[[pa.Table], _T], columns: Sequence[str] | None) -> list[_T]:
        return self._apart.submit(lambda: [make(one) for one in slices(self.data, self.ranges, columns)]).result()


def read_parts(files: Files, folders: Sequence[str], interpret: Callable[[Part], _T]) -> list[_T]:
    """Read the parts of the folders side by side; the answer is in the order of their names.

    A part may be gone between listing and reading because a merged one has taken its place: then the folders are listed
    again, and what `interpret` made of the others is forgotten.

    Raises:
        LedgerDamaged: a part is gone, or not what was written.
    """

    def read(name: str) -> bytes:
        try:
            return files.read(name)
        except FileNotFoundError as error:
            raise _GoneError(name) from error

    def merged(name: str) -> tuple[bytes, Record]:
        data = read(name)
        with damage(name):
            return data, Record.of(data)

    def pieces(folder: str) -> tuple[list[Piece], frozenset[str]]:
        return resolve([name for name in files.list(folder) if is_part(name)], merged)

    def one(piece: Piece) -> _T:
        data = read(piece.name) if piece.data is None else piece.data
        with damage(piece.name):
            return interpret(Part(piece.name, data, piece.ranges, apart))

    gone: set[str] = set()
    with (
        # Where parts are taken apart it is one thread that does: each would keep what it let go of for itself, which
        # with eight of them was 130 MB.
        ThreadPoolExecutor(1, thread_name_prefix="ledger-lines") as apart,
        ThreadPoolExecutor(_READERS, thread_name_prefix="ledger") as pool,
    ):
        while True:
            try:
                listed = list(pool.map(pieces, folders))
                lost = gone.difference(*(covered for _, covered in listed))
                if lost or len(gone) > _MOST_GONE:
                    raise damaged(min(lost or gone), "it was listed and is gone")
                return list(pool.map(one, [piece for found, _ in listed for piece in found]))
            except _GoneError as error:
                if error.name in gone:
                    raise damaged(error.name, "it was listed and is gone") from error
                gone.add(error.name)


def lines(name: str, table: pa.Table) -> pa.Table:
    """The lines of the part of that name, in the schema of its kind, with what its path says.

    Raises:
        ValueError: they are no such lines.
    """
    folders = dict(part.split("=", 1) for part in name.split("/")[1:-1])
    if name.startswith("report_rows/"):
        extra = [pa.field(one, pa.string()) for one in table.column_names if one not in (*ROW_COLUMNS, *IN_PATH)]
        return conform(table, pa.schema([*ROW_SCHEMA, *extra]))
    if name.startswith("event_reads/"):
        return conform(table, EVENT_READ_SCHEMA)
    known: dict[str, tuple[object, pa.DataType]] = {"date": (date_of(f"date={folders['date']}"), pa.date32())}
    if name.startswith("report_pulls/"):
        return conform(_with_path(table, known | {"report": (folders["report"], pa.string())}), PULL_SCHEMA)
    table = conform(_with_path(table, known), STATE_SCHEMA)
    state_ranks(table)  # a status from a newer version is found here, where the part's name is known
    return table


def _with_path(table: pa.Table, known: dict[str, tuple[object, pa.DataType]]) -> pa.Table:
    """Add what the part's path says, which counts more than a column of that name."""
    table = table.select([name for name in table.column_names if name not in known])
    for name, (value, kind) in known.items():
        table = table.append_column(name, pa.array([value] * table.num_rows, kind))
    return table


class _GoneError(Exception):
    """A part was listed and is not there any more."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
