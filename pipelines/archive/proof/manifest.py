"""The sealed list of a day: how a manifest is written, read and proved.

Each sealing writes one canonical JSON document, `manifest-<n>.json`, create-only; docs/storage.md describes its fields.
It names the SHA-256 of the manifest before it and of the previous day's latest one, so that none can be altered or
dropped unnoticed. Entries hold no personal data.

`seal` decides when a manifest is made, `signature` makes signatures, `chain` proves chains.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import NoneType
from typing import Any, Final, NamedTuple

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StoreDamaged
from pipelines.archive.keys import manifest_key, manifest_number, manifest_prefix
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash

FORMAT = "ringcx-archive/manifest/1"
Entry = Mapping[str, Any]
_NO_ENTRIES: Final = b'"entries":[]'
# An entry is flat and its keys are sorted, and a string cannot hold this, since quotes in it are escaped.
_BETWEEN: Final = b',{"account_id":'
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_decoder = json.JSONDecoder()
REQUIRED: Final = ("recording_id", "account_id", "uii", "layout", "source", "status")
_JSON_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(REQUIRED, str),
    **dict.fromkeys(("reason", "started_at", "key", "sha256", "version_id"), (str, NoneType)),
    "duration_s": (int, float, NoneType),
    "size": (int, NoneType),
}
"""The JSON types of each field of an entry; a forged manifest may hold anything."""


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
        return self._asdict() | {"at": utc_text(self.at)}


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """A verified manifest without its entries: `document` has an empty list. `sha256` is the hash of its bytes."""

    key: str
    number: int
    sha256: str
    document: Mapping[str, Any]

    @property
    def sealed_at(self) -> datetime:
        """When the manifest was sealed, with its zone."""
        return datetime.fromisoformat(self.document["sealed_at"])


def latest_manifest(bucket: Bucket, day: date) -> ManifestHead | None:
    """Return a day's manifest with the highest number, None without one; raise StoreDamaged if it was altered."""
    numbers = manifest_numbers(bucket, day)
    return read_manifest(bucket, day, numbers[-1]) if numbers else None


