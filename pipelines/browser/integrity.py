"""What was sealed of a recording, and whether its bytes still are: rows of the table `calls` are sealed by nothing.

A recording is served only if the latest manifest of its date seals it as the row has it, so that an altered table
cannot give away another recording under this call's rights.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import manifest_key, manifest_number, manifest_prefix
from pipelines.archive.proof.attestation import read_attestations
from pipelines.archive.proof.manifest import Entry, ManifestHead, manifest_numbers, read_manifest
from pipelines.archive.proof.signature import Verifier
from pipelines.browser.people import Row
from pipelines.ledger.states import Status
from pipelines.steps.seal.manifest import MANIFESTS

_IDENTITY: Final = ("recording_id", "account_id", "uii", "key", "size", "sha256")
_DATES: Final = 8


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: `as_sealed`, in a sentence, when; `sha256` of the bytes that were read, empty for none."""

    as_sealed: bool
    sentence: str
    at: datetime
    sha256: str = ""


class SealedRecordings:
    """Knows which recordings the latest manifests hold, of the dates that were asked for last: 100 bytes for each.
    Safe to share between threads.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._dates: OrderedDict[tuple[str, str], frozenset[bytes]] = OrderedDict()

    def has(self, day: date, recording: Mapping[str, Any]) -> bool:
        """Whether the latest manifest of a date holds a recording of this id, call, key, size and SHA-256.

        Raises:
            StoreDamaged: the manifest is not what was sealed.
        """
        listed = self._bucket.list_keys(manifest_prefix(self._bucket.prefix, day))
        found = [(number, key, item.etag) for key, item in listed if (number := manifest_number(key)) is not None]
        if not found:
            return False
        number, key, etag = max(found)
        with self._lock:
            held = self._dates.get((key, etag))
        if held is None:
            held = self._read(day, number)
        with self._lock:
            self._dates[key, etag] = held
            self._dates.move_to_end((key, etag))
            if len(self._dates) > _DATES:
                self._dates.popitem(last=False)
        return _fingerprint(recording) in held

    def _read(self, day: date, number: int) -> frozenset[bytes]:
        held: set[bytes] = set()

        def keep(entry: Entry) -> None:
            if entry["status"] == Status.archived:
                held.add(_fingerprint(entry))

        read_manifest(self._bucket, day, number, keep)
        return frozenset(held)


def check_recording(bucket: Bucket, verifier: Verifier | None, row: Row, *, now: datetime) -> Checked:
    """Read the recording of a row of the table `calls` through, and compare it with the latest manifest of its date,
    and that manifest with its attestation and its signature.

    Raises:
        StorageUnavailable, StorageRefused: the bucket does not answer.
    """

    def differs(sentence: str, sha256: str = "") -> Checked:
        return Checked(as_sealed=False, sentence=sentence, at=now, sha256=sha256)

    day = row["date"]
    try:
        numbers = manifest_numbers(bucket, day)
        if not numbers:
            return differs(f"{day} was never sealed, or its manifests were removed: there is nothing to compare.")
        entries: list[Entry] = []

        def keep(entry: Entry) -> None:
            if entry["recording_id"] == row["recording_id"]:
                entries.append(entry)

        manifest = read_manifest(bucket, day, numbers[-1], keep)
        where = f"manifest {manifest.number} of {day}"
        if altered := _problem(bucket, day, manifest, row):
            return differs(altered)
        if not entries or entries[0]["sha256"] is None or not is_recording_key(bucket, entries[0]["key"]):
            return differs(f"{where.capitalize()} does not hold this recording.")
        entry = entries[0]
        if _fingerprint(entry) != _fingerprint(row):
            return differs(
                f"The table of calls and {where} disagree about this recording: materialize calls for {day} again "
                "and find out who altered the table."
            )
        problem = verifier.problem(bucket, manifest) if verifier else None
        if problem is not None:
            return differs(f"The signature of {where} is not good: {problem}.")
        found = bucket.hash_object(entry["key"])
    except KeyMissing:
        return differs("The recording was sealed, and nothing is stored there now.")
    except StoreDamaged as error:
        return differs(f"{error}.")
    if (found.size, found.sha256) != (entry["size"], entry["sha256"]):
        return differs(f"The bytes are not those of {where}.", found.sha256)
    signed = "and its signature is good" if verifier else "whose signature was not checked: no key is set"
    return Checked(as_sealed=True, sentence=f"Bytes are as sealed in {where}, {signed}.", at=now, sha256=found.sha256)


def is_recording_key(bucket: Bucket, key: str | None) -> bool:
    """Whether a key is one under which recordings are stored: a table may have been altered to name another object."""
    return (
        key is not None
        and key.startswith(f"{bucket.prefix}recordings/date=")
        and not {"", ".", ".."} & set(key.removeprefix(bucket.prefix).split("/"))
    )


def _problem(bucket: Bucket, day: date, latest: ManifestHead, row: Row) -> str:
    """Return why the latest manifest that is there is not the one that was sealed last; empty if it is."""
    attested, damaged = read_attestations(bucket, MANIFESTS, day)
    if damaged:
        return f"{damaged[0]}."
    names = {name: manifest_number(f"{bucket.prefix}{name}") or 0 for name in attested}
    sealed_last = max((*names.values(), row["manifest_number"] or 0))
    if sealed_last > latest.number:
        return f"Manifest {sealed_last} of {day} was sealed and is gone: restore it from an earlier version."
    witnessed = attested.get(manifest_key("", day, latest.number), frozenset())
    known = {seen.sha256 for seen in witnessed}
    if row["manifest_number"] == latest.number:
        known.add(row["manifest_sha256"])
    if known - {latest.sha256}:
        return f"Manifest {latest.number} of {day} was altered after it was sealed: restore its first version."
    if not witnessed:
        return f"No attestation names manifest {latest.number} of {day}: run the date again, and find out who wrote it."
    return ""


def _fingerprint(recording: Mapping[str, Any]) -> bytes:
    said = repr([recording[name] for name in _IDENTITY])
    return hashlib.blake2b(said.encode("utf-8", "backslashreplace"), digest_size=16).digest()
