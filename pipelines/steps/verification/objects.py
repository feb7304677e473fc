"""What lies in the bucket for a date, held against what should: presence, size, checksum, and the bytes themselves.

The cheap form believes the store's own checksum: at Amazon the SHA-256 that it computed on arrival, elsewhere the ETag
that the listing shows now against the one that the store gave for the proven bytes. Where these say nothing or
something else, the object is read and hashed. Reading is the only proof that needs nobody's word.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

from pipelines.archive.bucket import Bucket, Hashed
from pipelines.archive.errors import KeyMissing, StorageUnavailable
from pipelines.steps.parallel import map_in_order
from pipelines.steps.verification.doubts import DayVerdict, Tell
from pipelines.steps.verification.scratch import Expected, Scratch

_HEX = 16  # of a SHA-256, at the beginning of a name under conflicts/
Progress = Callable[[int, int], None]
"""Takes how many recordings of the date were looked at, and of how many."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Whose bytes are read: a `share` from 0 to 1 of the recordings, at most `limit` (None: no limit), chosen
    by `seed`.
    """

    share: float = 0.0
    limit: int | None = None
    seed: str = ""

    def draw(self, recording_id: str) -> float:
        """A recording's lot, from 0 to 1: the same for the same seed, whatever else there is."""
        digest = hashlib.sha256(f"{self.seed}\n{recording_id}".encode("utf-8", "surrogatepass")).digest()
        # 53 bits: a float holds them exactly, so that no lot is rounded up to 1.
        return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class _Look:
    """What looking at one object brought: its bytes hashed, or a sentence for why they could not be."""

    hashed: Hashed | None = None
    missing: bool = False
    unavailable: str | None = None


def check_objects(
    bucket: Bucket,
    scratch: Scratch,
    reading: Reading,
    verdict: DayVerdict,
    threads: int,
    *,
    tell: Tell,
    progress: Progress,
) -> None:
    """Look at every recording that should be held; count what was read in `verdict`."""
    for key, number in scratch.shared_keys():
        tell("object_stray", key, f"{number} recordings are said to lie under the one key {key}")
    scratch.to_read(reading.draw, reading.share, -1 if reading.limit is None else reading.limit)
    looks = map_in_order(partial(_look, bucket), scratch.expected(), threads=threads)
    for done, ((one, _), look) in enumerate(looks, start=1):
        _judge(one, look, verdict, scratch, tell)
        progress(done, verdict.held)
    for key, size, recording_id in scratch.strays():
        whose = (
            f"the ledger has {recording_id} under it, and the manifest does not"
            if recording_id
            else "no manifest and no ledger part knows it"
        )
        tell("object_stray", key, f"{key} ({size:,} bytes) is in the bucket and {whose}; find out who put it there")


def check_conflicts(bucket: Bucket, day: date, scratch: Scratch, *, tell: Tell) -> None:
    """What was kept under `conflicts/` must be what its name says, next to a recording that the listing has."""
    folder = f"{bucket.prefix}conflicts/date={day.isoformat()}/"
    for key, _ in bucket.list_keys(folder):
        where, _, name = key.rpartition("/")
        start, _, rest = name.partition("-")
        beside = f"{bucket.prefix}recordings/{where.removeprefix(f'{bucket.prefix}conflicts/')}/{rest}"
        if not (scratch.is_listed(beside) and len(start) == _HEX and bucket.hash_object(key).sha256[:_HEX] == start):
            tell(
                "object_stray",
                key,
                f"{key} is not a conflicting copy of a recording of {day}; find out who put it there",
            )


def _look(bucket: Bucket, item: tuple[Expected, bool]) -> _Look:
    one, chosen = item
    if one.listed_size is None:
        return _Look(missing=True)
    try:
        if not chosen and one.listed_size == one.size and _store_vouches(bucket, one):
            return _Look()
        return _Look(hashed=bucket.hash_object(one.key))
    except KeyMissing:
        return _Look(missing=True)
    except StorageUnavailable as error:
        return _Look(unavailable=str(error))


def _store_vouches(bucket: Bucket, one: Expected) -> bool:
    if one.etag is None or one.listed_etag != one.etag:
        return False
    if not bucket.is_amazon:
        return True
    facts = bucket.head(one.key)
    if facts is None:
        raise KeyMissing(one.key)
    return facts.checksum_sha256 is None or facts.checksum_sha256 == _base64(one.sha256)


def _judge(one: Expected, look: _Look, verdict: DayVerdict, scratch: Scratch, tell: Tell) -> None:
    name = f"{one.recording_id} of {verdict.day}"
    version = f" (version {one.version_id} was the sealed one)" if one.version_id else ""
    if look.missing:
        tell("object_missing", one.key, f"{name} is not in the bucket: {one.key} is gone{version}; restore it")
    elif look.unavailable is not None:
        tell("unreadable", one.key, f"{name} could not be read again: {look.unavailable}")
    elif look.hashed is not None:
        verdict.read += 1
        verdict.read_bytes += look.hashed.size
        if (look.hashed.size, look.hashed.sha256) != (one.size, one.sha256):
            other = scratch.holder(look.hashed.sha256)
            instead = f"; they are the bytes of {other}: the two were swapped or one was copied" if other else ""
            tell(
                "object_altered",
                one.key,
                f"{name} is not what was sealed: {one.key} has {look.hashed.size:,} bytes with SHA-256 "
                f"{look.hashed.sha256} and not {one.size:,} with {one.sha256}{instead}{version}; restore it",
            )


def _base64(sha256: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(sha256)).decode()
    except ValueError:
        return ""
