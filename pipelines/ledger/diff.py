"""Compare a pull with the rows that the ledger has. Tables in, tables out: no files, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

_IDENTITY = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("row_key", "row_hash")])


@dataclass(frozen=True, slots=True)
class RowDiff:
    """How the rows of a pull differ from the ledger's: counts of rows.

    `new`: their key is not in the ledger. `changed`: it is, with another hash. `vanished`: rows of the ledger whose key
    the pull no longer has.
    """

    pulled: pa.Table
    is_fresh: pa.Array[Any]
    """A mask over `pulled`: whether the row is new or changed."""
    new: int
    changed: int
    vanished: int

    @property
    def unchanged(self) -> int:
        """How many rows the ledger has just as they are."""
        return self.pulled.num_rows - self.new - self.changed

    def fresh(self, slice_rows: int = 32_768) -> Iterator[pa.Table]:
        """Yield the new and changed rows in the pull's order, in slices: a copy of all may be as large as the pull."""
        for start in range(0, self.pulled.num_rows, slice_rows):
            rows = self.pulled.slice(start, slice_rows).filter(self.is_fresh.slice(start, slice_rows))
            if rows.num_rows:
                yield rows


def diff_rows(pulled: pa.Table, stored: pa.Table) -> RowDiff:
    """Compare two tables with one row per `row_key` by its `row_hash`; their order does not matter.

    `stored`: the latest rows of the same report, date and account. A missing column is a KeyError, a null a ValueError.
    """
    now, before = _identity(pulled), _identity(stored)
    both = now.merge(before, on="row_key", how="left", suffixes=("", "_stored"))
    is_new = both["row_hash_stored"].isna()
    is_changed = ~is_new & (both["row_hash"] != both["row_hash_stored"])
    new = int(is_new.sum())
    return RowDiff(
        pulled,
        pa.array(is_new | is_changed, pa.bool_()),
        new=new,
        changed=int(is_changed.sum()),
        vanished=len(before) - (len(now) - new),
    )


def _identity(table: pa.Table) -> pd.DataFrame:
    return table.select(_IDENTITY.names).cast(_IDENTITY).to_pandas(types_mapper=pd.ArrowDtype)
