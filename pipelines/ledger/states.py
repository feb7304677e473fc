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

RANKS: Mapping[Status, int] = {
    Status.pending: 0,
    Status.missing: 1,
    Status.rejected: 1,
    Status.denied: 1,
    Status.archived: 2,
}
"""The rank of each state: within an epoch the higher rank counts, whenever it was written."""

PRECEDENCE = ("epoch", "rank", "written_at", "attempts", "run_id", "status", "reason", "key", "sha256")
"""The columns that decide which of two lines about a recording counts: the greater in the first that differs.

Rank is before time, so that a slow parallel run that still says `pending` never undoes `archived`; the epoch is before
rank, so that reopening can. Everything after `written_at` only makes the order total.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingState:
    """A line of the ledger: the state of a recording at `written_at`. Sizes in bytes, durations in seconds. Raises
    ValueError if the fields contradict each other, so that no such line is ever written.
    """

    recording_id: str
    account_id: str
    uii: str
    layout: Layout
    source: str
    """The name of the report with the link."""
    date: Day
    """The recording's own local day, under which it is stored."""
    status: Status
    reason: str | None = None
    attempts: int = 0
    """The number of fetches in this epoch."""
    next_attempt_at: datetime | None = None
    key: str | None = None
    size: int | None = None
    sha256: str | None = None
    duration_s: float | None = None
    run_id: str
    written_at: datetime
    link: str
    found_on: Day
    """The day whose pull found the recording, which may be the day before `date`."""
    started_at: datetime | None = None
    expected_duration_s: float | None = None
    epoch: int = 0
    """How often the recording was reopened."""
    version_id: str | None = None
    etag: str | None = None
    warnings: tuple[str, ...] = ()
    first_seen_at: datetime
    same_as: str | None = None
    """The recording that this id is another name of. The line is then not a recording: it is held, counted and
    requested under that id only."""
    first_attempt_at: datetime | None = None
    """When a fetch of this epoch first ended with an answer about the recording, and not with an outage."""
    body_sha256: str | None = None
    """SHA-256 of the last body that was received whole as far as HTTP said, and not archived."""
    body_size: int | None = None
    """The size in bytes of the longest such body."""
    quarantine_key: str | None = None
    """The key under which a rejected body is kept."""

    def __post_init__(self) -> None:
        if (self.next_attempt_at is None) == (self.status is Status.pending):
            raise ValueError(
                f"recording {self.recording_id} is {self.status}: next_attempt_at belongs to every pending recording "
                "and to no other."
            )
        if self.status is Status.archived and (not self.key or self.size is None or not self.sha256):
            raise ValueError(f"recording {self.recording_id} is archived without key, size or sha256; give all three.")
        if self.same_as is not None and (self.status is not Status.rejected or self.same_as == self.recording_id):
            raise ValueError(
                f"recording {self.recording_id} is another name of itself, or another name and not rejected."
            )


def pending_again(
    state: RecordingState, reason: str, now: datetime, run_id: str, *, next_attempt_at: datetime, answered: bool = True
) -> RecordingState:
    """Return the state after a fetch without a final answer. `answered`: the source answered about the recording; an
    outage is not an answer.
    """
    _require(state, "tried again", state.status is Status.pending)
    first = state.first_attempt_at or (now if answered else None)
    changes = {"attempts": state.attempts + 1, "next_attempt_at": next_attempt_at, "first_attempt_at": first}
    return _next(state, Status.pending, reason, now, run_id, **changes)


def final(
    state: RecordingState, status: Status, reason: str, now: datetime, run_id: str, *, attempted: bool = True
) -> RecordingState:
    """Return the state of a recording that will not be held; `attempted=False` if that was decided without a fetch."""
    _require(state, str(status), state.status is Status.pending)
    return _next(state, status, reason, now, run_id, attempts=state.attempts + attempted)


def archived(
    state: RecordingState,
    *,
    now: datetime,
    run_id: str,
    attempted: bool = True,
    **held: Any,  # noqa: ANN401 - fields of many types
) -> RecordingState:
    """Return the state of a recording that is held; `attempted=False` if it was adopted without a fetch. `held`: the
    fields of the stored object. A final state may still become this one: the object exists, whatever was concluded.
    """
    _require(state, "archived", state.status is not Status.archived)
    return _next(state, Status.archived, None, now, run_id, attempts=state.attempts + attempted, **held)


def same_recording(state: RecordingState, main: RecordingState, now: datetime, run_id: str) -> RecordingState:
    """Return the line that makes `state`'s id another name of `main`, so that this id is never requested."""
    _require(state, "another's name", state.status is not Status.archived)
    return _next(state, Status.rejected, "same_recording", now, run_id, same_as=main.recording_id)


def reopened(state: RecordingState, reason: str, now: datetime, run_id: str) -> RecordingState:
    """Return the state of a recording that is to be fetched again: pending, due immediately, in a new epoch."""
    held = ("key", "size", "sha256", "duration_s", "etag", "version_id")
    reset: dict[str, Any] = dict.fromkeys([*held, "same_as", "first_attempt_at", "body_sha256", "body_size"])
    reset |= {"attempts": 0, "next_attempt_at": now, "warnings": (), "epoch": state.epoch + 1}
    return _next(state, Status.pending, reason, now, run_id, **reset)


def _next(
    state: RecordingState,
    status: Status,
    reason: str | None,
    now: datetime,
    run_id: str,
    **changes: Any,  # noqa: ANN401 - fields of many types
) -> RecordingState:
    """Return the line that a run writes after `state`, without `next_attempt_at` unless `changes` give it."""
    fields = {"status": status, "reason": reason, "written_at": now, "run_id": run_id, "next_attempt_at": None}
    return replace(state, **(fields | changes))


def _require(state: RecordingState, wanted: str, is_allowed: bool) -> None:
    if not is_allowed:
        raise ValueError(
            f"recording {state.recording_id} is {state.status} and cannot become {wanted}; "
            "use reopened() to start a new epoch."
        )
