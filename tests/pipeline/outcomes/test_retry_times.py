"""When a recording is asked for again, and when it is given up."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ledger.states import RecordingState, Status
from pipelines.steps.fetch.outcomes import Failed, Fault, RetryRules, age, next_state
from tests.pipeline.outcomes.conftest import DAY, MONTH, NOW
from tests.pipeline.test_steps import some_state

RULES = RetryRules((2, 5, 15, 60), timedelta(days=7))


def tried(attempts: int) -> RecordingState:
    """A recording first seen at NOW, whose next attempt is number `attempts`."""
    return some_state("15300002/a.WAV", DAY, started_at=NOW, first_seen_at=NOW, attempts=attempts - 1)


@pytest.mark.parametrize(("attempts", "wait"), [(1, 2), (2, 5), (3, 15), (4, 60), (5, 60), (20, 60)])
def test_waits_climb_the_ladder_and_stay_on_its_last_step_for_a_day(attempts: int, wait: int) -> None:
    assert RULES.next_attempt(tried(attempts), NOW) == NOW + timedelta(minutes=wait)


def test_after_a_day_a_recording_is_asked_for_daily() -> None:
    now = NOW + timedelta(days=1)
    assert RULES.next_attempt(tried(5), now) == now + timedelta(days=1)
    assert RULES.next_attempt(tried(4), now) == now + timedelta(minutes=60)


def test_a_wait_of_zero_means_due_at_once() -> None:
    at_once = RetryRules((0,), timedelta(days=7))
    assert at_once.next_attempt(tried(1), NOW) == at_once.next_attempt(tried(9), NOW) == NOW


@given(
    waits=st.lists(st.floats(0, 10_000), min_size=1, max_size=6),
    attempts=st.integers(1, 50),
    age=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_the_next_attempt_is_never_in_the_past_nor_further_away_than_the_rules_say(
    waits: list[float], attempts: int, age: timedelta
) -> None:
    now = NOW + age
    wait = RetryRules(waits, timedelta(7)).next_attempt(tried(attempts), now) - now
    assert timedelta(0) <= wait <= max(timedelta(minutes=max(waits)), timedelta(days=1))


def test_a_recording_is_given_up_by_the_age_of_its_start() -> None:
    state = some_state("15300002/a.WAV", DAY, started_at=NOW, first_seen_at=NOW + timedelta(hours=1))
    assert age(state, NOW + timedelta(days=7)) <= RULES.give_up
    assert age(state, NOW + timedelta(days=7, microseconds=1)) > RULES.give_up


def test_without_a_start_the_end_of_its_day_counts() -> None:
    state = some_state("15300002/a.WAV", date(2026, 11, 18), first_seen_at=datetime(2026, 11, 30, tzinfo=UTC))
    assert age(state, datetime(2026, 11, 26, tzinfo=UTC)) <= RULES.give_up
    assert age(state, datetime(2026, 11, 26, 0, 0, 1, tzinfo=UTC)) > RULES.give_up


def test_a_start_in_the_far_future_does_not_keep_a_recording_pending_without_end() -> None:
    state = some_state("15300002/a.WAV", DAY, started_at=NOW + timedelta(days=36_000), first_seen_at=NOW)
    assert age(state, NOW + timedelta(days=8)) > RULES.give_up


def test_a_day_of_outage_is_no_answer_so_the_first_404_after_it_is_not_the_last() -> None:
    rules = RetryRules(minutes=[5], give_up=timedelta(days=7))
    state = some_state(
        "15300002/a.WAV", DAY, started_at=NOW - MONTH, first_seen_at=NOW, written_at=NOW, next_attempt_at=NOW
    )
    down, absent = Fault("unavailable", "source_unavailable"), Fault("not_there", "not_found")
    for day, fault in enumerate((down, down, down, absent)):
        now = NOW + timedelta(days=day)
        state = next_state(Failed(state, now, fault), believed=True, rules=rules, run_id="run-1")
        assert state.status is Status.pending
    later = NOW + timedelta(days=4)
    last = next_state(Failed(state, later, absent), believed=True, rules=rules, run_id="run-1")
    assert last.status is Status.missing
