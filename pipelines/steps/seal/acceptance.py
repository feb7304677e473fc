"""Acceptance of losses that somebody has reviewed, and its revocation; the dates concerned are sealed again.

Only a final loss can be accepted (`missing`, `rejected`, `denied`; a conflict too): a recording may still arrive while
it is pending, and an object that is gone or altered must be restored.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache, partial

from pipelines.archive.proof.signature import Signer
from pipelines.errors import ExpectedError
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.schema import Acceptance, states_by_id, values
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.steps.check.verdict import DateVerdict, Verdict, judge_date, lacking_reports
from pipelines.steps.link.recording_date import near
from pipelines.steps.parallel import map_readable
from pipelines.steps.pull.coverage import MissingReport
from pipelines.steps.seal.seal_day import Stores, neighbours_to_seal, seal_day
from pipelines.wording import number

_LONGEST = 500


class DecisionIncomplete(ExpectedError):  # noqa: N818 - the sentence for the person who decided
    """A decision lacks the losses to accept, the reason, or the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision to accept the loss of these recordings, or of those of `days` that were lost for `reason`; or, with
    `revoke`, to revoke that. Raises DecisionIncomplete if losses, reason or person are missing.
    """

    recording_ids: Sequence[str] = ()
    days: Sequence[date] = ()
    reason: str = ""
    why: str
    accepted_by: str
    revoke: bool = False

    def __post_init__(self) -> None:
        if not self.why.strip() or not self.accepted_by.strip():
            raise DecisionIncomplete("Say why and by whom: give a ticket and a role, and no customer's name.")
        if bool(self.recording_ids) == bool(self.days) or bool(self.days) != bool(self.reason):
            raise DecisionIncomplete("Give either recording ids, or dates and the reason for their losses.")
        for text in (*self.recording_ids, self.reason, self.why, self.accepted_by):
            if len(text) > _LONGEST or not text.isprintable():
                raise DecisionIncomplete(f"Give each text on one line, with at most {_LONGEST} printable characters.")


@dataclass(slots=True)
class DecisionResult:
    """The result of a decision: the lines `written`, the number of recordings already decided that way (`unchanged`), a
    sentence for each one `refused`, and the new verdict of each date that was sealed.
    """

    revoke: bool
    written: list[Acceptance] = field(default_factory=list)
    unchanged: int = 0
    refused: list[str] = field(default_factory=list)
    verdicts: dict[date, DateVerdict] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """One sentence with the whole result."""
        verb = "revoked" if self.revoke else "accepted"
        what = ("acceptance was", "acceptances were") if self.revoke else ("loss was", "losses were")
        said = [f"{number(len(self.written), *what)} {verb}"]
        if self.unchanged:
            said.append(f"{self.unchanged:,} had been {verb} before")
        if self.refused:
            said.append(number(len(self.refused), "was refused", "were refused"))
        return f"{'; '.join(said)}."


def decide(
    stores: Stores, decision: Decision, *, now: datetime, run_id: str, signer: Signer | None = None
) -> DecisionResult:
    """Write the decision to the ledger as far as it is allowed, and seal the dates concerned.

    A refusal stops nothing else. Repeating a decision writes no line, and seals the dates that were not sealed yet.
    """
    result, ledger, settings = DecisionResult(decision.revoke), stores.ledger, stores.settings
    if decision.days:
        states = _lost_for_reason(stores, decision, now, result)
    else:
        states = _with_ids(ledger, decision.recording_ids, result)
    by_day: defaultdict[date, list[RecordingState]] = defaultdict(list)
    for state in states:
        by_day[state.date].append(state)
    touched: set[date] = set()

    gaps = cache(partial(lacking_reports, ledger, settings=settings, now=now))
    for day, of_day in sorted(by_day.items()):
        try:
            latest = ledger.acceptances([day])
            with_other_name = set(values(ledger.current(near([day]))["same_as"]))
            why_not = partial(_refusal, gaps, now, with_other_name, revoke=decision.revoke)
            refusals = [why_not(state, latest.get(state.recording_id)) for state in of_day]
        except LedgerDamaged as error:
            result.refused.append(f"No decision was recorded for {number(len(of_day), 'recording')} of {day}: {error}")
            continue
        result.refused += filter(None, refusals)
        allowed = [state for state, refusal in zip(of_day, refusals, strict=True) if not refusal]
        found = (_line(decision, state, latest.get(state.recording_id), now, run_id) for state in allowed)
        lines = [line for line in found if line is not None]
        ledger.append_acceptances(lines)
        result.written += lines
        result.unchanged += len(allowed) - len(lines)
        touched |= {concerned for state in allowed for concerned in (state.date, state.found_on)}
    _seal(stores, touched, result, now=now, run_id=run_id, signer=signer)
    return result


def _seal(
    stores: Stores, touched: set[date], result: DecisionResult, *, now: datetime, run_id: str, signer: Signer | None
) -> None:
    """Seal the dates that a decision touches, and add their verdicts."""
    # Rows of the adjacent dates may name these recordings too, and their verdicts count them.
    others = neighbours_to_seal(stores, near(touched) - touched)
    for day in sorted(touched | set(others)):
        try:
            sealed = seal_day(stores, day, now=now, run_id=run_id, signer=signer)
            if day in touched or not sealed.manifest.unchanged:
                result.verdicts[day] = sealed.verdict
        except ExpectedError as error:
            result.refused.append(f"The decision is in the ledger, but {day} could not be sealed: {error}")


def _line(
    decision: Decision, state: RecordingState, latest: Acceptance | None, now: datetime, run_id: str
) -> Acceptance | None:
    """Return the line to write, or None if the decision is unchanged."""
    seen = latest if decision.revoke and latest is not None else state
    if (latest is not None and latest.holds(seen.status, seen.reason, seen.epoch)) != decision.revoke:
        return None
    return Acceptance(
        recording_id=state.recording_id,
        day=state.date,
        status=str(seen.status),
        reason=seen.reason or "",
        epoch=seen.epoch,
        accepted=not decision.revoke,
        accepted_by=decision.accepted_by,
        why=decision.why,
        # The latest line counts, also if another machine's clock is ahead of this one's.
        at=max(now, latest.at + timedelta(microseconds=1)) if latest else now,
        run_id=run_id,
    )


def _refusal(
    gaps: Callable[[date], Sequence[MissingReport]],
    now: datetime,
    with_other_name: Collection[str],
    state: RecordingState,
    latest: Acceptance | None,
    *,
    revoke: bool,
) -> str:
    """Return why a decision is refused, empty if it is not. `gaps`: returns the reports not pulled for a date."""
    key, found_on = state.recording_id, state.found_on
    if state.same_as is not None:
        return f"{key} is another name for {state.same_as}: give that id."
    if revoke:
        return "" if latest is not None else f"The loss of {key} was never accepted: there is nothing to revoke."
    if state.status is Status.archived:
        return (
            f"{key} is archived: there is no loss to accept. If its object is gone or altered, restore it, or list the "
            "id in retry_recording_ids."
        )
    if state.next_attempt_at is not None:
        due = "is" if state.next_attempt_at > now else "was due"
        return f"{key} is pending, not lost: its next attempt {due} at {state.next_attempt_at:%Y-%m-%d %H:%M} UTC."
    if key in with_other_name:
        return f"{key} is {state.status}, but its other source has not been tried yet: run {found_on}, then accept."
    if missing := gaps(found_on):
        return f"{key} is {state.status}, but {found_on} is unknown: {missing[0]}. Run that date, then accept."
    return ""


def _lost_for_reason(stores: Stores, decision: Decision, now: datetime, result: DecisionResult) -> list[RecordingState]:
    """Return the recordings that the verdicts of the dates count as lost for the reason, accepted or not."""
    found: dict[str, RecordingState] = {}
    reasons: Counter[str] = Counter()
    refused = len(result.refused)
    for day in decision.days:
        of_date = judge_date(stores.ledger, None, day, stores.settings, now=now)
        if of_date.verdict is Verdict.unknown:
            result.refused.append(f"No decision can be recorded for {day}. {of_date.sentence}")
            continue
        lost = of_date.recordings[of_date.recordings["condition"].isin(["accepted", "lost", "conflict"])]
        if decision.revoke:
            lost = lost[lost["recording_id"].isin(list(stores.ledger.acceptances(lost["date"])))]
        reasons.update(map(str, lost["reason"]))
        lost = lost[lost["reason"] == decision.reason]
        found |= states_by_id(stores.ledger.current(lost["date"], lost["recording_id"]))
    if not found and len(result.refused) == refused:
        dates = " to ".join(dict.fromkeys(map(str, (decision.days[0], decision.days[-1]))))
        others = ", ".join(f"{count:,} `{reason}`" for reason, count in reasons.most_common())
        verb = "accepted" if decision.revoke else "lost"
        instead = f"; other reasons found: {others}" if others else ""
        result.refused.append(f"No recording of {dates} is {verb} for the reason `{decision.reason}`{instead}.")
    return list(found.values())


def _with_ids(ledger: Ledger, ids: Iterable[str], result: DecisionResult) -> list[RecordingState]:
    """Return the recordings with these ids, searching the newest dates first: an id does not name its date."""
    missing = set(ids)
    found: dict[str, RecordingState] = {}
    damaged = ""
    newest_first = reversed(ledger.days("recording_states"))
    for _, states in map_readable(lambda day: states_by_id(ledger.current([day], missing)), newest_first):
        if isinstance(states, LedgerDamaged):
            damaged = f" Not all of it could be read: {states}"
            continue
        found = states | found
        if found.keys() >= missing:
            break
    result.refused += [f"The ledger has no recording {key!r}.{damaged}" for key in sorted(missing - found.keys())]
    return list(found.values())
