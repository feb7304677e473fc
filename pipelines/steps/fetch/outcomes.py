"""What one attempt at a recording means for its state. The only place where a final state is earned.

    not_there    202, 404, 410, other 4xx       pending, then `missing`
    not_audio    HTML, JSON, MP3, empty, cut    pending, then `rejected`
    not_allowed  our settings refuse the link   pending, then `rejected`
    refused      401, 403                       pending, then `denied`
    unproven     audio, perhaps not all         pending, until `attempt.py` keeps it with a warning
    unavailable  5xx, 429, connection, S3       pending, for ever: says nothing about the recording
    conflict     other bytes are in the bucket  `rejected`; both are kept

"then": at the third attempt or later, a day after the first answer (`RetryRules.is_patient`), so that an outage costs
time and no recording; and when it is older than `ARCHIVE_GIVE_UP_DAYS`, which tells "not yet" from "never".
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from pipelines.archive.transfer import Stored
from pipelines.ledger.states import RecordingState, RetryRules, Status, archived, final, pending_again

FaultKind = Literal["not_there", "not_audio", "not_allowed", "refused", "unproven", "unavailable", "conflict"]

_FINAL_OF: Mapping[FaultKind, Status] = {
    "not_there": Status.missing,
    "not_audio": Status.rejected,
    "not_allowed": Status.rejected,
    "refused": Status.denied,
    "conflict": Status.rejected,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt did not end with a recording in the archive; `reason` is a code in snake case."""

    kind: FaultKind
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, and when. `state`: before it, with the hash, size and quarantine of a body not archived."""

    state: RecordingState
    at: datetime
    result: Stored | Fault
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def fault(self) -> Fault | None:
        """The result, if it is a fault."""
        return self.result if isinstance(self.result, Fault) else None


def may_be_last(state: RecordingState, rules: RetryRules, now: datetime) -> bool:
    """Return whether an answer about the recording at `now` may be taken for the last one."""
    return rules.is_patient(state, now) and rules.gives_up(state, now)


def next_state(outcome: Outcome, *, believed: bool, rules: RetryRules, run_id: str) -> RecordingState:
    """Return the state after an attempt. `believed`: a refusal is about the recording, not about us."""
    state, at, result = outcome.state, outcome.at, outcome.result
    if isinstance(result, Stored):
        held = asdict(result) | {"duration_s": outcome.duration_s, "warnings": outcome.warnings}
        return archived(state, now=at, run_id=run_id, attempted=not held.pop("adopted"), **held)
    if result.kind == "refused":
        is_last = believed and rules.is_patient(state, at)
    else:
        is_last = result.kind == "conflict" or may_be_last(state, rules, at)
    if is_last and result.kind in _FINAL_OF:
        return final(state, _FINAL_OF[result.kind], result.reason, at, run_id)
    return pending_again(state, result.reason, at, run_id, rules, answered=result.kind != "unavailable")
