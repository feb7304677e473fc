"""The comparison of a pull with the rows of the ledger. Tables in, tables out: no files, no clock."""

import pandas as pd
import pyarrow as pa


def diff_rows(pulled: pa.Table, stored: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Compare a pull with the latest rows of its report, date and account, each with one row per `row_key`. Return the
    new and changed rows, in the pull's order, and the counts of a `PullRecord`.

    `changed`: the key is there with another hash. `vanished`: the pull no longer has the key.
    """
    names = ["row_key", "row_hash"]
    now, before = (table.select(names).to_pandas(types_mapper=pd.ArrowDtype) for table in (pulled, stored))
    both = now.merge(before, on="row_key", how="left", suffixes=("", "_stored"))
    is_new = both["row_hash_stored"].isna()
    is_changed = ~is_new & (both["row_hash"] != both["row_hash_stored"])
    rows, new, changed = len(now), int(is_new.sum()), int(is_changed.sum())
    known = rows - new
    counts = {"new": new, "changed": changed, "unchanged": known - changed, "vanished": len(before) - known}
    # All rows of a first pull are fresh, and a copy would double their memory.
    fresh = pulled if new == rows else pulled.filter(pa.array(is_new | is_changed, pa.bool_()))
    return fresh, {"rows": rows, **counts}
