"""The verification of the objects in the bucket: presence, size, checksum, bytes, and objects that nothing names.

The cheap form trusts the store: an object is unchanged if the listing has its size, and still the ETag that was given
for the proven bytes. If the ETag is missing or differs, the object is read and hashed. Only reading proves without
trusting the store.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from pipelines.archive.bucket import Bucket, Hashed
from pipelines.archive.errors import KeyMissing, StorageUnavailable
from pipelines.archive.keys import access_prefix, catalog_key, manifest_number, manifest_prefix
from pipelines.archive.proof.attestation import ACCESS
from pipelines.archive.proof.manifest import ManifestEntry
from pipelines.ledger.files import date_of_folder
from pipelines.settings import StorageSettings
from pipelines.steps.parallel import map_in_order
from pipelines.steps.verify.manifests import DateFacts, attestations, compare_attested
from pipelines.steps.verify.report import DayResult, Discrepancy, Flag

_DATED_FOLDERS = ("access/", "catalog/", "conflicts/", "manifests/", "quarantine/", "recordings/", "verifications/")
_FOLDERS = (*_DATED_FOLDERS, "calls/", "events/", "ledger/", "probes/", "witnesses/")
_HEX = 16  # of a SHA-256, at the beginning of a name under conflicts/


@dataclass(frozen=True, slots=True)
class Sampling:
    """The choice of recordings whose bytes are read: a `share` (0 to 1) of them, at most `limit`, chosen by `seed`."""

    share: float = 0.0
    limit: int | None = None
    seed: str = ""

    def choose(self, ids: Iterable[str]) -> frozenset[str]:
        """Return the ids of the recordings whose bytes are read."""
        draws = sorted((draw, recording_id) for recording_id in ids if (draw := self._draw(recording_id)) <= self.share)
        return frozenset(recording_id for _, recording_id in draws[: self.limit])

    def _draw(self, recording_id: str) -> float:
        """Return a number from 0 to 1 that depends on the seed and the id alone."""
        digest = hashlib.sha256(f"{self.seed}\n{recording_id!a}".encode()).digest()
        return int.from_bytes(digest) / (1 << 256)


def check_objects(
    bucket: Bucket,
    facts: DateFacts,
    sampling: Sampling,
    result: DayResult,
    threads: int,
    *,
    flag: Flag,
    progress: Callable[[int, int], None],
) -> None:
    """Verify the expected objects, and name the others; `progress` takes the number verified and the total."""
    held = facts.held()
    for key, count in Counter(entry.key for entry in held).items():
        if count > 1:  # the bytes of one are there, those of the others are not
            what = f"{count} recordings have the same key {key}, which can hold only one of them"
            flag("object_stray", str(key), f"{what}; find out which manifest or ledger part was altered")
    chosen = sampling.choose(entry.recording_id for entry in held)

    def verify(entry: ManifestEntry) -> Hashed | KeyMissing | StorageUnavailable | None:
        """Return the object's hash, or the error that prevents it, or None if the listing is enough."""
        try:
            if entry.recording_id not in chosen and _is_unchanged(facts, entry):
                return None
            return bucket.hash_object(str(entry.key))
        except (KeyMissing, StorageUnavailable) as error:
            return error

    for done, (entry, found) in enumerate(map_in_order(verify, held, threads=threads), start=1):
        if found is not None:
            _judge_object(entry, found, result, flag)
        progress(done, len(held))
    _flag_unexplained(facts, flag)


def _is_unchanged(facts: DateFacts, entry: ManifestEntry) -> bool:
    """Return whether the listing has the size, and the ETag that the ledger has for the sealed bytes."""
    recorded = facts.ledger.get(entry.recording_id)
    listed = facts.objects.get(str(entry.key))
    if recorded is None or listed is None or recorded.sha256 != entry.sha256:
        return False
    etag = facts.etags[entry.recording_id]
    return etag is not None and listed.etag == etag and listed.size == entry.size


def _judge_object(
    entry: ManifestEntry, found: Hashed | KeyMissing | StorageUnavailable, result: DayResult, flag: Flag
) -> None:
    """Count what was read, and report an object that is missing, unreadable or altered."""
    key, name = str(entry.key), f"{entry.recording_id} of {result.date}"
    if isinstance(found, StorageUnavailable):
        flag("unreadable", key, f"{name} could not be read: {found}")
        return
    kind, what = "object_missing", "is gone"
    if isinstance(found, Hashed):
        result.read += 1
        result.bytes_read += found.size
        if (found.size, found.sha256) == (entry.size, entry.sha256):
            return
        kind = "object_altered"
        what = (
            f"has {found.size:,} bytes with SHA-256 {found.sha256}, not {entry.size or 0:,} bytes with {entry.sha256}"
        )
    result.held -= 1
    result.bytes -= entry.size or 0
    version = f" (version {entry.version_id} was the sealed one)" if entry.version_id else ""
    flag(kind, key, f"{name} is not in the bucket as it was sealed: {key} {what}{version}; restore it")


