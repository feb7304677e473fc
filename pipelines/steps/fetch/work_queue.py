"""The work queue of a date: its due recordings in order, each with the key under which to store it.

A final state is due again on request (`reopen`), or when the settings allow a link that they refused (`work_queue`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from pipelines.archive import keys
from pipelines.errors import ExpectedError
from pipelines.ledger.schema import states_by_id, states_from, table_of, values
from pipelines.ledger.states import FINAL, RecordingState, Status, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.link.allowed_links import LINK_REFUSED, AllowedLinks, is_segment
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable, recordings_of

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take
_AT_ONCE = 1000
_ORDER = [("attempts", "ascending"), ("date", "ascending"), ("recording_id", "ascending")]


class WorkItem(NamedTuple):
    """A due recording and the key under which to store it."""

    state: RecordingState
    key: str


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """The due recordings among a date's `recordings`; iterating makes a `WorkItem` for each, a thousand at a time.

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


def reopen(
    ledger: Ledger,
    day: date,
    linked: Iterable[date],
    recording_ids: Sequence[str],
    *,
    all_final: bool,
    allowed: AllowedLinks,
    now: datetime,
    run_id: str,
) -> tuple[int, int]:
    """Write a new epoch for each final state (`all_final`) and each named recording that concerns a run of `day`.

    Return how many are in a new epoch, and how many are not because their link is still not allowed. A named recording
    may have any state. Raises ExpectedError, before anything is written, if an id is not known.
    """
    if not (all_final or recording_ids):
        return 0, 0
    recordings = recordings_of(ledger, day, linked)
    named = LedgerSnapshot(recordings.lines).states(recording_ids)
    if unknown := sorted(set(recording_ids) - named.keys()):
        raise ExpectedError(
            f"retry_recording_ids names {', '.join(map(repr, unknown))}, which the ledger does not know "
            f"on {day}: copy the ids from the sample of the check every_recording_is_accounted_for, and run the date "
            "they are shown under. Nothing was tried."
        )
    states = named | (states_by_id(recordings.final()) if all_final else {})
    lines = []
    for state in states.values():
        again = reopened(state, "retry_requested", now, run_id)
        if state.status not in FINAL or allowed.refusal(again) is None:
            lines.append(again)
    ledger.append_states(lines)
    return len(lines), len(states) - len(lines)


def work_queue(
    recordings: RecordingsTable, allowed: AllowedLinks, prefix: str, *, now: datetime, run_id: str
) -> WorkQueue:
    """Return the recordings to attempt now. A link that a setting refused becomes due if that setting has changed.

    The least tried come first, then the oldest: recordings that always fail must not delay those never tried. Two
    recordings with the same file name never get the same key.
    """
    rest = recordings.rest
    refused = pc.and_(pc.equal(rest["status"], str(Status.rejected)), pc.starts_with(rest["reason"], LINK_REFUSED))
    again = [reopened(state, "link_allowed_now", now, run_id) for state in states_from(rest.filter(refused))]
    allowed_now = [state for state in again if allowed.refusal(state) is None]
    rows = pa.concat_tables([rest, table_of(RecordingState, allowed_now)])
    due = pc.and_(pc.equal(rows["status"], str(Status.pending)), pc.less_equal(rows["next_attempt_at"], now))
    order = pc.sort_indices(rows.select([name for name, _ in _ORDER]), sort_keys=_ORDER)
    order = order.filter(due.take(order).combine_chunks())
    return WorkQueue(recordings, rows, order, _keys(prefix, recordings, rows, order))


def _keys(prefix: str, recordings: RecordingsTable, rows: pa.Table, order: pa.Array[Any]) -> list[str]:
    """Return a key for each row of `order`. If several share a plain key, it goes to the recording that has it in the
    ledger, or else to the first by id; the others get other keys.
    """
    ids: list[str] = values(rows["recording_id"].take(order))
    found = [plain_key(prefix, state) for state in _states(rows, order)]
    lines = recordings.lines
    lines = lines.filter(pc.is_in(lines["key"], value_set=pa.array(found, pa.string())))
    owners = dict(zip(values(lines["key"]), values(lines["recording_id"]), strict=True))
    for index, recording_id in sorted(enumerate(ids), key=itemgetter(1)):
        if owners.setdefault(found[index], recording_id) != recording_id:
            found[index] = keys.apart_key(found[index], recording_id)
    return found


def _states(rows: pa.Table, order: pa.Array[Any]) -> Iterator[RecordingState]:
    for start in range(0, len(order), _AT_ONCE):
        yield from states_from(rows.take(order.slice(start, _AT_ONCE)))


def plain_key(prefix: str, state: RecordingState) -> str:
    """Return the key for a recording whose file name is unique."""
    path = state.recording_id.removeprefix(f"{state.account_id}/")
    path = f"{path.replace('/', '_')}.wav" if is_segment(state.source, state.link) else path
    return keys.recording_key(prefix, state.date, state.account_id, state.layout, path)


def possible_keys(prefix: str, item: WorkItem) -> set[str]:
    """Return the keys that an earlier run, which may have known fewer recordings, may have used for the item."""
    taken = {item.key, plain_key(prefix, item.state)}
    return taken | {keys.apart_key(key, item.state.recording_id) for key in taken}
