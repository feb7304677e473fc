"""The states of a recording, how one follows another, and which of several lines counts. No files, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

Day: TypeAlias = date  # inside the class `date` is the field
Layout = Literal["mono", "stereo"]


class Status(StrEnum):
    """The state of a recording."""

    pending = "pending"
    archived = "archived"
    missing = "missing"
    rejected = "rejected"
    denied = "denied"


FINAL = frozenset({Status.missing, Status.rejected, Status.denied})
"""The states of a recording that is not held and not tried again unless it is reopened; not `archived`."""

RANKS: Mapping[Status, int] = {Status.pending: 0, **dict.fromkeys(FINAL, 1), Status.archived: 2}
"""The rank of each state: within an epoch the higher rank counts, whenever it was written."""

PRECEDENCE = ("epoch", "rank", "written_at", "attempts", "run_id", "status", "reason", "key", "sha256")
"""The columns that decide which of two lines about a recording counts: the greater in the first that differs.

Rank is before time, so that a slow parallel run that still says `pending` never undoes `archived`; the epoch is before
rank, so that reopening can. Everything after `written_at` only makes the order total.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingState:
    """A line of the ledger (docs/storage.md, "Ledger"): the state of a recording at `written_at`. Sizes in bytes,
    durations in seconds. Raises ValueError if the fields contradict each other, so that no such line is ever written.
    """

    recording_id: str
    account_id: str
    uii: str
    layout: Layout
    source: str
    date: Day
    status: Status
    reason: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    key: str | None = None
    size: int | None = None
    sha256: str | None = None
    duration_s: float | None = None
    run_id: str
    written_at: datetime
    link: str
    found_on: Day
    started_at: datetime | None = None
    expected_duration_s: float | None = None
    epoch: int = 0
    version_id: str | None = None
    etag: str | None = None
    warnings: tuple[str, ...] = ()
    first_seen_at: datetime
    same_as: str | None = None
    first_attempt_at: datetime | None = None
    body_sha256: str | None = None
    body_size: int | None = None
    quarantine_key: str | None = None

    def __post_init__(self) -> None:
        contradictions = (
            (self.next_attempt_at is None) == (self.status is Status.pending),
            self.status is Status.archived and not (self.key and self.sha256 and self.size is not None),
            self.same_as is not None and (self.status is not Status.rejected or self.same_as == self.recording_id),
        )
        if any(contradictions):
            raise ValueError(f"the fields of recording {self.recording_id} contradict its state {self.status}.")


def pending_again(
    state: RecordingState, reason: str, now: datetime, run_id: str, *, next_attempt_at: datetime, answered: bool = True
) -> RecordingState:
    """Return the state after a fetch without a final answer. `answered`: the source answered; an outage does not."""
    first = state.first_attempt_at or (now if answered else None)
    changes = {"attempts": state.attempts + 1, "next_attempt_at": next_attempt_at, "first_attempt_at": first}
    return _next(state, Status.pending, reason, now, run_id, **changes)


def final(
    state: RecordingState, status: Status, reason: str, now: datetime, run_id: str, *, attempted: bool = True
) -> RecordingState:
    """Return the state of a recording that will not be held; `attempted=False` if that was decided without a fetch."""
    return _next(state, status, reason, now, run_id, attempts=state.attempts + attempted)


def archived(
    state: RecordingState, *, now: datetime, run_id: str, attempted: bool = True, **held: object
) -> RecordingState:
    """Return the state of a recording that is held; `attempted=False` if it was adopted without a fetch. `held`: the
    fields of the stored object. A final state may still become this one: the object exists, whatever was concluded.
    """
    return _next(state, Status.archived, None, now, run_id, attempts=state.attempts + attempted, **held)


def same_recording(state: RecordingState, main: RecordingState, now: datetime, run_id: str) -> RecordingState:
    """Return the line that makes `state`'s id another name of `main`, so that this id is never requested."""
    return _next(state, Status.rejected, "same_recording", now, run_id, same_as=main.recording_id)


def reopened(state: RecordingState, reason: str, now: datetime, run_id: str) -> RecordingState:
    """Return the state of a recording that is to be fetched again: pending, due immediately, in a new epoch."""
    held = ("key", "size", "sha256", "duration_s", "etag", "version_id")
    reset: dict[str, Any] = dict.fromkeys([*held, "same_as", "first_attempt_at", "body_sha256", "body_size"])
    reset |= {"attempts": 0, "next_attempt_at": now, "warnings": (), "epoch": state.epoch + 1}
    return _next(state, Status.pending, reason, now, run_id, **reset)


def _next(
    state: RecordingState, status: Status, reason: str | None, now: datetime, run_id: str, **changes: object
) -> RecordingState:
    """Return the line that a run writes after `state`, without `next_attempt_at` unless `changes` give it."""
    fields: dict[str, Any] = {"status": status, "reason": reason, "written_at": now, "run_id": run_id}
    return replace(state, **fields | {"next_attempt_at": None} | changes)
