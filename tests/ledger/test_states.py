"""Of the lines about one recording the same one counts, in whichever order they were written."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ledger.schema import states_by_id, table_of
from pipelines.ledger.states import (
    FINAL,
    RecordingState,
    Status,
    archived,
    final,
    pending_again,
    reopened,
)
from pipelines.ledger.store import current_lines

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
SOON = NOON + timedelta(days=1)
Build = Callable[..., RecordingState]

minutes = st.integers(0, 600).map(lambda m: NOON + timedelta(minutes=m))


@st.composite
def lines_of_a_writer(draw: st.DrawFn, run_id: str, *, may_reopen: bool = False) -> list[tuple[str, datetime]]:
    """What one run does to one recording: some pendings, then perhaps an end."""
    steps = ["pending"] * draw(st.integers(0, 3)) + draw(
        st.sampled_from([[], ["archived"], ["missing"], ["rejected"], ["denied"]])
    )
    if may_reopen and steps and draw(st.booleans()):
        steps += ["reopened", *draw(st.sampled_from([[], ["archived"], ["missing"]]))]
    return [(step, draw(minutes)) for step in steps]


def played(start: RecordingState, steps: list[tuple[str, datetime]], run_id: str) -> list[RecordingState]:
    lines, state = [], start
    for step, now in steps:
        if step == "pending":
            state = pending_again(state, "not_found", now, run_id, next_attempt_at=SOON)
        elif step == "archived":
            state = held(state, now, run_id)
        elif step == "reopened":
            state = reopened(state, "asked_for", now, run_id)
        else:
            state = final(state, Status(step), "because", now, run_id)
        lines.append(state)
    return lines


def current(lines: Iterable[RecordingState]) -> dict[str, RecordingState]:
    """As the ledger reads these lines, in the order of their writing."""
    return states_by_id(current_lines([table_of(RecordingState, list(lines))]))


def held(state: RecordingState, now: datetime = NOON, run_id: str = "run-1", key: str = "k") -> RecordingState:
    return archived(
        state,
        key=key,
        size=4,
        sha256="ab",
        duration_s=1.0,
        etag=None,
        version_id=None,
        warnings=(),
        now=now,
        run_id=run_id,
    )


@given(data=st.data())
def test_every_interleaving_of_two_writers_ends_the_same(a_state: Build, data: st.DataObject) -> None:
    start = a_state()
    lines_of_first = played(start, data.draw(lines_of_a_writer("run-1", may_reopen=True)), "run-1")
    lines_of_second = played(start, data.draw(lines_of_a_writer("run-2")), "run-2")
    lines = [start, *lines_of_first, *lines_of_second]
    assert current(data.draw(st.permutations(lines))) == current(lines)


@given(data=st.data())
def test_archived_is_never_undone_by_what_another_run_says(a_state: Build, data: st.DataObject) -> None:
    start = a_state()
    done = held(start, data.draw(minutes))
    slow = played(start, data.draw(lines_of_a_writer("run-2")), "run-2")
    assert current([*slow, start, done])[start.recording_id].status is Status.archived


@given(data=st.data())
def test_a_final_state_is_never_undone_by_pending(a_state: Build, data: st.DataObject) -> None:
    start = a_state()
    ended = final(start, data.draw(st.sampled_from(sorted(FINAL))), "because", data.draw(minutes), "run-1")
    slow = pending_again(start, "not_found", data.draw(minutes), "run-2", next_attempt_at=SOON)
    assert current([slow, ended, start])[start.recording_id] == ended


def test_reopening_counts_more_than_everything_before_it(a_state: Build) -> None:
    done = held(a_state(), NOON + timedelta(days=300))
    again = reopened(done, "damaged", NOON, "run-2")
    assert current([again, done])[done.recording_id] == again
    assert again.next_attempt_at == NOON
    assert (again.status, again.epoch, again.attempts, again.key, again.sha256) == (Status.pending, 1, 0, None, None)


def test_of_two_lines_of_the_same_weight_the_later_written_counts(a_state: Build) -> None:
    early = pending_again(a_state(), "not_found", NOON, "run-9", next_attempt_at=SOON)
    late = pending_again(a_state(), "still_encoding", NOON + timedelta(microseconds=1), "run-1", next_attempt_at=SOON)
    assert list(current([late, early]).values()) == [late]


def test_a_failed_try_counts_and_plans_the_next_one(a_state: Build) -> None:
    state = pending_again(a_state(), "still_encoding", NOON, "run-2", next_attempt_at=SOON)
    assert (state.attempts, state.reason, state.run_id) == (1, "still_encoding", "run-2")
    assert state.next_attempt_at == SOON


def test_what_was_decided_without_a_fetch_counts_no_attempt(a_state: Build) -> None:
    refused = final(a_state(), Status.rejected, "host_not_allowed", NOON, "run-1", attempted=False)
    assert refused.attempts == 0
    assert held(refused).attempts == 1  # what is there counts more than that somebody missed it


@pytest.mark.parametrize("status", [Status.pending, Status.archived])
def test_only_a_final_status_ends_a_recording(a_state: Build, status: Status) -> None:
    with pytest.raises(ValueError, match="contradict"):
        final(a_state(), status, "because", NOON, "run-1")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"next_attempt_at": None},
        {"status": Status.missing, "next_attempt_at": NOON},
        {"status": Status.archived, "key": None},
        {"status": Status.archived, "sha256": ""},
    ],
)
def test_a_state_that_contradicts_itself_cannot_be_made(a_state: Build, nonsense: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="recording"):
        a_state(**nonsense)


def test_statuses_are_ordered_pending_then_final_then_archived(a_state: Build) -> None:
    ranked = [a_state(), *(a_state(status=status) for status in sorted(FINAL)), a_state(status=Status.archived)]
    for lower, higher in itertools.combinations([ranked[0], ranked[1], ranked[-1]], 2):
        later = replace(lower, written_at=NOON + timedelta(days=9))
        assert list(current([higher, later]).values()) == [higher]
