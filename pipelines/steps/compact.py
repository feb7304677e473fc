"""The ledger's small parts of an old date merged, and the small ones removed when their grace is over.

Only what a witness saw is merged: so whatever is removed later had been proved to be what a run wrote. And only what is
replaced by a merged part that a witness saw too is removed. Killed between two of these steps, the next run goes on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from pipelines.archive.bucket import Bucket
from pipelines.archive.witness import Seen, read_witnesses, write_witness
from pipelines.ledger.compaction import Compaction
from pipelines.ledger.merged import is_merged
from pipelines.ledger.parts import LedgerParts


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done for a date. `parts_read`: what a reader has to open now; `unwitnessed`: parts that wait for their
    date to be sealed; `kept`: replaced parts that still lie there; `may_remove`: False once the rights refused it.
    """

    parts_before: int
    parts_read: int
    merged: int
    removed: int
    kept: int
    unwitnessed: int
    may_remove: bool


def compact_day(compaction: Compaction, parts: LedgerParts, bucket: Bucket, day: date, *, now: datetime) -> Compacted:
    """Merge what the date has of each kind of parts into one, and remove what was merged long enough ago.

    Raises:
        LedgerDamaged: a part is not what was written; nothing of its folder was merged.
    """
    before = _by_folder(parts, day)
    merged = unwitnessed = 0
    for folder, names in before.items():
        seen = _Witnessed(compaction, parts, bucket, kind=_kind(folder), day=day, now=now)
        unwitnessed += sum(not is_merged(name) and not seen.knows(name) for name in names)
        seen.add(filter(is_merged, names))
        made = compaction.merge(names, seen)
        if made is not None:
            merged += 1
            seen.add([made.name])
    removed, may_remove = 0, True
    for folder, names in _by_folder(parts, day).items():
        due = compaction.due_for_removal(
            names, _Witnessed(compaction, parts, bucket, kind=_kind(folder), day=day, now=now)
        )
        if due and may_remove:
            removal = compaction.remove(due)
            removed += removal.removed
            may_remove = not removal.refused
    after = _by_folder(parts, day)
    read = sum(len(compaction.read_by_all(names)) for names in after.values())
    return Compacted(
        parts_before=sum(map(len, before.values())),
        parts_read=read,
        merged=merged,
        removed=removed,
        kept=sum(map(len, after.values())) - read,
        unwitnessed=unwitnessed,
        may_remove=may_remove,
    )


class _Witnessed:
    """Whether a witness of this kind and day saw a part as it is: given its name and SHA-256."""

    def __init__(
        self, compaction: Compaction, parts: LedgerParts, bucket: Bucket, *, kind: str, day: date, now: datetime
    ) -> None:
        self._compaction = compaction
        self._parts = parts
        self._bucket = bucket
        self._kind = kind
        self._day = day
        self._now = now
        known, _ = read_witnesses(bucket, kind, day)  # a damaged witness is for the verification to tell
        self._known = {name: {one.sha256 for one in seen} for name, seen in known.items()}

    def __call__(self, name: str, sha256: str) -> bool:
        return self._known.get(name) == {sha256}

    def knows(self, name: str) -> bool:
        """Whether any witness names it."""
        return name in self._known

    def add(self, merged: Iterable[str]) -> None:
        """Give a witness to merged parts that have none, each once it is proven against all that it replaces.

        So one whose maker was killed gets it too, and one that somebody put there does not.
        """
        for name in merged:
            if not self.knows(name) and self._compaction.is_proven(name):
                body = self._parts.read(name)
                one = Seen(name, len(body), hashlib.sha256(body).hexdigest())
                write_witness(self._bucket, self._kind, self._day, [one], now=self._now)
                self._known[name] = {one.sha256}


def _by_folder(parts: LedgerParts, day: date) -> dict[str, list[str]]:
    """The names of the date's parts by the folder they lie in."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for names in parts.names(day).values():
        for name in names:
            found[name.rpartition("/")[0]].append(name)
    return dict(found)


def _kind(folder: str) -> str:
    return folder.partition("/")[0]
