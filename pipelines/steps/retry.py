"""Recordings that somebody wants tried again on purpose: a new epoch begins, the old one stays in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from pipelines.ledger.states import FINAL, RecordingState, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.known import Recordings
from pipelines.steps.links import AllowedLinks, judged

REASON = "retry_requested"
_SHOWN = 5


class UnknownRecording(Exception):  # noqa: N818 - the sentence for the person who typed the ids
    """An id that was to be retried is not known on this date."""


@dataclass(frozen=True, slots=True)
class Retried:
    """`fresh`: the reopened ones in their new epoch; `refused` counts those whose link is still not allowed."""

    fresh: Mapping[str, RecordingState]
    refused: int


def reopen(
    ledger: Ledger,
    day: date,
    known: Recordings,
    *,
    all_final: bool,
    recording_ids: Sequence[str],
    allowed: AllowedLinks,
    now: datetime,
    run_id: str,
) -> Retried:
    """Write a new epoch for each final state (`all_final`) and each named recording of `known`.

    A named recording may also be `archived`, for instance when its object was lost: what lies in the bucket is adopted,
    else it is fetched again. One that is `pending` becomes due at once.

    Raises:
        UnknownRecording: a named one is not among `known`; nothing was written.
    """
    named = known.states(recording_ids)
    if unknown := sorted(set(recording_ids) - named.keys()):
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise UnknownRecording(
            f"retry_recording_ids names {', '.join(map(repr, unknown[:_SHOWN]))}{more}, which the ledger does not know "
            f"on {day}: copy the ids from the sample of the check every_link_is_held, and run the date they stand "
            "under. Nothing was tried."
        )
    fresh: dict[str, RecordingState] = {}
    refused = 0
    for key, state in sorted(((known.final() if all_final else {}) | named).items()):
        again = reopened(state, REASON, now, run_id)
        if state.status in FINAL and judged(again, allowed) is not again:
            refused += 1
        else:
            fresh[key] = again
    ledger.append_states(fresh.values())
    return Retried(fresh, refused)
