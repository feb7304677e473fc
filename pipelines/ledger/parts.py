"""The ledger's parts as files: their names, their bytes, and their lines, whole or some thousand at a time.

What the ledger means by its lines is `store.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import TypeVar

import pyarrow as pa

from pipelines.ledger.files import Files, LedgerDamaged
from pipelines.ledger.merged import Piece, Record, is_given, resolve, slices
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

KINDS = ("event_reads", "recording_states", "report_pulls", "report_rows")
"""The ledger's folders."""

_BY_REPORT = ("report_pulls", "report_rows")
READERS = 8
"""Threads that read or list side by side."""

_T = TypeVar("_T")


class LedgerParts:
    """The parts under the same files as a `Ledger`. Safe to share between threads."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def names(self, day: date) -> dict[str, list[str]]:
        """Return the names of a date's parts, by kind, sorted: two listings a report, one for each other kind."""
        found = {}
        for kind in KINDS:
            reports = [f"{report}/" for report in self._files.folders(f"{kind}/")] if kind in _BY_REPORT else [""]
            folders = [f"{kind}/{report}date={day.isoformat()}/" for report in reports]
            found[kind] = [name for folder in folders for name in self._files.list(folder) if is_part(name)]
        return found

    def strange(self) -> dict[str, str]:
        """Return the files in the ledger's folders that are not its parts: name -> reason.

        Every other reader skips them, so that one such file stops no date; this is where they are reported.
        """
        reasons = {name: _why_strange(name) for kind in KINDS for name in self._files.list(f"{kind}/")}
        # A local file's name may hold bytes that are not UTF-8, which no report could show.
        return {name.encode("utf-8", "backslashreplace").decode(): why for name, why in reasons.items() if why}

    def read(self, name: str) -> bytes:
        """Return a part's bytes.

        Raises:
            LedgerDamaged: it was listed and is gone.
        """
        data = self.read_if_there(name)
        if data is None:
            raise _damaged(name, "it was listed and is gone")
        return data

    def read_if_there(self, name: str) -> bytes | None:
        """Return a part's bytes; None if it is not there, as a part that was merged may be."""
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None

    def merged(self, name: str) -> tuple[bytes, Record]:
        """Return a merged part's bytes and its record.

        Raises:
            LedgerDamaged: it is gone, or no whole merged part.
        """
        data = self.read(name)
        with damage(name):
            return data, Record.of(data)


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is read. Its methods raise what `damage` turns into a sentence."""

    name: str
    data: bytes
    ranges: Sequence[tuple[int, int]] | None
    """Which lines count, as in `merged.Piece`."""
    _apart: Executor

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all of it, or these columns where it has them."""
        table = decode(self.data, columns)
        if self.ranges is not None:
            table = pa.concat_tables([table.slice(*one) for one in self.ranges])
        return lines(self.name, table)

    def each(self, make: Callable[[pa.Table], _T], columns: Sequence[str] | None = None) -> list[_T]:
        """Return what `make` makes of the same, some thousand lines at a time, in the thread that does so for all."""

        def made() -> list[_T]:
            return [make(lines(self.name, table)) for table in slices(self.data, self.ranges, columns)]

        return self._apart.submit(made).result()


def read_parts(files: Files, folders: Sequence[str], interpret: Callable[[Part], _T]) -> list[_T]:
    """Read the parts of the folders side by side; the answer is in the order of their names.

    Raises:
        LedgerDamaged: a part is gone, or not what was written.
    """
    parts = LedgerParts(files)

    def pieces(folder: str) -> list[Piece]:
        return resolve([name for name in files.list(folder) if is_part(name)], parts.merged)

    def one(piece: Piece) -> _T:
        data = parts.read(piece.name) if piece.data is None else piece.data
        with damage(piece.name):
            return interpret(Part(piece.name, data, piece.ranges, apart))

    with (
        # Where parts are taken apart it is one thread that does: each would keep what it let go of for itself, which
        # with eight of them was 130 MB.
        ThreadPoolExecutor(1, thread_name_prefix="ledger-lines") as apart,
        ThreadPoolExecutor(READERS, thread_name_prefix="ledger") as pool,
    ):
        return list(pool.map(one, chain.from_iterable(pool.map(pieces, folders))))


def date_of(folder: str) -> date | None:
    """Return the date that a folder `date=YYYY-MM-DD` names; None for any other folder.

    The first and the last year that a `date` can hold do not count: the days next to theirs could not be computed.
    """
    text = folder.removeprefix("date=")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    plain = folder == f"date={day.isoformat()}"  # `fromisoformat` also reads 20261117 and 2026-W47-2
    return day if plain and date.min.year < day.year < date.max.year else None


def is_part(name: str) -> bool:
    """Whether the file is one of the ledger's."""
    return _why_strange(name) is None


def _why_strange(name: str) -> str | None:
    kind, *folders, own = name.split("/")
    report = [folder for folder in folders[:-1] if folder.startswith("report=")]
    if kind not in KINDS or len(folders) != 1 + (kind in _BY_REPORT) or folders[:-1] != report:
        return "it is not directly in the folder of a date"
    if date_of(folders[-1]) is None:
        return f"its folder {folders[-1]} does not name a date"
    return None if is_given(own) else "the ledger does not give such names to its parts"


def _damaged(name: str, why: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"the ledger's part {name} cannot be read ({why}); restore it from a backup or an earlier version of the "
        "object, or move it out of the ledger and run its date again."
    )


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Name the part that could not be read as a whole."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, f"not a whole Parquet file, {type(error).__name__}") from error
    except ValueError as error:
        raise _damaged(name, str(error)) from error


def lines(name: str, table: pa.Table) -> pa.Table:
    """Return the lines of the part of that name, in the schema of its kind, with what its path says.

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
