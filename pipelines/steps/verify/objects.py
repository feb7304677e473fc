"""The verification of the objects in the bucket: presence, size, checksum, bytes, and objects that nothing names.

The cheap form trusts the store's own checksum: at Amazon the SHA-256 computed on arrival, elsewhere the listing's ETag
if it is still the one given for the proven bytes. If these are missing or differ, the object is read and hashed. Only
reading proves without trusting the store.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from pipelines.archive.bucket import Bucket, Hashed
from pipelines.archive.errors import KeyMissing, StorageUnavailable
from pipelines.archive.keys import access_prefix
from pipelines.archive.proof.manifest import ManifestEntry
from pipelines.aws import as_base64
from pipelines.ledger.files import date_of
from pipelines.settings import StorageSettings
from pipelines.steps.parallel import map_in_order
from pipelines.steps.seal.seal_day import ACCESS
from pipelines.steps.verify.manifests import Evidence, attestations
from pipelines.steps.verify.report import DayResult, Discrepancy, Flag

_DATED_FOLDERS = ("access/", "catalog/", "conflicts/", "manifests/", "quarantine/", "recordings/", "verifications/")
_FOLDERS = (*_DATED_FOLDERS, "calls/", "events/", "ledger/", "probes/", "witnesses/")
_HEX = 16  # of a SHA-256, at the beginning of a name under conflicts/


@dataclass(frozen=True, slots=True)
class Reading:
    """The choice of recordings whose bytes are read: a `share` (0 to 1) of them, at most `limit`, chosen by `seed`."""

    share: float = 0.0
    limit: int | None = None
    seed: str = ""

    def choose(self, ids: Iterable[str]) -> frozenset[str]:
        """Return the ids of the recordings whose bytes are read."""
        draws = sorted((draw, recording_id) for recording_id in ids if (draw := self._draw(recording_id)) < self.share)
        return frozenset(recording_id for _, recording_id in draws[: self.limit])

    def _draw(self, recording_id: str) -> float:
        """Return a number from 0 to 1 that depends on the seed and the id alone."""
        digest = hashlib.sha256(f"{self.seed}\n{recording_id}".encode("utf-8", "surrogatepass")).digest()
        # 53 bits: a float holds them exactly, so that none is rounded up to 1.
        return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def check_objects(
    bucket: Bucket,
    evidence: Evidence,
    reading: Reading,
    result: DayResult,
    threads: int,
    *,
    flag: Flag,
    progress: Callable[[int, int], None],
) -> None:
    """Verify the expected objects, and name the others; `progress` takes the number verified and the total."""
    held = evidence.held()
    for key, count in Counter(entry.key for entry in held).items():
        if count > 1:
            flag("object_stray", str(key), f"{count} recordings are recorded under the same key {key}")
    chosen = reading.choose(entry.recording_id for entry in held)
    ids = {entry.sha256: entry.recording_id for entry in reversed(held)}

    def verify(entry: ManifestEntry) -> Hashed | KeyMissing | StorageUnavailable | None:
        """Return the object's hash, or the error that prevents it, or None if the store's checksum is enough."""
        try:
            if entry.recording_id not in chosen and _is_unchanged(evidence, entry) and _store_vouches(bucket, entry):
                return None
            return bucket.hash_object(str(entry.key))
        except (KeyMissing, StorageUnavailable) as error:
            return error

    for done, (entry, found) in enumerate(map_in_order(verify, held, threads=threads), start=1):
        if found is not None:
            _judge_object(entry, found, ids, result, flag)
        progress(done, len(held))
    _flag_unexplained(evidence, flag)


def _is_unchanged(evidence: Evidence, entry: ManifestEntry) -> bool:
    """Return whether the listing has the size, and the ETag that the ledger has for the sealed bytes."""
    recorded = evidence.ledger.get(entry.recording_id)
    listed = evidence.objects.get(str(entry.key))
    if recorded is None or listed is None or recorded.sha256 != entry.sha256:
        return False
    etag = evidence.etags[entry.recording_id]
    return etag is not None and listed.etag == etag and listed.size == entry.size


def _judge_object(
    entry: ManifestEntry,
    found: Hashed | KeyMissing | StorageUnavailable,
    ids: Mapping[str | None, str],
    result: DayResult,
    flag: Flag,
) -> None:
    """Count what was read, and report an object that is missing, unreadable or altered; `ids`: by SHA-256."""
    key, name = str(entry.key), f"{entry.recording_id} of {result.date}"
    version = f" (version {entry.version_id} was the sealed one)" if entry.version_id else ""
    if isinstance(found, StorageUnavailable):
        flag("unreadable", key, f"{name} could not be read: {found}")
        return
    if isinstance(found, KeyMissing):
        _no_longer_held(entry, result)
        flag("object_missing", key, f"{name} is not in the bucket: {key} is gone{version}; restore it")
        return
    result.read += 1
    result.bytes_read += found.size
    if (found.size, found.sha256) == (entry.size, entry.sha256):
        return
    _no_longer_held(entry, result)
    other = ids.get(found.sha256)
    instead = f"; they are the bytes of {other}: the two were swapped or one was copied" if other else ""
    flag(
        "object_altered",
        key,
        f"{name} is not what was sealed: {key} has {found.size:,} bytes with SHA-256 {found.sha256} and "
        f"not {entry.size or 0:,} with {entry.sha256}{instead}{version}; restore it",
    )


def _flag_unexplained(evidence: Evidence, flag: Flag) -> None:
    """Report each object that belongs to no expected recording."""
    owners = {entry.key: recording_id for recording_id, entry in reversed(evidence.ledger.items())}
    for key in evidence.unexplained():
        listed, owner = evidence.objects[key], owners.get(key)
        if owner is not None:
            whose = f"the ledger has {owner} under it, and the manifest does not; find out who put it there"
            written_at = evidence.changed_at.get(owner)
        elif key in evidence.awaited:
            whose = "no run has recorded it; if a run was stopped, run the date again, which adopts it"
            written_at = listed.modified
        else:
            whose = "no manifest or ledger part names it; find out who put it there"
            written_at = None
        sentence = f"{key} ({listed.size:,} bytes) is in the bucket and {whose}"
        flag("object_stray", key, sentence, arriving=evidence.arriving.is_young(written_at))


def _no_longer_held(entry: ManifestEntry, result: DayResult) -> None:
    result.held -= 1
    result.bytes -= entry.size or 0


def _store_vouches(bucket: Bucket, entry: ManifestEntry) -> bool:
    if not bucket.is_amazon:
        return True
    facts = bucket.head(str(entry.key))
    if facts is None:
        raise KeyMissing(str(entry.key))
    try:
        return facts.checksum_sha256 in {None, as_base64(bytes.fromhex(str(entry.sha256)))}
    except ValueError:
        return facts.checksum_sha256 is None


def check_conflicts(bucket: Bucket, day: date, listed: Container[str], flag: Flag) -> None:
    """Verify that each object under `conflicts/` matches the hash in its name and belongs to a listed recording."""
    folder = f"{bucket.prefix}conflicts/date={day.isoformat()}/"
    for key, _ in bucket.list_keys(folder):
        where, _, name = key.rpartition("/")
        start, _, rest = name.partition("-")
        recording = f"{bucket.prefix}recordings/{where.removeprefix(f'{bucket.prefix}conflicts/')}/{rest}"
        is_named = recording in listed and len(start) == _HEX
        if not is_named or not bucket.hash_object(key).sha256.startswith(start):
            sentence = f"{key} is not a conflicting copy of a recording of {day}; find out who put it there"
            flag("object_stray", key, sentence)


def check_access_log(bucket: Bucket, day: date, threads: int, flag: Flag) -> None:
    """Read each attested entry of the UTC day and compare it; unattested ones came after the last sealing."""
    attested = attestations(bucket, ACCESS, day, flag)
    if not attested:
        return
    there = {key.removeprefix(bucket.prefix) for key, _ in bucket.list_keys(access_prefix(bucket.prefix, day))}

    def sha256(name: str) -> str | None:
        try:
            return bucket.hash_object(f"{bucket.prefix}{name}").sha256 if name in there else None
        except KeyMissing:
            return None

    for name, found in map_in_order(sha256, sorted(attested), threads=threads):
        key = f"{bucket.prefix}{name}"
        if found is None:
            sentence = f"{key}, an entry of the access log, was there when {day} was sealed and is gone; restore it"
            flag("access_entry_removed", key, sentence)
        elif {found} != {seen.sha256 for seen in attested[name]}:
            sentence = (
                f"{key}, an entry of the access log, was altered since {day} was sealed; restore its first version"
            )
            flag("access_entry_altered", key, sentence)


def find_strays(bucket: Bucket, settings: StorageSettings) -> Iterator[Discrepancy]:
    """Yield each object and folder outside the documented layout that belongs to no date: at the top of the prefix, and
    where only folders of dates should be. The ledger and the events may be in the bucket too.
    """
    urls = [url for url in (settings.ledger, settings.events_url) if url]
    own = [f"{url.removeprefix(f's3://{bucket.name}/').rstrip('/')}/" for url in urls]

    def belongs(key: str) -> bool:
        if key.removeprefix(bucket.prefix).startswith(_FOLDERS):
            return True
        is_parent = key.endswith("/") and any(folder.startswith(key) for folder in own)
        return is_parent or any(key.startswith(folder) for folder in own)

    strays = [key for key in bucket.list_folders(bucket.prefix) if key != bucket.prefix and not belongs(key)]
    for folder in (f"{bucket.prefix}{name}" for name in _DATED_FOLDERS):
        # A console that makes folders puts an object under the folder's own name.
        strays += [key for key in bucket.list_folders(folder) if key != folder and not date_of(key.split("/")[-2])]
    for key in strays:
        sentence = f"{key} is not part of the archive's documented layout; find out who put it there"
        yield Discrepancy("", "object_stray", key, sentence)
