"""The work queue of a date: its due recordings in their order, each with the key that it is stored under."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from pipelines.archive import keys
from pipelines.ledger.schema import states_from, table_of, values
from pipelines.ledger.states import RecordingState, Status, reopened
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.interactions import is_segment_link
from pipelines.steps.link.recordings_table import RecordingsTable, recordings_of
from pipelines.steps.link.register_links import LINK_REFUSED, AllowedLinks, judged, rejoin
from pipelines.steps.link.rows import INTERACTIONS

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take
_AT_ONCE = 1000
_ORDER = [("attempts", "ascending"), ("date", "ascending"), ("recording_id", "ascending")]


class WorkItem(NamedTuple):
    """A due recording and the key to store it under."""

    state: RecordingState
    key: str


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """The due ones of a date's `recordings`; yields a `WorkItem` for each, a thousand at a time.

    `order` holds indices into `rows` (STATE_SCHEMA), since a copy of most rows is large. `keys` is parallel to it.
    """

    recordings: RecordingsTable
    rows: pa.Table
    order: pa.Array[Any]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[WorkItem]:
        return map(WorkItem, _states(self.rows, self.order), self.keys)

    def dates(self) -> list[date]:
        """Return the dates under which the due recordings are stored, sorted."""
        return sorted(values(pc.unique(self.rows["date"].take(self.order))))


def matched_recordings(
    ledger: Ledger, day: date, linked: Iterable[date], *, now: datetime, run_id: str
) -> RecordingsTable:
    """Match both sources again and return the recordings that concern a run of `day`.

    A recording that became final under one id becomes due under its other one; a recording that is held under one id is
    not fetched again under the other.
    """
    recordings = recordings_of(ledger, day, linked)
    if rejoin(ledger, recordings, day, now=now, run_id=run_id):
        recordings = recordings_of(ledger, day, linked)
    return recordings


def work_queue(
    recordings: RecordingsTable, allowed: AllowedLinks, prefix: str, *, now: datetime, run_id: str
) -> WorkQueue:
    """Return the recordings to attempt now. A link refused by a setting that has changed since is due again.

    Least tried first, then oldest: recordings that fail for ever must not hold up those never tried. Two recordings of
    one file name never get the same key.
    """
    rest = recordings.rest
    refused = pc.and_(pc.equal(rest["status"], str(Status.rejected)), pc.starts_with(rest["reason"], LINK_REFUSED))
    again = [reopened(state, "link_allowed_now", now, run_id) for state in states_from(rest.filter(refused))]
    allowed_now = [state for state in again if judged(state, allowed) is state]
    rows = pa.concat_tables([rest, table_of(RecordingState, allowed_now)])
    due = pc.and_(pc.equal(rows["status"], str(Status.pending)), pc.less_equal(rows["next_attempt_at"], now))
    order = pc.sort_indices(rows.select([name for name, _ in _ORDER]), sort_keys=_ORDER)
    order = order.filter(due.take(order).combine_chunks())
    return WorkQueue(recordings, rows, order, _keys(prefix, recordings, rows, order))


def _keys(prefix: str, recordings: RecordingsTable, rows: pa.Table, order: pa.Array[Any]) -> list[str]:
    """Return a key for each row of `order`. Of several with one plain key, the recording that has it in the ledger, or
    else the first by id, gets it; the others get keys next to it.
    """
    ids: list[str] = values(rows["recording_id"].take(order))
    found = [plain_key(prefix, state) for state in _states(rows, order)]
    owners = recordings.owners(pa.chunked_array([found], pa.string()))
    for index in sorted(range(len(ids)), key=ids.__getitem__):
        if owners.setdefault(found[index], ids[index]) != ids[index]:
            found[index] = keys.apart_key(found[index], ids[index])
    return found


def _states(rows: pa.Table, order: pa.Array[Any]) -> Iterator[RecordingState]:
    for start in range(0, len(order), _AT_ONCE):
        yield from states_from(rows.take(order.slice(start, _AT_ONCE)))


def plain_key(prefix: str, state: RecordingState) -> str:
    """Return the key of a recording whose file name no other recording has."""
    path = state.recording_id.removeprefix(f"{state.account_id}/")
    path = f"{path.replace('/', '_')}.wav" if is_segment(state.source, state.link) else path
    return keys.recording_key(prefix, state.date, state.account_id, state.layout, path)


def possible_keys(prefix: str, item: WorkItem) -> set[str]:
    """Return where an earlier run, which may have known fewer recordings, may have stored the recording."""
    taken = {item.key, plain_key(prefix, item.state)}
    return taken | {keys.apart_key(key, item.state.recording_id) for key in taken}


def is_segment(source: str, link: str) -> bool:
    """Return whether a recording is identified by dialog and segment, as the current API knows it."""
    return source == INTERACTIONS and is_segment_link(link)
