"""The sealed list of a day, and the catalog made from it.

Each sealing writes one canonical JSON document, `manifest-<n>.json`, create-only. It names the SHA-256 of the manifest
before it and of the previous day's latest one, so that none can be altered or dropped unnoticed. Sealing the same
content again writes nothing.

The document (keys sorted, no blanks, UTF-8, one line break at the end):

* `format`: `ringcx-archive/manifest/1`; `date`; `number` from 1; `run_id`; `sealed_at` (UTC, ISO 8601)
* `entries`: one object per recording, every field of `ManifestEntry`, sorted by `recording_id`; `totals`: their
  sums, and the verdict of the date
* `accepted_losses`: one object per accepted loss, every field of `AcceptedLoss`, sorted by `recording_id`; absent
  if there is none
* `content_sha256`: of the canonical JSON of `{"accepted_losses", "date", "entries", "totals"}`; it decides whether
  anything changed
* `merkle_root`: of the RFC 6962 tree whose leaves are the entries, as the document has them; `catalog_sha256`: of the
  day's part of the catalog; both absent from manifests of earlier versions, which stay valid
* `previous_sha256`: of the bytes of manifest n-1, null for the first
* `previous_day`: `{"date", "number", "sha256"}` of the previous day's latest manifest when this one was sealed, null
  if it had none

This module does not decide what belongs to a day: the caller gives the entries. Entries hold no personal data.
`signature` makes signatures, `chain` proves chains.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice
from types import NoneType
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyExists, KeyMissing, StorageUnavailable, StoreDamaged
from pipelines.archive.keys import catalog_key, manifest_key, manifest_number, manifest_prefix
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash

FORMAT = "ringcx-archive/manifest/1"
Entry = Mapping[str, Any]
_NO_ENTRIES: Final = b'"entries":[]'
# An entry is flat and its keys are sorted, and a string cannot hold this, since quotes in it are escaped.
_BETWEEN: Final = b',{"account_id":'
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_decoder = json.JSONDecoder()
_BATCH: Final = 1000
_ATTEMPTS: Final = 10  # sealers of one day that finish at the same moment; each attempt lost means that another one won

_TEXT, _TEXTS, _TIME = pa.string(), pa.list_(pa.string()), pa.timestamp("us", tz="UTC")
_REQUIRED: Final = ("recording_id", "account_id", "uii", "layout", "source", "status")
_CATALOG_FIELDS: "list[pa.Field[Any]]" = [
    *(pa.field(name, _TEXT, nullable=False) for name in _REQUIRED),
    pa.field("reason", _TEXT),
    pa.field("started_at", _TIME),
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
_JSON_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(_REQUIRED, str),
    **dict.fromkeys(("reason", "started_at", "key", "sha256", "version_id"), (str, NoneType)),
    "duration_s": (int, float, NoneType),
    "size": (int, NoneType),
}
"""What a manifest may hold in each field of an entry; a forged one may hold anything."""


class ManifestEntry(NamedTuple):
    """A recording of the day, held or not. `size` in bytes, `sha256` in hex, `started_at` aware."""

    recording_id: str
    account_id: str
    uii: str
    layout: str
    source: str
    status: str
    reason: str | None = None
    started_at: datetime | None = None
    duration_s: float | None = None
    key: str | None = None
    size: int | None = None
    sha256: str | None = None
    version_id: str | None = None
    warnings: tuple[str, ...] = ()


class AcceptedLoss(NamedTuple):
    """A lost recording whose loss somebody reviewed and accepted, with its state and reason at that time."""

    recording_id: str
    status: str
    reason: str
    accepted_by: str
    at: datetime
    why: str

    def document(self) -> dict[str, str]:
        """Return the accepted loss as the JSON object that a manifest holds."""
        return self._asdict() | {"at": _utc(self.at)}


@dataclass(frozen=True, slots=True)
class Sealed:
    """The manifest that now holds the content. `sha256` is of its bytes; `unchanged`: it had been written before."""

    key: str
    number: int
    sha256: str
    merkle_root: str
    unchanged: bool


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """A manifest that was proved, without its entries: `document` has an empty list. `sha256` is of its bytes."""

    key: str
    number: int
    sha256: str
    document: Mapping[str, Any]


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
    if there is a manifest to write, so that only then are all in memory. `totals` are the day's sums, `catalog` its
    part of the catalog from `catalog_table`, `accepted` its accepted losses sorted by `recording_id`. `run_id` and
    `sealed_at` (aware) are no part of the content.

    Raises:
        ValueError: a recording is listed twice or out of order, or a time has no zone.
        StoreDamaged: an earlier manifest cannot be read.
        StorageUnavailable, StorageRefused: later, or never with these settings.
    """
    content: dict[str, Any] = {"date": day.isoformat(), "totals": dict(totals)}
    if accepted:
        content["accepted_losses"] = [loss.document() for loss in accepted]
    content_sha256, merkle_root = _hashes(content, entries())
    stored = _get(bucket, catalog_key(bucket.prefix, day))
    body = _catalog_body(catalog, stored)
    hashes = {
        "content_sha256": content_sha256,
        "merkle_root": merkle_root,
        "catalog_sha256": _sha256(body),
    }
    before = latest_manifest(bucket, day - timedelta(days=1)) if day > date.min else None
    head = {
        **content,
        **hashes,
        "format": FORMAT,
        "run_id": run_id,
        "sealed_at": _utc(sealed_at),
        "previous_day": before and {"date": before.document["date"], "number": before.number, "sha256": before.sha256},
    }
    for _ in range(_ATTEMPTS):
        latest = latest_manifest(bucket, day)
        if latest is not None and latest.document.items() >= hashes.items():
            sealed: Sealed | None = Sealed(latest.key, latest.number, latest.sha256, merkle_root, unchanged=True)
        else:
            number, previous = (latest.number + 1, latest.sha256) if latest is not None else (1, None)
            before_list, after_list = _around(head | {"number": number, "previous_sha256": previous})
            document = io.BytesIO()  # gives its bytes away without a copy
            document.writelines(chain([before_list], _listed(entries()), [after_list]))
            sealed = _create(bucket, day, number, document.getvalue(), merkle_root)
        if sealed is not None:
            break
    else:
        raise StorageUnavailable(
            f"{_ATTEMPTS} other runs sealed {day.isoformat()} first, one after the other; make sure that only one "
            "run at a time works on a date"
        )
    if body is not stored:
        bucket.put(catalog_key(bucket.prefix, day), body, content_type="application/vnd.apache.parquet")
    return sealed


