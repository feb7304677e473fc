"""Which row is which: the key that tells a row from its neighbours, the hash that tells whether it changed.

Both are stored for years, so their definition stands here and is pinned by a test with literals; no library's own hash
is used, since a library may change it. Comparing pulls is the ledger's business.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.columns import LEDGER_COLUMNS, ReportName

KEY_COLUMNS: Final[dict[ReportName, tuple[str, ...]]] = {
    "agent_segment_metadata": ("uii", "session_id"),
    "global_call_type_detail": ("uii", "source_type", "source_id", "connect_id", "connected_dts"),
    "interaction_metadata": ("dialog_id", "segment_id"),
    "end_call_events": ("uii", "event_type", "gate_id", "agent_id"),
}
"""What a row key is made of, after the account."""

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_THREADS: Final = 2
_SLICE_ROWS: Final = 16_384  # bounds the memory beside the table: the hashed text of one slice
_DIGEST_BYTES: Final = 16


def with_row_identity(report: ReportName, table: pa.Table, account_id: str) -> pa.Table:
    """Put the columns `row_key` and `row_hash` before the others, and drop rows that are equal in all columns.

    `row_hash`: BLAKE2b with a digest of 16 bytes, in hexadecimal, over the columns that are not null, in the order of
    their names (by code point); each contributes its name and its value as netstrings (`<bytes in UTF-8>:<text>,`).
    So neither the order of columns nor a further empty column changes it.

    `row_key`: the account and the columns of `KEY_COLUMNS`, null as nothing, joined by `|`; in each of them `%`, `|`
    and `#` stand as `%25`, `%7C` and `%23`. Rows that share a key get `#1`, `#2`, … in the order of their hashes. A
    row without a UII (or dialog) has the key `<account>||<row_hash>`.
    """
    names = sorted(name for name in table.column_names if name not in LEDGER_COLUMNS)
    with ThreadPoolExecutor(_THREADS) as pool:  # pyarrow's half of the work runs beside hashlib's
        digests = b"".join(pool.map(partial(_digests, names), table.to_batches(_SLICE_ROWS)))
    halves = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)
    hashes = _hexadecimal(digests)
    kept = _first_of_equals(halves)
    if len(kept) < table.num_rows:
        table, halves, hashes = table.take(kept), halves[kept], hashes.take(kept)
    keys = _numbered(_keys(report, table, account_id, hashes), halves)
    identity: dict[str, Any] = {"row_key": keys, "row_hash": hashes}
    return pa.table(identity | {name: table[name] for name in table.column_names if name not in identity})


def _digests(names: list[str], batch: pa.RecordBatch) -> bytes:
    return b"".join(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest() for text in _row_texts(names, batch))


def _row_texts(names: list[str], batch: pa.RecordBatch) -> list[bytes]:
    """What is hashed of each row. Large types, as a slice of long rows may pass 2 GiB."""
    kind = pa.large_binary()
    nothing, colon, comma = (pa.scalar(text, kind) for text in (b"", b":", b","))
    parts: list[object] = [pa.array([b""] * batch.num_rows, kind)]
    for name in names:
        value = batch.column(name).cast(kind)
        size = _compute.binary_length(value).cast(pa.string()).cast(kind)
        before = pa.scalar(f"{len(name.encode())}:{name},".encode(), kind)
        parts.append(_compute.binary_join_element_wise(before, size, colon, value, comma, nothing))  # null if value is
    texts: list[bytes] = _compute.binary_join_element_wise(*parts, nothing, null_handling="skip").to_pylist()
    return texts


def _hexadecimal(digests: bytes) -> "pa.Array[Any]":
    width = 2 * _DIGEST_BYTES
    count = len(digests) // _DIGEST_BYTES
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int64)
    text = pa.py_buffer(digests.hex().encode())
    return pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), text).cast(pa.string())


def _first_of_equals(halves: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Where each digest stands for the first time, ascending."""
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[first])


def _keys(report: ReportName, table: pa.Table, account_id: str, hashes: "pa.Array[Any]") -> "pa.Array[Any]":
    account = pa.scalar(account_id.replace("%", "%25").replace("|", "%7C").replace("#", "%23"))
    absent = pa.nulls(table.num_rows, pa.string())
    parts = [table[name].combine_chunks() if name in table.column_names else absent for name in KEY_COLUMNS[report]]
    texts = [_compute.fill_null(_escaped(part), "") for part in parts]
    keys: pa.Array[Any] = _compute.binary_join_element_wise(account, *texts, "|")
    if parts[0].null_count:
        without_uii = _compute.binary_join_element_wise(account, "", hashes, "|")
        keys = _compute.if_else(_compute.is_null(parts[0]), without_uii, keys)
    return keys


def _escaped(part: "pa.Array[Any]") -> "pa.Array[Any]":
    """So that no value can look like two parts, nor like another row's number."""
    for sign, code in (("%", "%25"), ("|", "%7C"), ("#", "%23")):
        part = _compute.replace_substring(part, sign, code)
    return part


def _numbered(keys: "pa.Array[Any]", halves: npt.NDArray[np.uint64]) -> "pa.Array[Any]":
    codes = keys.dictionary_encode().indices.to_numpy()
    shared = np.flatnonzero(np.bincount(codes)[codes] > 1)
    if not len(shared):
        return keys
    order = shared[np.lexsort((halves[shared, 1], halves[shared, 0], codes[shared]))]
    ordered = codes[order]
    place = np.arange(len(order))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, place, 0))
    numbers = np.zeros(len(keys), dtype=np.int64)
    numbers[order] = place - starts + 1
    numbered = _compute.binary_join_element_wise(keys, _compute.cast(pa.array(numbers), pa.string()), "#")
    distinct: pa.Array[Any] = _compute.if_else(pa.array(numbers > 0), numbered, keys)
    return distinct
