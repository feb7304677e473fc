"""Integrity: what was sealed for a recording, and whether its bytes still match; nothing seals the table `calls`.

A recording is served only if the latest manifest of its date agrees with the row, so that an altered table cannot give
access to another recording under this call's rights.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from typing import Any, BinaryIO, Final

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import manifest_key, manifest_number, manifest_prefix
from pipelines.archive.proof.attestation import MANIFESTS, ObservedObject, read_attestations
from pipelines.archive.proof.manifest import Entry, ManifestHead, canonical_json, manifest_numbers, read_manifest
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash
from pipelines.archive.proof.signature import Verifier
from pipelines.ledger.states import Status
from pipelines.steps.calls.table import Row

_IDENTITY: Final = ("recording_id", "account_id", "uii", "key", "size", "sha256")
_DATES: Final = 8


@dataclass(frozen=True, slots=True)
class IntegrityResult:
    """The result of a check: `as_sealed`, a sentence, and the `sha256` of the bytes read (empty for none)."""

    as_sealed: bool
    sentence: str
    sha256: str = ""


class SealedRecordings:
    """A cache of what the manifests of recently used dates list, 100 bytes a recording; threads may share it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._sealed = lru_cache(_DATES)(self._read)

    def has(self, row: Row) -> bool:
        """Return whether the date's latest manifest has the row's recording; raise StoreDamaged if it was altered."""
        return _fingerprint(row) in self._latest(row["date"])[1]

    def problem(self, row: Row) -> str:
        """Return a sentence on why a row may differ from the seal of its date; empty if it cannot."""
        day, number = row["date"], row["manifest_number"]
        try:
            latest, _ = self._latest(day)
        except StoreDamaged:
            return f"The latest manifest of {day} is not what was sealed: verify this date."
        if (number, row["manifest_sha256"]) == (latest and latest.number, latest and latest.sha256):
            return ""
        if latest is not None and (number or 0) < latest.number:
            return (
                f"This page is older than manifest {latest.number} of {day}: materialize the asset calls for {day} in "
                "Dagster to update it."
            )
        return f"This page is from a manifest of {day} that is not the latest one stored: verify this date."

    def _latest(self, day: date) -> tuple[ManifestHead | None, frozenset[bytes]]:
        listed = self._bucket.list_keys(manifest_prefix(self._bucket.prefix, day))
        numbered = [(manifest_number(key) or 0, item.etag) for key, item in listed]
        number, etag = max(numbered, default=(0, ""))
        return self._sealed(day, number, etag) if number else (None, frozenset())

    def _read(self, day: date, number: int, _etag: str) -> tuple[ManifestHead, frozenset[bytes]]:
        """Return a manifest and its recordings; read it again if its ETag has changed."""
        held: set[bytes] = set()

        def keep(entry: Entry) -> None:
            if entry["status"] == Status.archived:
                held.add(_fingerprint(entry))

        head = read_manifest(self._bucket, day, number, keep)
        # Of the head only its number and hash are used: the rest may be of many megabytes.
        return replace(head, document={}), frozenset(held)


