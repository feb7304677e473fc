"""Small parts of a date made one, and the small ones removed when no reader can have them in hand any more.

Nothing here may be seen half done: a merged part appears whole, and from then on readers take it instead of what it
replaces (`merged.py`). So it is safe beside writers, beside a second compaction, and when it is killed at any instant.
Which dates, and what else must be written down before something is removed: `steps/compact.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ledger.files import DeleteRefused, Files, LedgerDamaged
from pipelines.ledger.merged import Piece, Record, Replaced, held_against, merged_name, resolve, slices
from pipelines.ledger.parts import LedgerParts, damage
from pipelines.ledger.reading import lines
from pipelines.ledger.schema import encode

__all__ = ["Compaction", "Merged", "Removal"]

_ROW_GROUP = 65_536
_LEAST = 2
_Found: TypeAlias = tuple[Piece, bytes, str]


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged part as it lies: how many `parts` and lines it stands for. `size` in bytes, `sha256` in hex."""

    name: str
    parts: int
    lines: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What came of removing. `refused`: the rights do not allow it, so everything stays."""

    removed: int = 0
    refused: bool = False


class Compaction:
    """Merges and removes parts under the same files as a `Ledger`.

    Args:
        files: where the parts lie.
        clock: aware; says when a part was merged.
        grace: how long replaced parts are kept. Longer than any reader needs between listing and reading.
    """

    def __init__(self, files: Files, *, clock: Callable[[], datetime], grace: timedelta) -> None:
        self._files = files
        self._parts = LedgerParts(files)
        self._clock = clock
        self._grace = grace

    def merge(self, names: Collection[str], may_be_replaced: Callable[[str, str], bool]) -> Merged | None:
        """Merge the parts listed in one folder into one more; None where fewer than two are left to merge.

        Args:
            names: all parts that were listed in the folder.
            may_be_replaced: given a part's name and SHA-256; what it refuses is left as it is.

        Raises:
            LedgerDamaged: a part is not what was written, or the parts' columns do not fit each other. Nothing was
                written.
        """
        pieces, _ = resolve(names, self._parts.merged)
        found: list[_Found] = []
        for piece in pieces:
            data = self._parts.read(piece.name) if piece.data is None else piece.data
            sha256 = hashlib.sha256(data).hexdigest()
            if may_be_replaced(piece.name, sha256):
                found.append((piece, data, sha256))
        if len(found) < _LEAST:
            return None
        parts, between = _replaced(found)
        folder = f"{parts[0].name.rpartition('/')[0]}/"
        name = merged_name(folder, parts)
        schema = _schema(found)
        data = encode(schema, _gathered(_lines(found, schema)), Record(self._clock(), parts, between).as_metadata())
        try:
            self._files.create(name, data)
        except FileExistsError:
            data = self._parts.read(name)  # another compaction has merged the same just now
        return Merged(name, len(parts), sum(one.lines for one in parts), len(data), hashlib.sha256(data).hexdigest())

    def read_by_all(self, names: Collection[str]) -> list[str]:
        """What every reader takes of the parts listed in one folder."""
        return [piece.name for piece in resolve(names, self._parts.merged)[0]]

    def is_proven(self, name: str) -> bool:
        """Whether a merged part holds, line by line, what it says to replace, and all of that is still there.

        Raises:
            LedgerDamaged: one of them is no whole part.
        """
        data, record = self._parts.merged(name)
        with damage(name):
            absent, wrong = held_against(data, record, self._parts.read_if_there)
        return not absent and not wrong

    def due_for_removal(self, names: Collection[str], is_witnessed: Callable[[str, str], bool]) -> list[str]:
        """What may be removed of the parts listed in one folder: replaced by a merged part that every reader takes,
        that `is_witnessed` (name, SHA-256), and whose grace is over.
        """
        pieces, _ = resolve(names, self._parts.merged)
        over: set[str] = set()
        for piece in pieces:
            if piece.record is None or piece.data is None or piece.ranges is not None:
                continue
            old = self._clock() - piece.record.merged_at >= self._grace
            if old and is_witnessed(piece.name, hashlib.sha256(piece.data).hexdigest()):
                over |= piece.record.names
        return sorted(over & set(names))

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove parts, the latest first, so that what is left is in the order of writing; stops when refused."""
        for removed, name in enumerate(reversed(names)):
            try:
                self._files.delete(name)
            except DeleteRefused:
                return Removal(removed, refused=True)
        return Removal(len(names))


def _replaced(found: Sequence[_Found]) -> tuple[tuple[Replaced, ...], tuple[Replaced, ...]]:
    """The parts that runs wrote, in the order of their lines, and the merged ones among what is merged."""
    parts: list[Replaced] = []
    between: list[Replaced] = []
    for piece, data, sha256 in found:
        with damage(piece.name), pq.ParquetFile(pa.BufferReader(data)) as file:
            itself = Replaced(piece.name, sha256, file.metadata.num_rows)
        if piece.record is None:
            parts.append(itself)
        else:
            parts += piece.parts
            between += [*piece.record.between, itself]
    return tuple(parts), tuple(dict.fromkeys(between))


def _schema(found: Sequence[_Found]) -> pa.Schema:
    """The columns of all parts: of an older or newer version, some may have more than others."""
    schemas = []
    for piece, data, _ in found:
        with damage(piece.name), pq.ParquetFile(pa.BufferReader(data)) as file:
            schemas.append(file.schema_arrow.remove_metadata())
    try:
        return pa.unify_schemas(schemas)
    except pa.ArrowException as error:
        raise LedgerDamaged(
            f"the parts beside {found[0][0].name} do not fit each other (a column has more than one type), so they "
            "were not merged; nothing was written."
        ) from error


def _lines(found: Sequence[_Found], schema: pa.Schema) -> Iterator[pa.Table]:
    """All lines in that schema. Each part is read as a reader would: what is damaged is not hidden in a merged part."""
    for piece, data, _ in found:
        with damage(piece.name):
            for table in slices(data, piece.ranges):
                lines(piece.name, table)
                # Joined with nothing of the whole schema: that fills in the columns that this part lacks.
                joined = pa.concat_tables([schema.empty_table(), table], promote_options="default")
                yield joined.select(schema.names).cast(schema)


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same lines in larger tables: a row group for each of a hundred small parts would be a hundred small parts."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
