"""What a pull brought that the ledger has not seen. Tables in, tables out: no files, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

_IDENTITY = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("row_key", "row_hash")])


@dataclass(frozen=True, slots=True)
class RowDiff:
    """A pull against the seen rows. The masks have one value for each row of `pulled`."""

    pulled: pa.Table
    is_new: pd.Series[bool]
    is_changed: pd.Series[bool]
    vanished: int
    """Seen rows whose key the pull no longer has."""

    @property
    def new(self) -> pa.Table:
        """The rows whose key was not seen before, in the pull's order."""
        return self.pulled.filter(_mask(self.is_new))

    @property
    def changed(self) -> pa.Table:
        """The rows whose key was seen with another hash, in the pull's order."""
        return self.pulled.filter(_mask(self.is_changed))

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows are new, how many changed."""
        return int(self.is_new.sum()), int(self.is_changed.sum())

    @property
    def unchanged(self) -> int:
        """How many rows are as they were seen."""
        return self.pulled.num_rows - sum(self.counts)

    def fresh(self, slice_rows: int = 32_768) -> Iterator[pa.Table]:
        """Yield the new and changed rows in the pull's order, in slices: a copy of all may be as large as the pull."""
        is_fresh = _mask(self.is_new | self.is_changed)
        for start in range(0, self.pulled.num_rows, slice_rows):
            rows = self.pulled.slice(start, slice_rows).filter(is_fresh.slice(start, slice_rows))
            if rows.num_rows:
                yield rows


def diff_rows(pulled: pa.Table, seen: pa.Table) -> RowDiff:
    """Compare by `row_key` and `row_hash`; neither table's order matters.

    Args:
        pulled: these two columns and any others; one row per `row_key`.
        seen: the latest rows of the same report, date and account, one per `row_key`; only those two columns are read.

    Raises:
        KeyError: if either table lacks one of the two columns.
        ValueError: if either has a null in one of them.
    """
    now, before = _identity(pulled), _identity(seen)
    both = now.merge(before, on="row_key", how="left", suffixes=("", "_seen"))
    is_new = both["row_hash_seen"].isna()
    is_changed = ~is_new & (both["row_hash"] != both["row_hash_seen"])
    return RowDiff(pulled, is_new, is_changed, vanished=len(before) - int((~is_new).sum()))


def _identity(table: pa.Table) -> pd.DataFrame:
    return table.select(_IDENTITY.names).cast(_IDENTITY).to_pandas(types_mapper=pd.ArrowDtype)


def _mask(rows: pd.Series[bool]) -> pa.Array[Any]:
    return pa.array(rows, pa.bool_())
