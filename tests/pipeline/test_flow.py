"""As many recordings are in flight as help, and no more: played with sources and processors of every kind."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.steps.flow import BEGIN_WITH, Climb, Crew

MOST = 16


def played(
    seconds_of_one: Callable[[int], float], *, most: int = MOST, seconds: float = 30.0, size: int = 320_000
) -> list[int]:
    """The limit at each end of a recording, where with `n` in flight one takes `seconds_of_one(n)`."""
    climb = Climb(MOST, 0.0)
    now, ends, limits = 0.0, [], []
    while now < seconds:
        while len(ends) < climb.limit:
            heapq.heappush(ends, now + seconds_of_one(len(ends) + 1))
        now = heapq.heappop(ends)
        climb.ended(size, now)
        climb.waited(now)
        limits.append(climb.limit)
    return limits


def share_at(limits: list[int], wanted: set[int]) -> float:
    return sum(limit in wanted for limit in limits) / len(limits)


def test_over_a_far_network_all_are_in_flight_within_seconds() -> None:
    assert MOST in played(lambda _: 0.25, seconds=3)
    limits = played(lambda _: 0.25)
    assert share_at(limits[len(limits) // 2 :], {MOST}) > 0.8


def test_where_the_processor_is_short_few_are_in_flight() -> None:
    """Each takes the longer the more there are, and more than in proportion."""
    limits = played(lambda n: n * (0.006 if n <= 4 else 0.0075))
    assert share_at(limits, {1, 2, 4}) > 0.8


def test_a_source_that_becomes_slow_is_met_with_more_in_flight() -> None:
    climb = Climb(MOST, 0.0)
    now = 0.0
    for _ in range(2000):
        now += 0.005
        climb.ended(320_000, now)
    assert climb.limit <= BEGIN_WITH
    changed, reached = now, set()
    while now < changed + 10:
        now += 0.25 / climb.limit
        climb.ended(320_000, now)
        climb.waited(now)
        reached.add(climb.limit)
    assert MOST in reached


def test_some_that_hang_do_not_keep_the_others_waiting() -> None:
    climb = Climb(MOST, 0.0)
    for tenth in range(100):
        climb.waited(tenth / 10)
    assert climb.limit == MOST


@given(st.integers(1, 40), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**9), st.booleans()), max_size=300))
def test_the_limit_stays_between_one_and_the_most(most: int, events: list[tuple[float, int, bool]]) -> None:
    climb, now = Climb(most, 0.0), 0.0
    for after, size, ended in events:
        now += after
        if ended:
            climb.ended(size, now)
        else:
            climb.waited(now)
        assert 1 <= climb.limit <= most


def test_all_work_is_done_by_no_more_threads_than_are_allowed() -> None:
    seen = set()
    with Crew(MOST, name="crew") as crew:

        def work(number: int) -> int:
            seen.add(threading.current_thread().name)
            time.sleep(0.001)
            crew.ended(1000)
            return number

        assert list(crew.map(work, range(500))) == list(range(500))
    assert seen <= {f"crew_{number}" for number in range(MOST)}
    assert not any(one.name.startswith("crew_") for one in threading.enumerate())


def test_more_threads_come_when_those_at_work_hang() -> None:
    now, hanging = [0.0], threading.Event()
    crew = Crew(MOST, name="crew", clock=lambda: now[0])
    begun = [crew.submit(hanging.wait) for _ in range(2 * MOST)]
    for _ in range(10):
        now[0] += 1
        crew.look()
    deadline = time.monotonic() + 10
    while sum(one.running() for one in begun) < MOST:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    hanging.set()
    crew.shutdown()
    assert all(one.result() for one in begun)


def test_a_crew_that_shrank_wakes_one_that_may_work_and_not_only_those_that_may_not() -> None:
    with Crew(MOST, name="crew") as crew:
        go = threading.Barrier(MOST + 1)
        crew._climb.limit = MOST  # as if it had climbed
        for _ in range(MOST):
            crew.submit(go.wait, 10)
        go.wait(10)
        for _ in range(50):  # all are idle by now, those that may not work before those that may
            time.sleep(0.002)
            crew._climb.limit = 1
            assert crew.submit(lambda: threading.current_thread().name).result(2) == "crew_0"


def test_what_fails_or_is_cancelled_is_told_by_its_future_and_keeps_no_thread() -> None:
    go = threading.Event()
    crew = Crew(1, name="crew")
    begun = threading.Event()
    first = crew.submit(lambda: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    fails = crew.submit(lambda: 1 // 0)
    left = crew.submit(lambda: 1)
    crew.shutdown(wait=False, cancel_futures=True)
    go.set()
    assert first.result(10)
    assert fails.cancelled()
    assert left.cancelled()
    with pytest.raises(RuntimeError):
        crew.submit(lambda: 1)
    with Crew(2, name="crew") as other, pytest.raises(ZeroDivisionError):
        other.submit(lambda: 1 // 0).result(10)
