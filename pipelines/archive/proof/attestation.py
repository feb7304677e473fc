"""Attestations: small lists of what was stored, kept apart from it, so that no removal or edit goes unnoticed.

The chain of manifests cannot show that its last link is gone, and a removed ledger part leaves no hole. So each sealing
of a day also records the name, size and SHA-256 of every manifest and ledger part of that day that no attestation names
yet, create-only, as canonical JSON under `witnesses/`. An object that an attestation names must still be stored under
that name, unchanged. An object that none names came later, or its attestation was removed. Several may name one object.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import attestation_prefix
from pipelines.archive.proof.manifest import canonical_json

FORMAT = "ringcx-archive/witness/1"
MANIFESTS, ACCESS = "manifests", "access"
"""The kinds of attestation that list manifests, and the access log of a UTC day; others are the ledger's folders."""


@dataclass(frozen=True, slots=True, order=True)
class ObservedObject:
    """An object as it was seen: its name (without ARCHIVE_PREFIX or LEDGER_URL), size in bytes, and SHA-256 in hex."""

    name: str
    size: int
    sha256: str


def write_attestation(
    bucket: Bucket, kind: str, day: date, objects: Iterable[ObservedObject], *, now: datetime
) -> str | None:
    """Attest objects of a day that no attestation names yet; return the attestation's key, or None without objects.

    `kind` is `manifests` or a folder of the ledger; `now` is aware.
    """
    listed = [asdict(observed) for observed in sorted(set(objects))]
    if not listed:
        return None
    document = {
        "format": FORMAT,
        "kind": kind,
        "date": day.isoformat(),
        "written_at": now.astimezone(UTC).isoformat(timespec="microseconds"),
        "things": listed,
    }
    key = f"{attestation_prefix(bucket.prefix, kind, day)}{ULID.from_datetime(now)}.json"
    bucket.put_new(key, canonical_json(document), content_type="application/json")
    return key


def read_attestations(
    bucket: Bucket, kind: str, day: date
) -> tuple[Mapping[str, frozenset[ObservedObject]], tuple[str, ...]]:
    """Return what a day's attestations say, by object name, and a sentence for each damaged attestation."""
    observed: defaultdict[str, set[ObservedObject]] = defaultdict(set)
    damaged: list[str] = []
    for key, _ in bucket.list_keys(attestation_prefix(bucket.prefix, kind, day)):
        try:
            for found in _parse(bucket.get_bytes(key), kind, day):
                observed[found.name].add(found)
        except (ValueError, KeyError, TypeError, RecursionError, KeyMissing):
            damaged.append(
                f"{key} in the bucket {bucket.name} is a damaged or altered attestation; restore its first version"
            )
    return {name: frozenset(found) for name, found in observed.items()}, tuple(damaged)


def _parse(body: bytes, kind: str, day: date) -> list[ObservedObject]:
    document = json.loads(body)
    named = (document["format"], document["kind"], document["date"])
    if (
        named != (FORMAT, kind, day.isoformat())
        or not isinstance(document["written_at"], str)
        or canonical_json(document) != body
    ):
        raise ValueError("not an attestation of that kind and day")
    return [ObservedObject(str(item["name"]), int(item["size"]), str(item["sha256"])) for item in document["things"]]
