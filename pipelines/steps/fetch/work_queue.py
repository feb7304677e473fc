"""What a run has to attempt, in which order, and under which keys: lines of a table, however many they are.

A date may have a hundred thousand recordings to be fetched; of them a few thousand are objects at a time. Not for how
an attempt is made (`attempt.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from pipelines.archive import keys
from pipelines.ledger.schema import states_from, states_table, values
from pipelines.ledger.states import FINAL, RecordingState, Status, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.fetch.attempt import file_path
from pipelines.steps.link.recordings_table import Recordings, recordings_of
from pipelines.steps.link.register_links import LINK_REFUSED, AllowedLinks, judged, rejoin

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take
_AT_ONCE = 1000
_ORDER = [("attempts", "ascending"), ("date", "ascending"), ("recording_id", "ascending")]


@dataclass(frozen=True, slots=True)
class Due:
    """Recordings to be attempted: `order` says which of the `lines` (STATE_SCHEMA) and in which order.

    Places and no lines of their own: what is due of a date is mostly all of it, and no small copy.
    """

    lines: pa.Table
    order: pa.Array[Any]

    def __len__(self) -> int:
        return len(self.order)

    def part(self, start: int, most: int) -> Due:
        """The same from `start` on, at most so many."""
        return Due(self.lines, self.order.slice(start, most))

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """What they have in this column."""
        return self.lines[name].take(self.order)

    def states(self) -> list[RecordingState]:
        """Return the due recordings as `RecordingState` objects."""
        return states_from(self.lines.take(self.order))


@dataclass(frozen=True, slots=True)
class Planned:
    """Recordings to be attempted, in order; `keys` has what each is to be stored under.

    `taken`: the keys that more than one would have had, and all but one of them have not.
    """

    due: Due
    keys: pa.ChunkedArray[Any]
    taken: Collection[str] = ()

    def __len__(self) -> int:
        return len(self.due)

    def days(self) -> list[date]:
        """The dates that they are stored under."""
        return sorted(values(pc.unique(self.due.column("date"))))

    def among(self, listed: Iterable[str]) -> frozenset[str]:
        """What one of them may have been put under by an earlier run, of the keys that are `listed` in the archive.

        A run that knew fewer recordings of a file name, or found its key taken, put it elsewhere than this one would.
        """
        ours: set[str] = set()
        found = []
        for key in listed:
            ours = ours or {*values(self.keys), *self.taken}
            if not ours.isdisjoint(keys.kept_apart(key)):
                found.append(key)
        return frozenset(found)

    def __iter__(self) -> Iterator[tuple[RecordingState, str]]:
        for start in range(0, len(self), _AT_ONCE):
            part = self.keys.slice(start, _AT_ONCE)
            yield from zip(self.due.part(start, _AT_ONCE).states(), values(part), strict=True)


class Work(NamedTuple):
    """What is to be attempted of a date, and what is known of its recordings."""

    due: Planned
    known: Recordings


def work_of(
    ledger: Ledger, day: date, linked: Iterable[date], prefix: str, allowed: AllowedLinks, *, now: datetime, run_id: str
) -> Work:
    """Return what a run of `day` has to attempt, after matching both sources again (`rejoin`)."""
    known = recordings_of(ledger, day, linked)
    if rejoin(ledger, known, day, now=now, run_id=run_id):
        known = recordings_of(ledger, day, linked)
    return Work(planned(prefix, due_of(known, allowed, now=now, run_id=run_id), known.owners), known)


def standing_after(ledger: Ledger, day: date, linked: Iterable[date], *, now: datetime, run_id: str) -> Recordings:
    """Read how the recordings stand after a run, and match both sources once more: a recording that became final under
    one id is due under its other one; one that is held is not fetched again under the other.
    """
    known = recordings_of(ledger, day, linked)
    if known.by_status().keys() & FINAL and rejoin(ledger, known, day, now=now, run_id=run_id):
        known = recordings_of(ledger, day, linked)
    return known


def due_of(known: Recordings, allowed: AllowedLinks, *, now: datetime, run_id: str) -> Due:
    """What is to be attempted now. A link refused by a setting that has changed since is due again.

    Least tried first, then oldest: recordings that fail for ever must not stand before those never tried.
    """
    rest = known.rest
    refused = pc.and_(pc.equal(rest["status"], str(Status.rejected)), pc.starts_with(rest["reason"], LINK_REFUSED))
    again = [reopened(one, "link_allowed_now", now, run_id) for one in states_from(rest.filter(refused))]
    lines = pa.concat_tables([rest, states_table([one for one in again if judged(one, allowed) is one])])
    due = pc.and_(pc.equal(lines["status"], str(Status.pending)), pc.less_equal(lines["next_attempt_at"], now))
    order = pc.sort_indices(lines.select([name for name, _ in _ORDER]), sort_keys=_ORDER)
    return Due(lines, order.filter(due.take(order).combine_chunks()))


def planned(prefix: str, due: Due, owners: Callable[[pa.ChunkedArray[Any]], dict[str, str]]) -> Planned:
    """A key for each due recording. Two recordings of one file name never get the same key.

    `owners` says which of some keys a recording has already, each with its id.
    """
    parts = (due.part(start, _AT_ONCE) for start in range(0, len(due), _AT_ONCE))
    plain = pa.chunked_array(([_plain_key(prefix, one) for one in part.states()] for part in parts), pa.string())
    taken = owners(plain)
    counted = pc.value_counts(plain)
    twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    crowded = {*taken, *map(str, twice.to_pylist())}
    if not crowded:
        return Planned(due, plain)
    final: list[str] = values(plain)
    places = pc.indices_nonzero(pc.is_in(plain, pa.array(crowded, pa.string()))).to_pylist()
    ids: list[str] = values(due.column("recording_id"))
    for place in sorted(places, key=ids.__getitem__):
        if taken.setdefault(final[place], ids[place]) != ids[place]:
            final[place] = keys.apart_key(final[place], ids[place])
    return Planned(due, pa.chunked_array([final], pa.string()), crowded)


def _plain_key(prefix: str, state: RecordingState) -> str:
    return keys.recording_key(prefix, state.date, state.account_id, state.layout, file_path(state))