def _flag_unexplained(facts: DateFacts, flag: Flag) -> None:
    """Report each object that belongs to no expected recording."""
    written_at = {entry.key: facts.changed_at.get(recording_id) for recording_id, entry in facts.ledger.items()}
    for key in facts.unexplained():
        listed = facts.objects[key]
        at = written_at.get(key) or (listed.modified if key in facts.awaited else None)
        sentence = (
            f"{key} ({listed.size:,} bytes) is in the bucket, and no manifest names it; run the date again, which "
            "adopts what a stopped run has stored, or find out who put it there"
        )
        flag("object_stray", key, sentence, arriving=facts.arriving.is_young(at))


def check_conflicts(bucket: Bucket, day: date, listed: Container[str], flag: Flag) -> None:
    """Verify that each object under `conflicts/` matches the hash in its name and belongs to a listed recording, and
    that nothing is next to the date's manifests and its part of the catalog: queries would read it.
    """
    folder = f"{bucket.prefix}conflicts/date={day.isoformat()}/"
    for key, _ in bucket.list_keys(folder):
        where, _, name = key.rpartition("/")
        start, _, rest = name.partition("-")
        recording = f"{bucket.prefix}recordings/{where.removeprefix(f'{bucket.prefix}conflicts/')}/{rest}"
        is_named = recording in listed and len(start) == _HEX
        if not is_named or not bucket.hash_object(key).sha256.startswith(start):
            sentence = f"{key} is not a conflicting copy of a recording of {day}; find out who put it there"
            flag("object_stray", key, sentence)
    catalog = catalog_key(bucket.prefix, day)
    for folder in (manifest_prefix(bucket.prefix, day), catalog.removesuffix("recordings.parquet")):
        for key in sorted({key for key, _ in bucket.list_keys(folder)} - {folder, catalog}):
            if manifest_number(key.removesuffix(".sig")) is None:
                sentence = f"{key} is neither a manifest of {day} nor its catalog; find out who put it there"
                flag("object_stray", key, sentence)


def check_access_log(bucket: Bucket, day: date, threads: int, flag: Flag) -> None:
    """Read each attested entry of the UTC day and compare it; unattested ones came after the last sealing."""
    attested = attestations(bucket, ACCESS, day, flag)
    listed = (key.removeprefix(bucket.prefix) for key, _ in bucket.list_keys(access_prefix(bucket.prefix, day)))
    names = attested.keys() & set(listed)  # a forged attestation may name what no request can carry
    read = map_in_order(lambda name: bucket.sha256_of(f"{bucket.prefix}{name}"), names, threads=threads)
    there = {name: sha256 for name, sha256 in read if sha256 is not None}
    compare_attested(attested, there, "access_entry", day, flag, prefix=bucket.prefix)


def find_strays(bucket: Bucket, settings: StorageSettings) -> Iterator[Discrepancy]:
    """Yield each object and folder outside the documented layout that belongs to no date: at the top of the prefix, and
    where only folders of dates should be. The ledger and the events may be in the bucket too.
    """
    urls = [url for url in (settings.ledger, settings.events_url) if url]
    own = [f"{url.removeprefix(f's3://{bucket.name}/').rstrip('/')}/" for url in urls]
    known = (*(f"{bucket.prefix}{folder}" for folder in _FOLDERS), *own)
    strays = []
    for key in bucket.list_folders(bucket.prefix):
        is_parent = key.endswith("/") and any(folder.startswith(key) for folder in own)
        if key != bucket.prefix and not is_parent and not key.startswith(known):
            strays.append(key)
    for root in (f"{bucket.prefix}{name}" for name in _DATED_FOLDERS):
        # A console that makes folders puts an object under the folder's own name.
        strays += [key for key in bucket.list_folders(root) if key != root and not date_of_folder(key.split("/")[-2])]
    for key in strays:
        sentence = f"{key} is not part of the archive's documented layout; find out who put it there"
        yield Discrepancy("", "object_stray", key, sentence)
