"""Which row is which: the key that tells a row from its neighbours, the hash that tells whether it changed.

Both are stored for years, so their definition stands here and is pinned by a test with literals; no library's own hash
is used, since a library may change it. Comparing pulls is the ledger's business.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.reports.columns import LEDGER_COLUMNS, ReportName

KEY_COLUMNS: Final[dict[ReportName, tuple[str, ...]]] = {
    "agent_segment_metadata": ("uii", "session_id"),
    "global_call_type_detail": ("uii", "source_type", "source_id", "connect_id", "connected_dts"),
    "interaction_metadata": ("dialog_id", "segment_id"),
    "end_call_events": ("uii", "event_type", "gate_id", "agent_id"),
}
"""What a row key is made of, after the account."""

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_THREADS: Final = 2
_SLICE_ROWS: Final = 8192  # bounds the memory used in addition to the table: a slice and its hashed text
_DIGEST_BYTES: Final = 16
_BYTES: Final = pa.large_binary()
_LOOKED_UP: Final = 4096  # so many lengths of one column are looked up; beyond, each is written by itself
_CUTS: Final = 1000


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
    with ThreadPoolExecutor(_THREADS) as pool:  # pyarrow's half of the work runs in parallel to hashlib's
        slices = [table.slice(start, _SLICE_ROWS) for start in range(0, table.num_rows, _SLICE_ROWS)]
        digests = b"".join(pool.map(partial(_digests, names), slices))
    halves = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)
    hashes = _hexadecimal(digests)
    kept = _first_of_equals(halves)
    if len(kept) < table.num_rows:
        table, halves, hashes = _only(table, kept), halves[kept], hashes.take(kept)
    keys = _numbered(_keys(report, table, account_id, hashes), halves)
    identity: dict[str, Any] = {"row_key": keys, "row_hash": hashes}
    return pa.table(identity | {name: table[name] for name in table.column_names if name not in identity})


def _digests(names: list[str], rows: pa.Table) -> bytes:
    # In one piece: a parser's blocks have a few thousand rows, and each kernel costs by the call too.
    (batch,) = rows.combine_chunks().to_batches()
    texts = _row_texts(names, batch)
    _, offsets, data = texts.buffers()
    ends: list[int] = np.frombuffer(memoryview(offsets or b""), np.int64)[: len(texts) + 1].tolist()
    view = memoryview(data or b"")  # pieces of it are hashed in place: `to_pylist` would copy every row once more
    hashed = (hashlib.blake2b(view[start:end], digest_size=_DIGEST_BYTES) for start, end in pairwise(ends))
    return b"".join([one.digest() for one in hashed])


def _row_texts(names: list[str], batch: pa.RecordBatch) -> "pa.Array[Any]":
    """What is hashed of each row. Large types, as a slice of long rows may pass 2 GiB.

    Joined from as few and as plain pieces as the column allows, since a join costs by its pieces: a comma goes before
    the next column's piece where both have no null, and what stands before values of one length is the same for all.
    """
    parts: list[object] = [pa.array([b""] * batch.num_rows, _BYTES)]
    comma = b""
    for name in names:
        value = batch.column(name)
        if value.null_count == len(value):
            continue
        if value.null_count and comma:
            parts.append(pa.scalar(comma, _BYTES))
            comma = b""
        value = value.cast(_BYTES)
        parts += [_before(comma + f"{len(name.encode())}:{name},".encode(), value), value]
        if value.null_count:
            parts.append(_compute.if_else(value.is_valid(), pa.scalar(b",", _BYTES), pa.scalar(None, _BYTES)))
        comma = b"" if value.null_count else b","
    nothing = pa.scalar(b"", _BYTES)
    texts: pa.Array[Any] = _compute.binary_join_element_wise(
        *parts, pa.scalar(comma, _BYTES), nothing, null_handling="skip"
    )
    return texts


def _before(start: bytes, value: "pa.Array[Any]") -> object:
    """`start`, the value's length and a colon: null where the value is, one for all where all are of one length."""
    size = _compute.binary_length(value)
    least, most = (int(one) for one in _compute.min_max(size).as_py().values())
    if least == most and not value.null_count:
        return pa.scalar(start + b"%d:" % least, _BYTES)
    if most - least < _LOOKED_UP:
        return pa.array([start + b"%d:" % one for one in range(least, most + 1)], _BYTES).take(
            _compute.subtract(size, pa.scalar(least, size.type))
        )
    digits = size.cast(pa.string()).cast(_BYTES)
    return _compute.binary_join_element_wise(
        pa.scalar(start, _BYTES), digits, pa.scalar(b":", _BYTES), pa.scalar(b"", _BYTES)
    )


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


def _only(table: pa.Table, kept: npt.NDArray[np.intp]) -> pa.Table:
    """The rows at these places, ascending: as views of the table where few are left out, for a copy would double it."""
    cuts = np.flatnonzero(np.diff(kept) != 1) + 1
    if len(cuts) > _CUTS:
        return table.take(kept)
    return pa.concat_tables([table.slice(int(run[0]), len(run)) for run in np.split(kept, cuts)])


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
