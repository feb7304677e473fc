"""What is in the bucket for a date, compared with what should be: presence, size, checksum, and the bytes themselves.

The cheap form believes the store's own checksum: at Amazon the SHA-256 that it computed on arrival, elsewhere the ETag
that the listing shows now against the one that the store gave for the proven bytes. Where these say nothing or
something else, the object is read and hashed. Reading is the only proof that needs nobody's word.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import date

from pipelines.archive.bucket import Bucket, Hashed
from pipelines.archive.errors import KeyMissing, StorageUnavailable
from pipelines.steps.parallel import map_in_order
from pipelines.steps.verify.comparison import Comparison, Line
from pipelines.steps.verify.report import DayVerdict, Tell

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

    def choose(self, ids: Iterable[str]) -> frozenset[str]:
        """The recordings whose bytes are read."""
        lots = sorted((lot, one) for one in ids if (lot := self.draw(one)) < self.share)
        return frozenset(one for _, one in lots[: self.limit])

    def draw(self, recording_id: str) -> float:
        """A recording's lot, from 0 to 1: the same for the same seed, whatever else there is."""
        digest = hashlib.sha256(f"{self.seed}\n{recording_id}".encode("utf-8", "surrogatepass")).digest()
        # 53 bits: a float holds them exactly, so that no lot is rounded up to 1.
        return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def check_objects(
    bucket: Bucket,
    day: Comparison,
    reading: Reading,
    verdict: DayVerdict,
    threads: int,
    *,
    tell: Tell,
    progress: Progress,
) -> None:
    """Look at every recording that should be held; count what was read in `verdict`."""
    held = day.held()
    for key, number in Counter(line.key for line in held).items():
        if number > 1:
            tell("object_stray", key, f"{number} recordings are said to be stored under the one key {key}")
    chosen = reading.choose(line.recording_id for line in held)
    ids = {line.sha256: line.recording_id for line in reversed(held)}

    def look(line: Line) -> Hashed | KeyMissing | StorageUnavailable | None:
        """The object's bytes hashed, or why not; None where the store's word is enough."""
        listed, known = day.objects.get(line.key), day.ledger.get(line.recording_id)
        if listed is None:
            return KeyMissing(line.key)
        etag = known.etag if known is not None and known.sha256 == line.sha256 else None
        try:
            is_same = etag is not None and (listed.size, listed.etag) == (line.size, etag)
            if is_same and line.recording_id not in chosen and _store_vouches(bucket, line):
                return None
            return bucket.hash_object(line.key)
        except (KeyMissing, StorageUnavailable) as error:
            return error

    for done, (line, found) in enumerate(map_in_order(look, held, threads=threads), start=1):
        name = f"{line.recording_id} of {verdict.day}"
        version = f" (version {line.version_id} was the sealed one)" if line.version_id else ""
        if isinstance(found, KeyMissing):
            tell("object_missing", line.key, f"{name} is not in the bucket: {line.key} is gone{version}; restore it")
        elif isinstance(found, StorageUnavailable):
            tell("unreadable", line.key, f"{name} could not be read again: {found}")
        elif found is not None:
            verdict.read += 1
            verdict.read_bytes += found.size
            if (found.size, found.sha256) != (line.size, line.sha256):
                other = ids.get(found.sha256)
                instead = f"; they are the bytes of {other}: the two were swapped or one was copied" if other else ""
                tell(
                    "object_altered",
                    line.key,
                    f"{name} is not what was sealed: {line.key} has {found.size:,} bytes with SHA-256 {found.sha256} "
                    f"and not {line.size or 0:,} with {line.sha256}{instead}{version}; restore it",
                )
        progress(done, verdict.held)
    strays = sorted(day.objects.keys() - {line.key for line in held})
    owners = {line.key: recording_id for recording_id, line in reversed(day.ledger.items())} if strays else {}
    for key in strays:
        whose = "no manifest and no ledger part knows it"
        if key in owners:
            whose = f"the ledger has {owners[key]} under it, and the manifest does not"
        size = day.objects[key].size
        tell("object_stray", key, f"{key} ({size:,} bytes) is in the bucket and {whose}; find out who put it there")


def check_conflicts(bucket: Bucket, day: date, listed: Container[str], tell: Tell) -> None:
    """What was kept under `conflicts/` must be what its name says, next to a recording that the listing has."""
    folder = f"{bucket.prefix}conflicts/date={day.isoformat()}/"
    for key, _ in bucket.list_keys(folder):
        where, _, name = key.rpartition("/")
        start, _, rest = name.partition("-")
        neighbour = f"{bucket.prefix}recordings/{where.removeprefix(f'{bucket.prefix}conflicts/')}/{rest}"
        if not (neighbour in listed and len(start) == _HEX and bucket.hash_object(key).sha256[:_HEX] == start):
            tell(
                "object_stray",
                key,
                f"{key} is not a conflicting copy of a recording of {day}; find out who put it there",
            )


def _store_vouches(bucket: Bucket, line: Line) -> bool:
    if not bucket.is_amazon:
        return True
    facts = bucket.head(line.key)
    if facts is None:
        raise KeyMissing(line.key)
    return facts.checksum_sha256 is None or facts.checksum_sha256 == _base64(line.sha256)


def _base64(sha256: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(sha256)).decode()
    except ValueError:
        return ""
