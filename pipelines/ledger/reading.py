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

    def each(self, make: Callable[[pa.Table], _T], columns: Sequence[str] | None = None) -> list[_T]:
        """What `make` makes of the same, some thousand lines at a time, in the thread that does so for all parts."""

        def made() -> list[_T]:
            return [make(lines(self.name, table)) for table in slices(self.data, self.ranges, columns)]

        return self._apart.submit(made).result()


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
