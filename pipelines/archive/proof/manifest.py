"""The sealed list of a day, and the catalog made from it.

A manifest is one canonical JSON document per sealing, `manifest-<n>.json`, create-only. Each names the SHA-256 of the
one before it and of the latest one of the day before, so that none can be altered or dropped unnoticed. Sealing the
same content again makes no new one.

The document (keys sorted, no blanks, UTF-8, one line break at the end):

* `format`: `ringcx-archive/manifest/1`; `date`; `number` from 1; `run_id`; `sealed_at` (UTC, ISO 8601)
* `entries`: one object per recording, every field of `ManifestEntry`, sorted by `recording_id`; `totals`: names to
  whole numbers
* `content_sha256`: of the canonical JSON of `{"date", "entries", "totals"}`: what decides whether anything changed
* `catalog_sha256`: of the day's part of the catalog; absent from manifests of earlier versions, which stay valid
* `previous_sha256`: of the bytes of manifest n-1, null for the first
* `previous_day`: `{"date", "number", "sha256"}` of the day before's latest manifest when this one was sealed, null
  where it had none

Not for deciding what belongs to a day: entries are given. They hold no personal data. Signatures are made in
`signature`, chains proved in `chain`.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyExists, KeyMissing, StorageUnavailable, StoreDamaged
from pipelines.archive.keys import catalog_key, manifest_key, manifest_number, manifest_prefix

FORMAT = "ringcx-archive/manifest/1"
Entry = Mapping[str, Any]
_NO_ENTRIES = b'"entries":[]'
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_decoder = json.JSONDecoder()
_AT_ONCE = 1000
_TRIES = 10  # sealers of one day that finish at the same moment; each try lost means that another one won

_CATALOG_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("recording_id", pa.string(), nullable=False),
    pa.field("account_id", pa.string(), nullable=False),
    pa.field("uii", pa.string(), nullable=False),
    pa.field("layout", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("started_at", pa.timestamp("us", tz="UTC")),
    pa.field("duration_s", pa.float64()),
    pa.field("key", pa.string()),
    pa.field("size", pa.int64()),
    pa.field("sha256", pa.string()),
    pa.field("version_id", pa.string()),
    pa.field("warnings", pa.list_(pa.string())),
    pa.field("also_known_as", pa.list_(pa.string())),
]
CATALOG_SCHEMA = pa.schema(_CATALOG_FIELDS)


class ManifestEntry(NamedTuple):
    """One recording that the day knows of, held or not. `size` in bytes, `sha256` hex, `duration_s` in seconds,
    `started_at` aware.
    """

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


_NAMES = ManifestEntry._fields
_TEXT = (str, type(None))
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("recording_id", "account_id", "uii", "layout", "source", "status"), str),
    **dict.fromkeys(("reason", "started_at", "key", "sha256", "version_id"), _TEXT),
    "duration_s": (int, float, type(None)),
    "size": (int, type(None)),
}
"""What JSON may say in each field of an entry; a forged one may say anything."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The manifest that now holds the content. `sha256` is of its bytes; `unchanged`: an earlier sealing had made it
    already.
    """

    key: str
    number: int
    sha256: str
    unchanged: bool


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """A manifest that is what it says; `document` has an empty list in the place of its entries. `sha256` is of its
    bytes.
    """

    key: str
    number: int
    sha256: str
    document: Mapping[str, Any]


def seal(
    bucket: Bucket,
    day: date,
    entries: Iterable[ManifestEntry],
    totals: Mapping[str, int],
    *,
    run_id: str,
    sealed_at: datetime,
    catalog: pa.Table | None = None,
) -> Sealed:
    """Seal a day's content under the next number, unless its latest manifest has the same content. The day's part of
    the catalog is written where it is not there, or is another one, and at no other time.

    There is an entry for each recording, by `recording_id`; some thousand are held at a time. `totals` is what the day
    adds up to, `catalog` its part of the catalog, as `catalog_table` makes it. `run_id` and `sealed_at` (aware) are no
    part of the content.

    Raises:
        ValueError: a recording is there twice or not in its place, or a time has no zone.
        StoreDamaged: an earlier manifest cannot be read.
        StorageUnavailable, StorageRefused: later, or never with these settings.
    """
    documents = map(entry_document, _in_order(entries))
    listed = b",".join(_json(some)[1:-1] for some in iter(lambda: list(islice(documents, _AT_ONCE)), []))
    content = {"date": day.isoformat(), "totals": dict(totals)}
    content_sha256 = _sha256(*_around(content, listed))
    when = _utc(sealed_at)
    held = None if catalog is None else _held(bucket, catalog_key(bucket.prefix, day))
    body = None if catalog is None else _catalog_body(catalog, held)
    hashed = {} if body is None else {"catalog_sha256": _sha256(body)}
    previous_day = latest_manifest(bucket, day - timedelta(days=1)) if day > date.min else None
    for _ in range(_TRIES):
        latest = latest_manifest(bucket, day)
        if latest is not None and latest.document.items() >= {"content_sha256": content_sha256, **hashed}.items():
            sealed = Sealed(latest.key, latest.number, latest.sha256, unchanged=True)
            break
        number = 1 if latest is None else latest.number + 1
        head = {
            **content,
            **hashed,
            "format": FORMAT,
            "number": number,
            "run_id": run_id,
            "sealed_at": when,
            "content_sha256": content_sha256,
            "previous_sha256": None if latest is None else latest.sha256,
            "previous_day": None
            if previous_day is None
            else {"date": previous_day.document["date"], "number": previous_day.number, "sha256": previous_day.sha256},
        }
        document = b"".join(_around(head, listed))
        created = _create(bucket, manifest_key(bucket.prefix, day, number), number, document)
        if created is not None:
            sealed = created
            break
    else:
        raise StorageUnavailable(
            f"{_TRIES} other runs sealed {day.isoformat()} first, one after the other; make sure that only one "
            "run at a time works on a date"
        )
    if body is not None and body is not held:
        key = catalog_key(bucket.prefix, day)
        bucket.put(key, body, content_type="application/vnd.apache.parquet")
    return sealed


def latest_manifest(bucket: Bucket, day: date) -> ManifestHead | None:
    """Return a day's manifest with the highest number, None when it was never sealed.

    Raises:
        StoreDamaged: it is not a manifest of that day, or not what it was when it was sealed.
    """
    numbers = manifest_numbers(bucket, day)
    return read_manifest(bucket, day, numbers[-1]) if numbers else None


def catalog_table(entries: pa.Table, names: Mapping[str, Sequence[str]] | None = None) -> pa.Table:
    """Return a day's part of the catalog, in `CATALOG_SCHEMA`; the date is in its path.

    Args:
        entries: a line for each recording, by `recording_id`, with the columns that a `ManifestEntry` has, and perhaps
            more.
        names: recording id -> other ids of the same recording.
    """
    also = names or {}
    lines = entries.select(list(ManifestEntry._fields))
    place = lines.column_names.index("warnings")
    none: Any = pa.scalar([], pa.list_(pa.string()))
    lines = lines.set_column(place, "warnings", pc.coalesce(lines["warnings"], none))  # parts may be older than it
    ids: list[Any] = lines["recording_id"].to_pylist()
    others = [sorted(also.get(one, ())) for one in ids]
    lines = lines.append_column("also_known_as", pa.array(others, pa.list_(pa.string())))
    return lines.select(CATALOG_SCHEMA.names).cast(CATALOG_SCHEMA)


def _held(bucket: Bucket, key: str) -> bytes | None:
    try:
        return bucket.get_bytes(key)
    except KeyMissing:
        return None


def _catalog_body(table: pa.Table, held: bytes | None) -> bytes:
    """Return the table as Parquet: the `held` bytes themselves where they hold the same, since another version of
    pyarrow writes other ones.
    """
    if held is not None and _holds_table(held, table):
        return held
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _holds_table(body: bytes, table: pa.Table) -> bool:
    try:
        held: pa.Table = pq.read_table(pa.BufferReader(body)).cast(CATALOG_SCHEMA)
        return bool(held.equals(table))
    except (pa.ArrowException, OSError, ValueError):
        return False


def entry_document(entry: ManifestEntry) -> dict[str, Any]:
    """An entry as it stands in a manifest.

    Raises:
        ValueError: its time has no zone.
    """
    return dict(zip(_NAMES, entry, strict=True)) | {
        "warnings": sorted(entry.warnings) if entry.warnings else [],
        "started_at": None if entry.started_at is None else _utc(entry.started_at),
        # Milliseconds: the last digits of a division are no content.
        "duration_s": None if entry.duration_s is None else round(float(entry.duration_s), 3),
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Sorted keys, no blanks, UTF-8, a line break at the end: equal documents give equal bytes.

    Raises:
        ValueError: a number is not finite.
    """
    return _json(document) + b"\n"


