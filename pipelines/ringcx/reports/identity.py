"""The identity of rows: the key distinguishes a row from others, and the hash shows whether it changed.

Keys and hashes are stored for years: a test pins their definition with literals, and no library's own hash is used,
since a library may change it. The ledger compares pulls.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.reports.columns import LEDGER_COLUMNS, ReportName

KEY_COLUMNS: Final[dict[ReportName, tuple[str, ...]]] = {
    "agent_segment_metadata": ("uii", "session_id"),
    "global_call_type_detail": ("uii", "source_type", "source_id", "connect_id", "connected_dts"),
    "interaction_metadata": ("dialog_id", "segment_id"),
    "end_call_events": ("uii", "event_type", "gate_id", "agent_id"),
}
"""The columns that make a row key, after the account."""

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_THREADS: Final = 2  # pyarrow's half of the work runs in parallel to hashlib's
_SLICE_ROWS: Final = 8192  # bounds the memory used in addition to the table: a slice and its hashed text
_BYTES: Final = pa.large_binary()  # a slice of long rows may pass 2 GiB


def with_row_identity(report: ReportName, table: pa.Table, account_id: str) -> pa.Table:
    """Add the columns `row_key` and `row_hash` before the others, and drop rows that are equal in all columns.

    `row_hash`: BLAKE2b with a digest of 16 bytes, in hexadecimal, over the columns that are not null, in the order of
    their names (by code point); each contributes its name and its value as netstrings (`<bytes in UTF-8>:<text>,`).
    So neither the order of columns nor an additional empty column changes it.

    `row_key`: the account and the columns of `KEY_COLUMNS`, null as nothing, joined by `|`; in each of them `%`, `|`
    and `#` stand as `%25`, `%7C` and `%23`. Rows that share a key get `#1`, `#2`, … in the order of their hashes. A
    row without a UII (or dialog) has the key `<account>||<row_hash>`.
    """
    names = sorted(name for name in table.column_names if name not in LEDGER_COLUMNS)
    with ThreadPoolExecutor(_THREADS) as pool:
        slices = [table.slice(start, _SLICE_ROWS) for start in range(0, table.num_rows, _SLICE_ROWS)]
        hashes = pa.chunked_array(list(pool.map(partial(_hashes, names), slices)), pa.string()).combine_chunks()
    is_repeated = hashes.to_pandas().duplicated()
    if is_repeated.any():
        is_first = pa.array(~is_repeated)
        table, hashes = table.filter(is_first), hashes.filter(is_first)
    keys = _numbered(_keys(report, table, account_id, hashes), hashes)
    identity: dict[str, Any] = {"row_key": keys, "row_hash": hashes}
    return pa.table(identity | {name: table[name] for name in table.column_names if name not in identity})


def _hashes(names: list[str], rows: pa.Table) -> "pa.Array[Any]":
    """Return each row's BLAKE2b hash over the netstrings of its columns that are not null."""
    (batch,) = rows.combine_chunks().to_batches()
    parts: list[object] = [pa.array([b""] * batch.num_rows, _BYTES)]
    for name in names:
        value = batch.column(name).cast(_BYTES)
        if value.null_count < len(value):
            parts += _netstring(name, value)
    texts = _compute.binary_join_element_wise(*parts, pa.scalar(b"", _BYTES), null_handling="skip").to_pylist()
    return pa.array([hashlib.blake2b(text, digest_size=16).hexdigest() for text in texts], pa.string())


def _netstring(name: str, value: Any) -> list[object]:  # noqa: ANN401 - an array whose kind the stubs do not know
    """Return the texts to join: name and size of each value, the values, and commas; null where a value is null."""
    sizes = _compute.binary_length(value).dictionary_encode()
    start = f"{len(name.encode())}:{name},".encode()
    starts = pa.array([start + b"%d:" % size for size in sizes.dictionary.to_pylist()], _BYTES).take(sizes.indices)
    comma: object = pa.scalar(b",", _BYTES)
    if value.null_count:
        comma = _compute.if_else(value.is_valid(), comma, None)
    return [starts, value, comma]


def _keys(report: ReportName, table: pa.Table, account_id: str, hashes: "pa.Array[Any]") -> "pa.Array[Any]":
    account = _escaped(pa.scalar(account_id))
    absent = pa.nulls(table.num_rows, pa.string())
    parts = [table[name].combine_chunks() if name in table.column_names else absent for name in KEY_COLUMNS[report]]
    texts = [_compute.fill_null(_escaped(part), "") for part in parts]
    keys = _compute.binary_join_element_wise(account, *texts, "|")
    without_uii = _compute.binary_join_element_wise(account, "", hashes, "|")
    found: pa.Array[Any] = _compute.if_else(_compute.is_null(parts[0]), without_uii, keys)
    return found


def _escaped(part: Any) -> Any:  # noqa: ANN401 - an array or a scalar
    """Escape a part of a key, so that no value can look like two parts or like another row's number."""
    for sign, code in (("%", "%25"), ("|", "%7C"), ("#", "%23")):
        part = _compute.replace_substring(part, sign, code)
    return part


def _numbered(keys: "pa.Array[Any]", hashes: "pa.Array[Any]") -> "pa.Array[Any]":
    rows = pd.DataFrame({"key": keys.to_pandas(), "hash": hashes.to_pandas()})
    shared = rows[rows["key"].duplicated(keep=False)].sort_values(["key", "hash"])
    if shared.empty:
        return keys
    numbers = (shared.groupby("key").cumcount() + 1).astype(str)
    rows.loc[shared.index, "key"] += "#" + numbers
    return pa.array(rows["key"], pa.string())
