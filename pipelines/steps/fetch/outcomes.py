"""What one attempt at a recording means for its state. The only place where a final state is earned.

    not_there    202, 404, 410, other 4xx     pending, then `missing`
    not_audio    HTML, JSON, MP3, empty, cut  pending, then `rejected`
    refused      401, 403                     pending, then `denied`
    unproven     audio, perhaps not all       pending, until `attempt.py` keeps it with a warning
    unavailable  5xx, 429, connection, S3     pending, for ever: says nothing about the recording

"then": at the third attempt or later, a day after the first answer (`RetryRules.is_patient`), so that an outage costs
time and no recording; and when it is older than `ARCHIVE_GIVE_UP_DAYS`, which tells "not yet" from "never".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipelines.ledger.states import RecordingState, RetryRules, Status, final, pending_again

FaultKind = Literal["not_there", "not_audio", "refused", "unproven", "unavailable"]

_FINAL_OF: Mapping[FaultKind, Status] = {
    "not_there": Status.missing,
    "not_audio": Status.rejected,
    "refused": Status.denied,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt did not end with a recording in the archive; `reason` is a code in snake case."""

    kind: FaultKind
    reason: str


def may_be_last(state: RecordingState, rules: RetryRules, now: datetime) -> bool:
    """Say whether an answer about the recording at `now` may be taken for the last one."""
    return rules.is_patient(state, now) and rules.gives_up(state, now)


def judge(
    state: RecordingState, fault: Fault, *, believed: bool, rules: RetryRules, now: datetime, run_id: str
) -> RecordingState:
    """Return the state after an attempt that ended in `fault`.

    `believed`: a refusal is known to be about the recording, and not about the log-in or about how often we ask.
    """
    settled = rules.is_patient(state, now) if fault.kind == "refused" else may_be_last(state, rules, now)
    if settled and fault.kind in _FINAL_OF and (believed or fault.kind != "refused"):
        return final(state, _FINAL_OF[fault.kind], fault.reason, now, run_id)
    return pending_again(state, fault.reason, now, run_id, rules, answered=fault.kind != "unavailable")
