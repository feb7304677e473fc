"""As many recordings are in flight as help, and no more: played with sources and processors of every kind."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.errors import Stopped
from pipelines.steps.flow import BEGIN_WITH, Climb, Flow

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
    few = climb.limit
    while now < 60:
        now += 0.25 / climb.limit
        climb.ended(320_000, now)
        climb.waited(now)
    assert few <= BEGIN_WITH < climb.limit


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


def test_no_more_have_a_turn_than_the_limit_and_all_get_one() -> None:
    flow, lock = Flow(MOST, threading.Event()), threading.Lock()
    busy, seen = 0, []

    def work(_: int) -> None:
        nonlocal busy
        with flow.turn():
            with lock:
                busy += 1
                seen.append(busy)
            time.sleep(0.001)
            with lock:
                busy -= 1
        flow.ended(1000)

    with ThreadPoolExecutor(MOST) as pool:
        list(pool.map(work, range(300)))
    assert len(seen) == 300
    assert max(seen) <= MOST


def test_who_waits_for_a_turn_stops_when_the_run_does() -> None:
    stop = threading.Event()
    flow = Flow(1, stop)
    with flow.turn():
        stop.set()
        with pytest.raises(Stopped), flow.turn():
            pass