def entry_document(entry: ManifestEntry) -> dict[str, Any]:
    """Return an entry as the JSON object that a manifest holds; raise ValueError if its time has no zone."""
    return entry._asdict() | {
        "warnings": sorted(entry.warnings) if entry.warnings else [],
        "started_at": None if entry.started_at is None else utc_text(entry.started_at),
        # Milliseconds: the last digits of a division carry no information.
        "duration_s": None if entry.duration_s is None else round(float(entry.duration_s), 3),
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Return UTF-8 JSON with sorted keys, no blanks and a final line break; ValueError if a number is not finite."""
    return _json(document) + b"\n"


def _json(document: Mapping[str, Any]) -> bytes:
    # A lone surrogate has no UTF-8; backslashreplace writes it as \udXXX, which is JSON's own way too.
    return _encode(document).encode("utf-8", "backslashreplace")


def document_frame(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the canonical JSON of a document that will hold entries: the bytes before and after the entries."""
    before, empty, after = canonical_json({**document, "entries": []}).partition(_NO_ENTRIES)
    return before + empty[:-1], b"]" + after


def listed(entries: Iterable[ManifestEntry]) -> Iterator[bytes]:
    """Yield the JSON of each entry as a manifest lists it; all but the first begin with a comma."""
    before, comma = None, b""
    for entry in entries:
        if before is not None and entry.recording_id <= before:
            raise ValueError("A recording is in the day's list twice or out of order; give one entry each, by id")
        yield comma + _json(entry_document(entry))
        before, comma = entry.recording_id, b","


def utc_text(moment: datetime) -> str:
    """Return an aware time as a manifest holds it; raise ValueError if it has no zone."""
    if moment.tzinfo is None:
        raise ValueError("A time without a zone cannot be sealed; give an aware datetime")
    plain = moment.astimezone(UTC).replace(tzinfo=None)  # a third of the time that an aware one takes
    return plain.isoformat(timespec="microseconds") + "+00:00"


def manifest_numbers(bucket: Bucket, day: date) -> list[int]:
    """Return the numbers of a day's manifests, sorted; other objects under the prefix are ignored."""
    found = (manifest_number(key) for key, _ in bucket.list_keys(manifest_prefix(bucket.prefix, day)))
    return sorted(number for number in found if number is not None)


def read_manifest(bucket: Bucket, day: date, number: int, entry: Callable[[Entry], None] | None = None) -> ManifestHead:
    """Read one manifest and verify it against its name, its content hash and its Merkle root, if it has one.

    `entry` is called with each entry, in order, after its form and its place were checked. Without `entry` they are not
    parsed, which takes a tenth of the time. Raises KeyMissing if there is no manifest of that number, and StoreDamaged
    if the object is not the manifest of that day and number, or differs from what was sealed.
    """
    key = manifest_key(bucket.prefix, day, number)
    body = bucket.get_bytes(key)
    try:
        start, end = _entry_span(body)
        head = json.loads(body[:start] + body[end:])
        is_sealed = (head["format"], head["date"], head["number"]) == (FORMAT, day.isoformat(), number)
        is_sealed = is_sealed and _is_intact(head, body, start, end)
        if is_sealed and entry is not None:
            for found in _entries(_pieces(body, start, end)):
                entry(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_sealed = False
    if not is_sealed:
        raise StoreDamaged(
            f"{key} in the bucket {bucket.name} is not the manifest that was sealed under that name; restore its "
            "first version"
        )
    return ManifestHead(key, number, sha256_of(body), head)


def _entry_span(body: bytes) -> tuple[int, int]:
    """Return where the list of entries begins and ends in a manifest, without its brackets."""
    start = body.index(_NO_ENTRIES[:-1]) + len(_NO_ENTRIES) - 1
    return start, body.rindex(b'],"format":')


def _is_intact(head: dict[str, Any], body: bytes, start: int, end: int) -> bool:
    """Return whether a manifest is canonical, and is what its own hashes say; `head` is all but its entries."""
    if canonical_json(head) != body[:start] + body[end:] or not head.keys() >= {"previous_sha256", "previous_day"}:
        return False
    if not isinstance(head["totals"], dict) or datetime.fromisoformat(head["sealed_at"]).tzinfo is None:
        return False
    content = {"date": head["date"], "totals": head["totals"]}
    if "accepted_losses" in head:
        content["accepted_losses"] = head["accepted_losses"]
    before, after = document_frame(content)
    if head["content_sha256"] != sha256_of(before, memoryview(body)[start:end], after):
        return False
    if not _are_accepted_losses(head.get("accepted_losses", [])):
        return False
    root = MerkleTree(map(leaf_hash, _pieces(body, start, end))).root
    return bool(head.get("merkle_root", root) == root)


def _are_accepted_losses(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(loss, dict)
        and loss.keys() == set(AcceptedLoss._fields)
        and all(isinstance(text, str) for text in loss.values())
        for loss in found
    )


def _pieces(body: bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of each entry of the list that lies between two positions of a manifest."""
    while start < end:
        stop = body.find(_BETWEEN, start, end)
        stop = end if stop < 0 else stop
        yield body[start:stop]
        start = stop + 1


def _entries(written: Iterable[bytes]) -> Iterator[Entry]:
    """Parse and yield the entries of a list one by one; compare each with its canonical form."""
    before = None
    for piece in written:
        entry = _decoder.decode(str(piece, "utf-8"))
        if not isinstance(entry, dict) or _json(entry) != piece:
            raise ValueError("an entry is not canonical")
        if not all(isinstance(entry.get(name), kind) for name, kind in _JSON_TYPES.items()):
            raise ValueError("an entry, or a field of an entry, has a different type from the sealed one")
        if before is not None and entry["recording_id"] <= before:
            raise ValueError("entries are not in order")
        before = entry["recording_id"]
        yield entry


def sha256_of(*parts: bytes | memoryview) -> str:
    """Return the SHA-256, in hex, of the concatenated parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