def latest_manifest(bucket: Bucket, day: date) -> ManifestHead | None:
    """Return a day's manifest with the highest number, or None if the day was never sealed.

    Raises:
        StoreDamaged: it is not a manifest of that day, or not what it was when it was sealed.
    """
    numbers = manifest_numbers(bucket, day)
    return read_manifest(bucket, day, numbers[-1]) if numbers else None


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


def _get(bucket: Bucket, key: str) -> bytes | None:
    try:
        return bucket.get_bytes(key)
    except KeyMissing:
        return None


def _catalog_body(table: pa.Table, stored: bytes | None) -> bytes:
    """Return the table as Parquet: the `stored` bytes if they hold the same rows, since another version of pyarrow
    writes other bytes.
    """
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    if stored is None or stored == out.getvalue():
        return stored or out.getvalue()
    try:
        if pq.read_table(pa.BufferReader(stored)).cast(CATALOG_SCHEMA).equals(table):
            return stored
    except (pa.ArrowException, OSError, ValueError):
        pass  # damaged, or of another version: replaced
    return out.getvalue()


def entry_document(entry: ManifestEntry) -> dict[str, Any]:
    """Return an entry as the JSON object that a manifest holds.

    Raises:
        ValueError: the entry's time has no zone.
    """
    return entry._asdict() | {
        "warnings": sorted(entry.warnings) if entry.warnings else [],
        "started_at": None if entry.started_at is None else _utc(entry.started_at),
        # Milliseconds: the last digits of a division are no content.
        "duration_s": None if entry.duration_s is None else round(float(entry.duration_s), 3),
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Return UTF-8 JSON with sorted keys, no blanks and a final line break, so that equal documents give equal bytes.

    Raises:
        ValueError: a number is not finite.
    """
    return _json(document) + b"\n"


def _json(document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    # A lone surrogate has no UTF-8; backslashreplace writes it as \udXXX, which is JSON's own way too.
    return _encode(document).encode("utf-8", "backslashreplace")


def _around(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the canonical JSON of a document that will hold entries: the bytes before and after the entries."""
    before, empty, after = canonical_json({**document, "entries": []}).partition(_NO_ENTRIES)
    return before + empty[:-1], b"]" + after


def _listed(entries: Iterable[ManifestEntry]) -> Iterator[bytes]:
    """Yield the JSON of a thousand entries at a time as a manifest lists them; later pieces begin with a comma."""
    documents, comma = _documents(entries), b""
    while batch := list(islice(documents, _BATCH)):
        yield comma + _json(batch)[1:-1]
        comma = b","


def _hashes(content: Mapping[str, Any], entries: Iterable[ManifestEntry]) -> tuple[str, str]:
    """Return the SHA-256 of the content with these entries, and the Merkle root of the entries, both in hex."""
    before, after = _around(content)
    digest, leaves = hashlib.sha256(before), list[bytes]()
    for listed in _listed(entries):
        digest.update(listed)
        leaves += map(leaf_hash, _pieces(listed, listed.startswith(b","), len(listed)))
    digest.update(after)
    return digest.hexdigest(), MerkleTree(leaves).root


def _documents(entries: Iterable[ManifestEntry]) -> Iterator[dict[str, Any]]:
    before = None
    for entry in entries:
        if before is not None and entry.recording_id <= before:
            raise ValueError("A recording is in the day's list twice or out of order; give one entry each, by id")
        before = entry.recording_id
        yield entry_document(entry)


def _utc(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("A time without a zone cannot be sealed; give an aware datetime")
    plain = moment.astimezone(UTC).replace(tzinfo=None)  # a third of the time that an aware one takes
    return plain.isoformat(timespec="microseconds") + "+00:00"


def _create(bucket: Bucket, day: date, number: int, body: bytes, merkle_root: str) -> Sealed | None:
    """Put a manifest; return None if another writer took that number first."""
    key, sha256 = manifest_key(bucket.prefix, day, number), _sha256(body)
    try:
        bucket.put_new(key, body, sha256=sha256, content_type="application/json", metadata={"sha256": sha256})
        # Where create-only is not honoured, another process may just have put its own here, and have that number.
        is_ours = bucket.is_amazon or _holds(bucket, key, sha256)
    except KeyExists:
        # After a lost answer the put is sent again, and finds our own first one.
        is_ours = _holds(bucket, key, sha256)
    return Sealed(key, number, sha256, merkle_root, unchanged=False) if is_ours else None


def _holds(bucket: Bucket, key: str, sha256: str) -> bool:
    try:
        return bucket.hash_object(key).sha256 == sha256
    except KeyMissing:
        return False


def manifest_numbers(bucket: Bucket, day: date) -> list[int]:
    """Return the numbers of a day's manifests, sorted; other objects under the prefix are ignored."""
    found = (manifest_number(key) for key, _ in bucket.list_keys(manifest_prefix(bucket.prefix, day)))
    return sorted(number for number in found if number is not None)


def read_manifest(bucket: Bucket, day: date, number: int, entry: Callable[[Entry], None] | None = None) -> ManifestHead:
    """Read one manifest and prove it against its name, its content hash and its Merkle root, if it has one.

    `entry` is called with each entry, in order, after its form and its place were checked. Without `entry` they are not
    parsed, which takes a tenth of the time.

    Raises:
        KeyMissing: there is no manifest with that number.
        StoreDamaged: it is not a manifest of that day and number, or not what it was when it was sealed.
    """
    key = manifest_key(bucket.prefix, day, number)
    body = bucket.get_bytes(key)
    try:
        start, end = body.index(_NO_ENTRIES[:-1]) + len(_NO_ENTRIES) - 1, body.rindex(b'],"format":')
        listed, around = memoryview(body)[start:end], body[:start] + body[end:]
        head = json.loads(around)
        accepted = {"accepted_losses": head["accepted_losses"]} if "accepted_losses" in head else {}
        content_before, content_after = _around({**accepted, "date": head["date"], "totals": head["totals"]})
        whole = (
            (head["format"], head["date"], head["number"]) == (FORMAT, day.isoformat(), number)
            and head.keys() >= {"previous_sha256", "previous_day"}
            and head["content_sha256"] == _sha256(content_before, listed, content_after)
            and canonical_json(head) == around
            and _are_accepted_losses(head.get("accepted_losses", []))
        )
        if (
            whole
            and "merkle_root" in head
            and head["merkle_root"] != MerkleTree(map(leaf_hash, _pieces(body, start, end))).root
        ):
            raise StoreDamaged(
                f"{key} in the bucket {bucket.name} names a Merkle root that is not that of its entries: it was "
                "altered; restore its first version"
            )
        if whole and entry is not None:
            for found in _entries(_pieces(body, start, end)):
                entry(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise StoreDamaged(
            f"{key} in the bucket {bucket.name} is not the manifest that was sealed under that name; restore its "
            "first version"
        )
    return ManifestHead(key, number, _sha256(body), head)


def _are_accepted_losses(found: object) -> bool:
    fields = set(AcceptedLoss._fields)
    return isinstance(found, list) and all(
        isinstance(loss, dict) and loss.keys() == fields and all(isinstance(text, str) for text in loss.values())
        for loss in found
    )


def _pieces(body: bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of each entry of the list that lies between two positions of a manifest."""
    while start < end:
        stop = body.find(_BETWEEN, start, end)
        stop = end if stop < 0 else stop
        yield body[start:stop]
        start = stop + 1


def _entries(pieces: Iterable[bytes]) -> Iterator[Entry]:
    """Parse and yield the entries of a list one by one; compare each with its canonical form."""
    before = None
    for piece in pieces:
        entry = _decoder.decode(str(piece, "utf-8"))
        if not isinstance(entry, dict) or _json(entry) != piece:
            raise ValueError("an entry is not canonical")
        if not all(isinstance(entry.get(name), of) for name, of in _JSON_TYPES.items()):
            raise ValueError("an entry or a field of it has another type than was sealed")
        if before is not None and entry["recording_id"] <= before:
            raise ValueError("entries are not in order")
        before = entry["recording_id"]
        yield entry


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
