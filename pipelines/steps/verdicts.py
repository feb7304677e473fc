"""What one attempt at a recording means for its state. The only place where a final state is earned.

    not_there    202, 404, 410, other 4xx     pending, then `missing`
    not_audio    HTML, JSON, MP3, empty, cut  pending, then `rejected`
    refused      401, 403                     `denied` if the credentials are proven good, else pending
    unavailable  5xx, 429, connection, S3     pending, for ever: says nothing about the recording

"then": when the recording is older than `ARCHIVE_GIVE_UP_DAYS` and two requests of one run said the same. Age tells
"not yet" from "never", and the second request tells "never" from one bad moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipelines.ledger.states import RecordingState, RetryRules, Status, final, pending_again

FaultKind = Literal["not_there", "not_audio", "refused", "unavailable"]

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


def may_be_final(state: RecordingState, fault: Fault, rules: RetryRules, now: datetime) -> bool:
    """Whether the same answer again would settle the matter, so that asking again in this run is worth a request."""
    return fault.kind == "refused" or (fault.kind in _FINAL_OF and rules.gives_up(state, now))


def judge(
    state: RecordingState,
    fault: Fault,
    *,
    confirmed: bool,
    credentials_proven: bool,
    rules: RetryRules,
    now: datetime,
    run_id: str,
) -> RecordingState:
    """The state after an attempt that ended in `fault`.

    `confirmed`: a second request of this run ended in a fault of the same kind. `credentials_proven`: the same log-in
    is known to be good at the recording's host.
    """
    # Age alone never denies: a backfill with a wrong password would deny every old recording.
    settled = credentials_proven if fault.kind == "refused" else rules.gives_up(state, now)
    if fault.kind != "unavailable" and confirmed and settled:
        return final(state, _FINAL_OF[fault.kind], fault.reason, now, run_id)
    return pending_again(state, fault.reason, now, run_id, rules)
