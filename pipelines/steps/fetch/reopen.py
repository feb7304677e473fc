"""Recordings that somebody wants tried again on purpose: a new epoch begins, the old one stays in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.ledger.schema import states_from
from pipelines.ledger.states import FINAL, RecordingState, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.link.recordings_table import Known, recordings_of
from pipelines.steps.link.register_links import AllowedLinks, judged

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take
REASON = "retry_requested"
_SHOWN = 5
_AT_ONCE = 10_000


class UnknownRecording(Exception):  # noqa: N818 - the sentence for the person who typed the ids
    """An id that was to be retried is not known on this date."""


@dataclass(frozen=True, slots=True)
class Retried:
    """How many recordings are reopened in a new epoch; `refused` counts those whose link is still not allowed."""

    fresh: int = 0
    refused: int = 0


def reopen(
    ledger: Ledger,
    day: date,
    linked: Iterable[date],
    *,
    all_final: bool,
    recording_ids: Sequence[str],
    allowed: AllowedLinks,
    now: datetime,
    run_id: str,
) -> Retried:
    """Write a new epoch for each final state (`all_final`) and each named recording that concerns a run of `day`.

    A named recording may also be `archived`, for instance when its object was lost: what is in the bucket is adopted,
    else it is fetched again. One that is `pending` becomes due at once.

    Raises:
        UnknownRecording: a named one is not known; nothing was written.
    """
    named = _named(ledger, day, linked, recording_ids) if recording_ids else {}
    fresh = refused = 0
    others = _final(ledger, day, linked, excluding=named) if all_final else ()
    for states in chain([list(named.values())], others):
        pairs = [(state, reopened(state, REASON, now, run_id)) for state in states]
        lines = [again for state, again in pairs if state.status not in FINAL or judged(again, allowed) is again]
        ledger.append_states(lines)
        fresh += len(lines)
        refused += len(pairs) - len(lines)
    return Retried(fresh, refused)


def _named(ledger: Ledger, day: date, linked: Iterable[date], ids: Sequence[str]) -> dict[str, RecordingState]:
    lines = ledger.current({day, *linked}, ids)
    named = Known(lines).concerning(day).states(ids)
    if unknown := sorted(set(ids) - named.keys()):
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise UnknownRecording(
            f"retry_recording_ids names {', '.join(map(repr, unknown[:_SHOWN]))}{more}, which the ledger does not know "
            f"on {day}: copy the ids from the sample of the check every_link_is_held, and run the date they stand "
            "under. Nothing was tried."
        )
    return named


def _final(
    ledger: Ledger, day: date, linked: Iterable[date], excluding: Iterable[str]
) -> Iterator[list[RecordingState]]:
    """Yield the recordings in a final state, some thousand at a time."""
    lines = recordings_of(ledger, day, linked).final()
    others = pc.invert(pc.is_in(lines["recording_id"], value_set=pa.array(list(excluding), pa.string())))
    lines = lines.filter(others)
    for start in range(0, lines.num_rows, _AT_ONCE):
        yield states_from(lines.slice(start, _AT_ONCE))
