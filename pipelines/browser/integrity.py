"""Whether a recording's bytes are as they were sealed: the object is read now and compared with its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.proof.manifest import Entry, manifest_numbers, read_manifest
from pipelines.archive.proof.signature import Verifier


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: `as_sealed`, in a sentence, when; `sha256` of the bytes that were read, empty for none."""

    as_sealed: bool
    sentence: str
    at: datetime
    sha256: str = ""


def check_recording(
    bucket: Bucket, verifier: Verifier | None, day: date, recording_id: str, *, now: datetime
) -> Checked:
    """Read a recording of a date through and compare it with the latest manifest of the date.

    Raises:
        StorageUnavailable, StorageRefused: the bucket does not answer.
    """
    try:
        numbers = manifest_numbers(bucket, day)
        if not numbers:
            return Checked(as_sealed=False, sentence=f"{day} was never sealed, so there is nothing to compare.", at=now)
        entries: dict[str, Entry] = {}

        def keep(entry: Entry) -> None:
            if entry["recording_id"] == recording_id:
                entries[recording_id] = entry

        manifest = read_manifest(bucket, day, numbers[-1], keep)
        where = f"manifest {manifest.number} of {day}"
        entry = entries.get(recording_id)
        if entry is None or entry["sha256"] is None or not is_recording_key(bucket, entry["key"]):
            return Checked(as_sealed=False, sentence=f"{where.capitalize()} does not hold this recording.", at=now)
        problem = verifier.problem(bucket, manifest.key, manifest.sha256) if verifier else None
        if problem is not None:
            return Checked(as_sealed=False, sentence=f"The signature of {where} is not good: {problem}.", at=now)
        found = bucket.hash_object(entry["key"])
    except KeyMissing:
        return Checked(as_sealed=False, sentence="The recording was sealed, and nothing is stored there now.", at=now)
    except StoreDamaged as error:
        return Checked(as_sealed=False, sentence=f"{error}.", at=now)
    if (found.size, found.sha256) != (entry["size"], entry["sha256"]):
        return Checked(as_sealed=False, sentence=f"The bytes are not those of {where}.", at=now, sha256=found.sha256)
    signed = ", signed" if verifier else ""
    return Checked(as_sealed=True, sentence=f"Bytes are as sealed in {where}{signed}.", at=now, sha256=found.sha256)


def is_recording_key(bucket: Bucket, key: str | None) -> bool:
    """Whether a key is one under which recordings are stored: a table may have been altered to name another object."""
    return (
        key is not None
        and key.startswith(f"{bucket.prefix}recordings/date=")
        and not {"", ".", ".."} & set(key.removeprefix(bucket.prefix).split("/"))
    )
