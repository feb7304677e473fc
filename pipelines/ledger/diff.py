"""What a pull brought that the ledger has not seen. Tables in, tables out: no files, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["RowDiff", "diff_rows"]

_Mask: TypeAlias = "pa.ChunkedArray[Any] | pa.Array[Any]"


@dataclass(frozen=True, slots=True)
class RowDiff:
    """A pull against the seen rows."""

    pulled: pa.Table
    is_new: _Mask
    is_changed: _Mask
    """By row of `pulled`: true, false or, where the key is new, null."""
    vanished: int
    """Seen rows whose key the pull no longer has."""

    @property
    def new(self) -> pa.Table:
        """The rows whose key was not seen before, in the pull's order."""
        return self.pulled.filter(self.is_new)

    @property
    def changed(self) -> pa.Table:
        """The rows whose key was seen with another hash, in the pull's order."""
        return self.pulled.filter(self.is_changed)

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows are new, how many changed."""
        return pc.sum(self.is_new).as_py() or 0, pc.sum(self.is_changed).as_py() or 0

    @property
    def unchanged(self) -> int:
        """How many rows are as they were seen."""
        return self.pulled.num_rows - sum(self.counts)

    def fresh(self, slice_rows: int = 32_768) -> Iterator[pa.Table]:
        """The new and changed rows in the pull's order, some thousand at a time: a copy of all of them may be as large
        as the pull.
        """
        kept = pc.or_kleene(self.is_new, self.is_changed)
        for start in range(0, self.pulled.num_rows, slice_rows):
            rows = self.pulled.slice(start, slice_rows).filter(kept.slice(start, slice_rows))
            if rows.num_rows:
                yield rows


def diff_rows(pulled: pa.Table, seen: pa.Table) -> RowDiff:
    """Compare by `row_key` and `row_hash`; neither table's order matters.

    Args:
        pulled: any columns besides those two; one line per `row_key`.
        seen: the latest rows of the same report, date and account; only those two columns are read.

    Raises:
        ValueError: if either table lacks one of the two columns or has a null in it.
    """
    for name, table in (("pulled", pulled), ("seen", seen)):
        for column in ("row_key", "row_hash"):
            if table.schema.get_field_index(column) < 0:
                raise ValueError(f"the {name} rows have no column {column}; give them their identity first.")
            if table[column].null_count:
                raise ValueError(f"the {name} rows have a null {column}; give every row its identity first.")
    seen_keys, seen_hashes = _text(seen, "row_key"), _text(seen, "row_hash")
    keys, hashes = _text(pulled, "row_key"), _text(pulled, "row_hash")

    # A join would carry both tables' text along; a look-up carries one integer per row (100 k against 1 M: 0.3 s).
    place = pc.index_in(keys, value_set=seen_keys)
    return RowDiff(
        pulled=pulled,
        is_new=pc.is_null(place),
        is_changed=pc.not_equal(seen_hashes.take(place), hashes),  # null, which a filter drops, where the key is new
        vanished=len(seen_keys.filter(pc.invert(pc.is_in(seen_keys, value_set=keys)))),
    )


def _text(table: pa.Table, column: str) -> pa.ChunkedArray[Any]:
    """Return the column as plain strings: look-ups refuse to compare string with large_string or a dictionary."""
    return table[column].cast(pa.string())
