"""Try recordings again on request: a new epoch begins, and the old one stays in the ledger."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import NamedTuple

from pipelines.errors import ExpectedError
from pipelines.ledger.schema import states_by_id
from pipelines.ledger.states import FINAL, reopened
from pipelines.ledger.store import Ledger
from pipelines.steps.link.recordings_table import recordings_of
from pipelines.steps.link.register_links import AllowedLinks, judged

REASON = "retry_requested"
_SHOWN = 5


class UnknownRecording(ExpectedError):  # noqa: N818 - the sentence for the person who typed the ids
    """An id that was to be retried is not known on this date."""


class Reopened(NamedTuple):
    """How many recordings are in a new epoch, and how many are not because their link is still not allowed."""

    reopened: int = 0
    not_allowed: int = 0


def reopen(
    ledger: Ledger,
    day: date,
    linked: Iterable[date],
    all_final: bool,
    recording_ids: Sequence[str],
    *,
    allowed: AllowedLinks,
    now: datetime,
    run_id: str,
) -> Reopened:
    """Write a new epoch for each final state (`all_final`) and each named recording that concerns a run of `day`.

    A named one may also be `archived`: what is in the bucket is adopted, else it is fetched again. One that is
    `pending` becomes due at once. Raises UnknownRecording where one is not known; nothing was written.
    """
    if not (all_final or recording_ids):
        return Reopened()
    recordings = recordings_of(ledger, day, linked)
    named = recordings.states(recording_ids)
    if unknown := sorted(set(recording_ids) - named.keys()):
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise UnknownRecording(
            f"retry_recording_ids names {', '.join(map(repr, unknown[:_SHOWN]))}{more}, which the ledger does not know "
            f"on {day}: copy the ids from the sample of the check every_recording_is_accounted_for, and run the date "
            "they are shown under. Nothing was tried."
        )
    states = named | (states_by_id(recordings.final()) if all_final else {})
    pairs = [(state, reopened(state, REASON, now, run_id)) for state in states.values()]
    rows = [again for state, again in pairs if state.status not in FINAL or judged(again, allowed) is again]
    ledger.append_states(rows)
    return Reopened(len(rows), len(pairs) - len(rows))
