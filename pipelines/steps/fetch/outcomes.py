"""Outcomes: what one attempt means for a recording's state, when an answer is final, and when to ask again.

docs/decisions.md ("How a final state is earned") has the rules as a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal

from pipelines.archive.transfer import Stored
from pipelines.ledger.states import RecordingState, Status, final, pending_again

FaultKind = Literal["not_there", "not_audio", "not_allowed", "refused", "unproven", "unavailable", "conflict"]

# A recording stays pending after the other kinds: perhaps the bytes are whole, or the answer was not about it.
_FINAL_OF: Mapping[FaultKind, Status] = {
    "not_there": Status.missing,
    "not_audio": Status.rejected,
    "not_allowed": Status.rejected,
    "refused": Status.denied,
    "conflict": Status.rejected,
}
_LEAST_ATTEMPTS = 3
_DAY = timedelta(days=1)
_YOUNG = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt did not end with a recording in the archive; `reason` is a code in snake case."""

    kind: FaultKind
    reason: str


@dataclass(frozen=True, slots=True)
class Archived:
    """An attempt that ended at `at` with a recording in the archive. `state`: before it."""

    state: RecordingState
    at: datetime
    stored: Stored
    duration_s: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed at `at`. `state`: before it, with the hash, size and quarantine of the body."""

    state: RecordingState
    at: datetime
    fault: Fault


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The rules for when to ask again for a recording that is not ready, and when to stop asking.

    `minutes`: the waits after the first, second, … attempt; at least one. `give_up`: the age at which "not yet" may
    become "never". `final_after`: the least time from the first answer to the attempt that may be the last. `kept_for`:
    how long the source keeps a recording.
    """

    minutes: Sequence[float]
    give_up: timedelta
    final_after: timedelta = _DAY
    kept_for: timedelta = timedelta(days=90)

    def next_attempt(self, state: RecordingState, now: datetime) -> datetime:
        """Return when a recording whose attempt failed at `now` is due again. `state`: before that attempt.

        The last wait repeats until a day after the recording was first seen; after that it is requested daily. An old
        recording (`give_up`) will not appear within the hour: it is requested daily once the waits are used up.
        """
        attempts, last = state.attempts + 1, len(self.minutes)
        wait = timedelta(minutes=self.minutes[min(attempts, last) - 1])
        is_old = any(self.minutes) and age(state, now) > self.give_up
        if attempts > last and (is_old or now - state.first_seen_at >= _DAY):
            wait = max(wait, _DAY)
        return now + wait

    def is_patient(self, state: RecordingState, now: datetime) -> bool:
        """Return whether the attempt that ends at `now` may be the last: at least the third, and at least `final_after`
        after the first answer. An outage of the source then costs time and no recording.
        """
        first = state.first_attempt_at
        return first is not None and state.attempts + 1 >= _LEAST_ATTEMPTS and now - first >= self.final_after


def age(state: RecordingState, now: datetime) -> timedelta:
    """Return the age of a recording at `now`."""
    # If its start is unknown, the end of its day; a wrong year in a report must not keep it pending forever.
    born = state.started_at or datetime.combine(state.date + _DAY, time(), UTC)
    return now - min(born, state.first_seen_at)


def may_be_last(state: RecordingState, rules: RetryRules, now: datetime) -> bool:
    """Return whether an answer received at `now` may be final."""
    return rules.is_patient(state, now) and age(state, now) > rules.give_up


def is_in_doubt(failed: Failed, *, log_in_works: bool, rules: RetryRules) -> bool:
    """Return whether the answer may be about the source or the log-in, until a recording is received after it.

    `log_in_works`: the log-in received other recordings of the date. docs/decisions.md has the rules: a firewall may
    object to the rate of requests, a password may have been changed, and a young recording may still be made.
    """
    fault = failed.fault
    if fault.kind in {"unavailable", "not_allowed", "conflict"}:
        return False
    old = age(failed.state, failed.at)
    if fault.kind == "refused":
        least = rules.give_up if fault.reason == "forbidden" else rules.kept_for
        return not (log_in_works and old > least and rules.is_patient(failed.state, failed.at))
    if log_in_works or old > rules.kept_for or fault.reason == "still_encoding":
        return False
    return fault.kind != "not_there" or old >= _YOUNG


def next_state(failed: Failed, *, believed: bool, rules: RetryRules, run_id: str) -> RecordingState:
    """Return the state after a failed attempt. `believed`: a refusal is about the recording, not about the log-in."""
    state, at, fault = failed.state, failed.at, failed.fault
    if fault.kind == "refused":
        is_last = believed and rules.is_patient(state, at)
    else:
        is_last = fault.kind == "conflict" or may_be_last(state, rules, at)
    if is_last and fault.kind in _FINAL_OF:
        return final(state, _FINAL_OF[fault.kind], fault.reason, at, run_id)
    next_at = rules.next_attempt(state, at)
    answered = fault.kind != "unavailable"
    return pending_again(state, fault.reason, at, run_id, next_attempt_at=next_at, answered=answered)