def _json(document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    # A lone surrogate has no UTF-8; backslashreplace writes it as \udXXX, which is JSON's own way too.
    return _encode(document).encode("utf-8", "backslashreplace")


def _around(document: Mapping[str, Any], listed: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """The canonical JSON of a document and of its entries, which are that already: what stands before them, they, and
    what stands behind them. A day's may be a hundred megabytes, and are made once.
    """
    before, empty, behind = canonical_json({**document, "entries": []}).partition(_NO_ENTRIES)
    return before + empty[:-1], listed, b"]" + behind


def _in_order(entries: Iterable[ManifestEntry]) -> Iterator[ManifestEntry]:
    before = None
    for entry in entries:
        if before is not None and entry.recording_id <= before:
            raise ValueError("A recording is in the day's list twice or out of order; give one entry each, by id")
        before = entry.recording_id
        yield entry


def _utc(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("A time without a zone cannot be sealed; give an aware datetime")
    plain = moment.astimezone(UTC).replace(tzinfo=None)  # a third of the time that an aware one takes
    return plain.isoformat(timespec="microseconds") + "+00:00"


def _create(bucket: Bucket, key: str, number: int, body: bytes) -> Sealed | None:
    """Put a manifest; None when another sealer had that number first."""
    sha256 = _sha256(body)
    try:
        bucket.put_new(key, body, sha256=sha256, content_type="application/json", metadata={"sha256": sha256})
    except KeyExists:
        # After a lost answer the put is sent again, and finds our own first one.
        return Sealed(key, number, sha256, unchanged=False) if _held(bucket, key) == body else None
    # Where create-only is not honoured, another process may just have put its own here: then the next number is ours.
    if not bucket.is_amazon and _held(bucket, key) != body:
        return None
    return Sealed(key, number, sha256, unchanged=False)


def manifest_numbers(bucket: Bucket, day: date) -> list[int]:
    """Return the numbers of a day's manifests, sorted; other objects under the prefix are ignored."""
    found = (manifest_number(key) for key, _ in bucket.list_keys(manifest_prefix(bucket.prefix, day)))
    return sorted(number for number in found if number is not None)


def read_manifest(bucket: Bucket, day: date, number: int, entry: Callable[[Entry], None] | None = None) -> ManifestHead:
    """Read one manifest and prove it against its name and its own content hash.

    `entry` gets each entry, in order, once its form and its place were checked; without it they are not parsed, which
    takes a tenth of the time.

    Raises:
        KeyMissing: there is none of that number.
        StoreDamaged: it is not a manifest of that day and number, or not what it was when it was sealed.
    """
    key = manifest_key(bucket.prefix, day, number)
    body = bucket.get_bytes(key)
    try:
        start, end = body.index(b'"entries":[') + len(b'"entries":['), body.rindex(b'],"format":')
        listed, around = memoryview(body)[start:end], body[:start] + body[end:]
        head = json.loads(around)
        content = {name: head[name] for name in ("date", "totals")}
        whole = (
            head["format"] == FORMAT
            and head["date"] == day.isoformat()
            and head["number"] == number
            and "previous_sha256" in head
            and "previous_day" in head
            and head["content_sha256"] == _sha256(*_around(content, listed))
            and canonical_json(head) == around
        )
        if whole and entry is not None:
            for one in _entries(str(listed, "utf-8")):
                entry(one)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise StoreDamaged(
            f"{key} in the bucket {bucket.name} is not the manifest that was sealed under that name; restore its "
            "first version"
        )
    return ManifestHead(key, number, _sha256(body), head)


def _entries(listed: str) -> Iterator[Entry]:
    """Yield the entries of a list one by one, each compared with its canonical form."""
    place, before = 0, None
    while place < len(listed):
        start = place if before is None else place + 1
        entry, end = _decoder.raw_decode(listed, start)
        if (before is not None and listed[place] != ",") or _json(entry) != listed[start:end].encode():
            raise ValueError("an entry is not canonical")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), of) for name, of in _KINDS.items()):
            raise ValueError("an entry or a field of it has another type than was sealed")
        if before is not None and entry["recording_id"] <= before:
            raise ValueError("entries are not in order")
        place, before = end, entry["recording_id"]
        yield entry


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
