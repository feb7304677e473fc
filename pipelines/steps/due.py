"""What a run has to attempt, in which order, and under which keys: lines of a table, however many they are.

A date may have a hundred thousand recordings to be fetched; of them a few thousand are objects at a time. Not for how
an attempt is made (`attempt.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.archive import keys
from pipelines.ledger.schema import states_from, states_table, values
from pipelines.ledger.states import RecordingState, Status, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.attempt import file_path
from pipelines.steps.known import Known, Recordings
from pipelines.steps.links import LINK_REFUSED, AllowedLinks, judged

pc: Any = pyarrow.compute  # as in in_bulk.py
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

    def parts(self, size: int) -> Iterator[Due]:
        """The same in parts of at most so many."""
        return (self.part(start, size) for start in range(0, len(self), size))

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """What they have in this column."""
        return self.lines[name].take(self.order)

    def states(self) -> list[RecordingState]:
        """They as objects."""
        return states_from(self.lines.take(self.order))


@dataclass(frozen=True, slots=True)
class Planned:
    """Recordings to be attempted, in order; `keys` has what each is to be stored under."""

    due: Due
    keys: pa.ChunkedArray[Any]

    def __len__(self) -> int:
        return len(self.due)

    def days(self) -> list[date]:
        """The dates that they are stored under."""
        return sorted(values(pc.unique(self.due.column("date"))))

    def batches(self, size: int) -> Iterator[Planned]:
        """The same in parts of at most so many."""
        for start in range(0, len(self), size):
            yield Planned(self.due.part(start, size), self.keys.slice(start, size))

    def __iter__(self) -> Iterator[tuple[RecordingState, str]]:
        for part in self.batches(_AT_ONCE):
            yield from zip(part.due.states(), values(part.keys), strict=True)


def recordings_of(ledger: Ledger, day: date, linked: Iterable[date]) -> Recordings:
    """Those that concern a run of `day`: dated `day`, and found by its pull where `linked` dates hold them.

    A call over midnight is found by one day's pull and stored under the next.
    """
    return Known(ledger.current({day, *linked})).concerning(day)


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


def planned(prefix: str, due: Due, known: Recordings) -> Planned:
    """A key for each due recording. Two recordings of one file name never get the same key."""
    plain = pa.chunked_array(
        ([_plain_key(prefix, one) for one in part.states()] for part in due.parts(_AT_ONCE)), pa.string()
    )
    taken: dict[str, str] = {}
    for lines in (known.held, known.rest):
        if lines["key"].null_count < lines.num_rows:
            owned = lines.filter(pc.is_in(lines["key"], plain))
            taken |= zip(values(owned["key"]), values(owned["recording_id"]), strict=True)
    counted = pc.value_counts(plain)
    twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    shared = pa.array({*taken, *twice.to_pylist()}, pa.string())
    if not len(shared):
        return Planned(due, plain)
    final: list[str] = values(plain)
    places = pc.indices_nonzero(pc.is_in(plain, shared)).to_pylist()
    ids: list[str] = values(due.column("recording_id"))
    for place in sorted(places, key=ids.__getitem__):
        if taken.setdefault(final[place], ids[place]) != ids[place]:
            final[place] = keys.apart_key(final[place], ids[place])
    return Planned(due, pa.chunked_array([final], pa.string()))


def _plain_key(prefix: str, state: RecordingState) -> str:
    return keys.recording_key(prefix, state.date, state.account_id, state.layout, file_path(state))