class SealedDate:
    """The entries of some recordings in the latest manifest of a date, and whether that manifest was sealed last.

    Attributes:
        manifest: the latest one; None if there is none.
        entries: of the recordings, by their ids: the index (from 0) of each in the manifest, and the entry.
        tree: the Merkle tree of all entries of the date; empty unless asked for.
    """

    def __init__(
        self,
        bucket: Bucket,
        verifier: Verifier | None,
        day: date,
        recording_ids: Collection[str],
        *,
        tree: bool = False,
    ) -> None:
        self.manifest: ManifestHead | None = None
        self._bucket, self._verifier, self._day = bucket, verifier, day
        self.entries: dict[str, tuple[int, Entry]] = {}
        self._problem = ""
        self._attested: Mapping[str, frozenset[ObservedObject]] = {}
        leaves: list[bytes] = []
        count = 0

        def keep(entry: Entry) -> None:
            nonlocal count
            if entry["recording_id"] in recording_ids:
                self.entries[entry["recording_id"]] = count, entry
            if tree:
                leaves.append(leaf_hash(canonical_json(entry).rstrip(b"\n")))
            count += 1

        try:
            numbers = manifest_numbers(bucket, day)
            if numbers:
                self.manifest = read_manifest(bucket, day, numbers[-1], keep)
                self._attested, damaged = read_attestations(bucket, MANIFESTS, day)
                problem = verifier.problem(bucket, self.manifest) if verifier else None
                if damaged:
                    self._problem = f"{damaged[0]}."
                elif problem:
                    self._problem = f"The signature of manifest {numbers[-1]} of {day} is not valid: {problem}."
            else:
                self._problem = f"{day} was never sealed, or its manifests were removed: there is nothing to compare."
        except KeyMissing:
            self._problem = f"The latest manifest of {day} is not signed: run the date again."
        except StoreDamaged as error:
            self._problem = f"{error}."
        self.tree = MerkleTree(leaves)

    def check(self, row: Row, into: BinaryIO | None = None) -> IntegrityResult:
        """Read a whole recording (`into` a file, if given), and compare it with its entry, row and date's seal."""

        def differs(sentence: str, sha256: str = "") -> IntegrityResult:
            return IntegrityResult(as_sealed=False, sentence=sentence, sha256=sha256)

        manifest, day = self.manifest, self._day
        if self._problem or manifest is None:
            return differs(self._problem)
        if altered := self._problem_of_row(manifest, row):
            return differs(altered)
        where = f"manifest {manifest.number} of {day}"
        _, entry = self.entries.get(row["recording_id"], (0, {"status": None}))
        if entry["status"] != Status.archived or not is_recording_key(self._bucket, entry["key"]):
            return differs(f"{where.capitalize()} does not hold this recording.")
        if _fingerprint(entry) != _fingerprint(row):
            return differs(
                f"The table of calls and {where} disagree about this recording: materialize calls for {day} again "
                "and find out who altered the table."
            )
        try:
            found = self._bucket.hash_object(entry["key"], into)
        except KeyMissing:
            return differs("The recording was sealed, but nothing is stored under its key now: restore the object.")
        if (found.size, found.sha256) != (entry["size"], entry["sha256"]):
            return differs(f"The bytes are not those sealed in {where}: verify this date.", found.sha256)
        signed = "and its signature is valid" if self._verifier else "whose signature was not checked: no key is set"
        said = f"The bytes are as sealed in {where}, {signed}."
        return IntegrityResult(as_sealed=True, sentence=said, sha256=found.sha256)

    def _problem_of_row(self, latest: ManifestHead, row: Row) -> str:
        """Return why the latest manifest in the bucket is not the last one sealed; empty if it is."""
        day, attestations = self._day, self._attested
        names = {name: manifest_number(f"{self._bucket.prefix}{name}") or 0 for name in attestations}
        sealed_last = max((*names.values(), row["manifest_number"] or 0))
        if sealed_last > latest.number:
            return f"Manifest {sealed_last} of {day} was sealed and is gone: restore it from an earlier version."
        attested = attestations.get(manifest_key("", day, latest.number), frozenset())
        known = {seen.sha256 for seen in attested}
        if row["manifest_number"] == latest.number:
            known.add(row["manifest_sha256"])
        if known - {latest.sha256}:
            return f"Manifest {latest.number} of {day} was altered after it was sealed: restore its first version."
        if not attested:
            return (
                f"No attestation names manifest {latest.number} of {day}: run the date again, and find out who wrote "
                "the manifest."
            )
        return ""


def check_recording(bucket: Bucket, verifier: Verifier | None, row: Row) -> IntegrityResult:
    """Read the whole recording of a row of the table `calls`, and compare it with the seal of its date."""
    return SealedDate(bucket, verifier, row["date"], {row["recording_id"]}).check(row)


def is_recording_key(bucket: Bucket, key: str | None) -> bool:
    """Return whether a key can be a recording's: an altered table might name another object."""
    return (
        key is not None
        and key.startswith(f"{bucket.prefix}recordings/date=")
        and not {"", ".", ".."} & set(key.removeprefix(bucket.prefix).split("/"))
    )


def _fingerprint(recording: Mapping[str, Any]) -> bytes:
    said = repr([recording[name] for name in _IDENTITY])
    return hashlib.blake2b(said.encode("utf-8", "backslashreplace"), digest_size=16).digest()
