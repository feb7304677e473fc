"""The comparison of a pull with the rows of the ledger. Tables in, tables out: no files, no clock."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RowDiff:
    """The differences between the rows of a pull and the ledger's: the `fresh` (new or changed) rows, in the pull's
    order, and counts. `changed`: the key is there with another hash. `vanished`: the pull no longer has the key.
    """

    fresh: pa.Table
    new: int
    changed: int
    unchanged: int
    vanished: int


def diff_rows(pulled: pa.Table, stored: pa.Table) -> RowDiff:
    """Compare a pull with the latest rows of its report, date and account, each with one row per `row_key`."""
    now, before = _identity(pulled), _identity(stored)
    both = now.merge(before, on="row_key", how="left", suffixes=("", "_stored"))
    is_new = both["row_hash_stored"].isna()
    is_changed = ~is_new & (both["row_hash"] != both["row_hash_stored"])
    new = int(is_new.sum())
    changed = int(is_changed.sum())
    known = len(now) - new
    # All rows of a first pull are fresh, and a copy would double their memory.
    fresh = pulled if new == len(now) else pulled.filter(pa.array(is_new | is_changed, pa.bool_()))
    return RowDiff(fresh, new, changed, unchanged=known - changed, vanished=len(before) - known)


def _identity(table: pa.Table) -> pd.DataFrame:
    return table.select(["row_key", "row_hash"]).to_pandas(types_mapper=pd.ArrowDtype)
