"""The sealing of a day: its next manifest, unless the latest has the same content, and its part of the catalog.

This module does not decide what belongs to a day: the caller gives the entries. `manifest` defines their format.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyExists, KeyMissing, StorageUnavailable
from pipelines.archive.keys import catalog_key, manifest_key
from pipelines.archive.proof.manifest import (
    FORMAT,
    REQUIRED,
    AcceptedLoss,
    ManifestEntry,
    ManifestHead,
    document_frame,
    latest_manifest,
    listed,
    sha256_of,
    utc_text,
)
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash

_ATTEMPTS: Final = 10  # sealers of one day that finish at the same moment; each lost attempt means that another won
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_CATALOG_FIELDS: "list[pa.Field[Any]]" = [
    *(pa.field(name, _TEXT, nullable=False) for name in REQUIRED),
    pa.field("reason", _TEXT),
    pa.field("started_at", pa.timestamp("us", tz="UTC")),
    pa.field("duration_s", pa.float64()),
    pa.field("key", _TEXT),
    pa.field("size", pa.int64()),
    pa.field("sha256", _TEXT),
    pa.field("version_id", _TEXT),
    pa.field("warnings", _TEXTS),
    pa.field("also_known_as", _TEXTS),
    pa.field("verdict", _TEXT),
]
CATALOG_SCHEMA = pa.schema(_CATALOG_FIELDS)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The manifest that now holds the content. `sha256` is the hash of its bytes; `unchanged`: it existed already."""

    key: str
    number: int
    sha256: str
    merkle_root: str
    unchanged: bool


def seal(
    bucket: Bucket,
    day: date,
    entries: Callable[[], Iterable[ManifestEntry]],
    totals: Mapping[str, Any],
    catalog: pa.Table,
    *,
    accepted: Sequence[AcceptedLoss] = (),
    run_id: str,
    sealed_at: datetime,
) -> Sealed:
    """Seal a day's content under the next number, unless its latest manifest has the same content; write the day's part
    of the catalog only if it is missing or differs.

    `entries` returns one entry for each recording, sorted by `recording_id`. It is called once to hash them, and again
    if there is a manifest to write, so that only then are all in memory. `catalog` is from `catalog_table`, `accepted`
    sorted by `recording_id`. `run_id` and `sealed_at` (aware) are not part of the content. Raises ValueError if a
    recording is listed twice or out of order, or a time has no zone; StoreDamaged if an earlier manifest is damaged.
    """
    content: dict[str, Any] = {"date": day.isoformat(), "totals": dict(totals)}
    if accepted:
        content["accepted_losses"] = [loss.document() for loss in accepted]
    content_sha256, merkle_root = _hashes(content, entries())
    try:
        stored = bucket.get_bytes(catalog_key(bucket.prefix, day))
    except KeyMissing:
        stored = None
    parquet = io.BytesIO()
    pq.write_table(catalog, parquet, compression="zstd")
    body = parquet.getvalue()
    hashes = {"content_sha256": content_sha256, "merkle_root": merkle_root, "catalog_sha256": sha256_of(body)}
    before = latest_manifest(bucket, day - timedelta(days=1)) if day > date.min else None
    head = {
        **content,
        **hashes,
        "format": FORMAT,
        "run_id": run_id,
        "sealed_at": utc_text(sealed_at),
        "previous_day": before and {"date": before.document["date"], "number": before.number, "sha256": before.sha256},
    }
    sealed = _seal_if_changed(bucket, day, head, hashes, entries)
    if body != stored:
        bucket.put(catalog_key(bucket.prefix, day), body, content_type="application/vnd.apache.parquet")
    return sealed


def _seal_if_changed(
    bucket: Bucket,
    day: date,
    head: Mapping[str, Any],
    hashes: Mapping[str, str],
    entries: Callable[[], Iterable[ManifestEntry]],
) -> Sealed:
    for _ in range(_ATTEMPTS):
        latest = latest_manifest(bucket, day)
        if latest is not None and latest.document.items() >= hashes.items():
            return Sealed(latest.key, latest.number, latest.sha256, hashes["merkle_root"], unchanged=True)
        if sealed := _seal_after(latest, bucket, day, head, entries()):
            return sealed
    raise StorageUnavailable(
        f"{_ATTEMPTS} other runs sealed {day.isoformat()} first, one after the other; make sure that only one run at a "
        "time works on a date"
    )


def catalog_table(
    recordings: pa.Table, names: Mapping[str, Sequence[str]] | None = None, verdict: str | None = None
) -> pa.Table:
    """Return a day's part of the catalog, in `CATALOG_SCHEMA`; the path of its file holds the date.

    `recordings` has a row for each recording, sorted by `recording_id`, with at least the columns of a `ManifestEntry`;
    `names` maps a recording id to the other ids of the same recording. Each row gets the `verdict` of the date.
    """
    ids: list[Any] = recordings["recording_id"].to_pylist()
    others = [sorted((names or {}).get(recording_id, ())) for recording_id in ids]
    empty: Any = pa.scalar([], _TEXTS)
    columns: dict[str, Any] = {name: recordings[name] for name in ManifestEntry._fields}
    columns["warnings"] = pc.coalesce(columns["warnings"], empty)  # parts may be older than the column
    columns |= {"also_known_as": pa.array(others, _TEXTS), "verdict": pa.array([verdict] * len(ids), _TEXT)}
    return pa.table(columns).cast(CATALOG_SCHEMA)


def _hashes(content: Mapping[str, Any], entries: Iterable[ManifestEntry]) -> tuple[str, str]:
    """Return the SHA-256 of the content with these entries, and the Merkle root of the entries, both in hex."""
    before, after = document_frame(content)
    digest, leaves = hashlib.sha256(before), list[bytes]()
    for piece in listed(entries):
        digest.update(piece)
        leaves.append(leaf_hash(piece.removeprefix(b",")))
    digest.update(after)
    return digest.hexdigest(), MerkleTree(leaves).root


def _seal_after(
    latest: ManifestHead | None, bucket: Bucket, day: date, head: Mapping[str, Any], entries: Iterable[ManifestEntry]
) -> Sealed | None:
    """Put the manifest after the latest; return None if another writer took its number first."""
    number = 1 if latest is None else latest.number + 1
    previous = None if latest is None else latest.sha256
    before_list, after_list = document_frame({**head, "number": number, "previous_sha256": previous})
    document = io.BytesIO()  # gives its bytes away without a copy
    document.writelines(chain([before_list], listed(entries), [after_list]))
    body = document.getvalue()
    key, sha256 = manifest_key(bucket.prefix, day, number), sha256_of(body)
    is_ours = False
    with suppress(KeyExists):  # after a lost answer the put is sent again, and finds our own first one
        bucket.put_new(key, body, sha256=sha256, content_type="application/json", metadata={"sha256": sha256})
        is_ours = bucket.is_amazon
    # If the store ignores create-only, another process may just have put its own manifest under this number.
    with suppress(KeyMissing):
        is_ours = is_ours or bucket.hash_object(key).sha256 == sha256
    return Sealed(key, number, sha256, head["merkle_root"], unchanged=False) if is_ours else None
