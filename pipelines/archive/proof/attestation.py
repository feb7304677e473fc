"""Witnesses: small lists of what was there, kept apart from it, so that nothing can be removed or edited unnoticed.

The chain of manifests cannot say that its own last link is gone, and a ledger part that was removed leaves no hole. So
each sealing of a day also writes down, for every manifest and ledger part of that day that no witness names yet, its
name, size and SHA-256, create-only, under `witnesses/<kind>/date=…/<ulid>.json` (canonical JSON: `format`, `kind`,
`date`, `written_at`, `things`). The kinds are `manifests` and the ledger's folders. A thing must lie where a witness
saw it, as it was then; a thing that no witness saw came later, or its witness was removed.

Pure lists: what is listed is given. Two writers at once may both name a thing, which harms nothing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import witness_prefix
from pipelines.archive.proof.manifest import canonical_json

FORMAT = "ringcx-archive/witness/1"


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """One thing as it was: its name (without ARCHIVE_PREFIX or LEDGER_URL), bytes, and their SHA-256 in hex."""

    name: str
    size: int
    sha256: str


def write_witness(bucket: Bucket, kind: str, day: date, things: Iterable[Seen], *, now: datetime) -> str | None:
    """Write down things of a day that no witness names yet, and return the key; nothing for none.

    `kind` is `manifests`, or a folder of the ledger; `now` is aware.
    """
    listed = sorted(set(things))
    if not listed:
        return None
    body = canonical_json(
        {
            "format": FORMAT,
            "kind": kind,
            "date": day.isoformat(),
            "written_at": now.astimezone(UTC).isoformat(timespec="microseconds"),
            "things": [asdict(one) for one in listed],
        }
    )
    key = f"{witness_prefix(bucket.prefix, kind, day)}{ULID.from_datetime(now)}.json"
    bucket.put_new(key, body, content_type="application/json")
    return key


def read_witnesses(bucket: Bucket, kind: str, day: date) -> tuple[Mapping[str, frozenset[Seen]], tuple[str, ...]]:
    """What the witnesses of a kind and day saw, by name (more than one where they disagree), and a sentence for each
    witness that is damaged.
    """
    seen: dict[str, set[Seen]] = {}
    problems: list[str] = []
    for key, _ in bucket.list_keys(witness_prefix(bucket.prefix, kind, day)):
        try:
            things = _read(bucket, key, kind, day)
        except StoreDamaged as error:
            problems.append(str(error))
            continue
        for one in things:
            seen.setdefault(one.name, set()).add(one)
    return {name: frozenset(found) for name, found in seen.items()}, tuple(problems)


def _read(bucket: Bucket, key: str, kind: str, day: date) -> list[Seen]:
    try:
        body = bucket.get_bytes(key)
        document = json.loads(body)
        whole = (
            (document["format"], document["kind"], document["date"]) == (FORMAT, kind, day.isoformat())
            and isinstance(document["written_at"], str)
            and canonical_json(document) == body
        )
        things = [Seen(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in document["things"]]
    except (ValueError, KeyError, TypeError, RecursionError, KeyMissing):
        whole, things = False, []
    if not whole:
        raise StoreDamaged(
            f"{key} in the bucket {bucket.name} is no witness as it was written; restore its first version"
        )
    return things
