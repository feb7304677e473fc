"""Attestations: small lists of what was stored, kept apart from it, so that nothing can be removed or edited unnoticed.

The chain of manifests cannot say that its own last link is gone, and a ledger part that was removed leaves no hole. So
each sealing of a day also writes down, for every manifest and ledger part of that day that no attestation names yet,
its name, size and SHA-256, create-only, under `witnesses/<kind>/date=…/<ulid>.json` (canonical JSON: `format`, `kind`,
`date`, `written_at`, `things`). The kinds are `manifests` and the ledger's folders. An object must be stored under the
name that an attestation gives, as it was then. One that none names came later, or its attestation was removed. Two
writers at once may both name an object, which harms nothing.
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


@dataclass(frozen=True, slots=True, order=True)
class ObservedObject:
    """An object as it was: its name (without ARCHIVE_PREFIX or LEDGER_URL), bytes, and their SHA-256 in hex."""

    name: str
    size: int
    sha256: str


def write_attestation(
    bucket: Bucket, kind: str, day: date, objects: Iterable[ObservedObject], *, now: datetime
) -> str | None:
    """Attest objects of a day that no attestation names yet, and return the new one's key; None without objects.

    `kind` is `manifests`, or a folder of the ledger; `now` is aware.
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
    """Return what the attestations of a kind and day say, by name (several where they disagree), and a sentence for
    each that is damaged.
    """
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
    return [ObservedObject(str(it["name"]), int(it["size"]), str(it["sha256"])) for it in document["things"]]
