"""The planned hours are those that the limits then let the runs take."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.steps.plan.estimate import seconds_needed
from sandbox.config import Limits
from tests.commands import run
from tests.pipeline.conftest import MakeWorld, World
from tests.pipeline.plan.conftest import ONE_DAY, REPORTS, limit

RATES = st.lists(st.builds(Rate, st.integers(1, 12), st.sampled_from([0.5, 2.0, 7.0, 60.0, 900.0])), max_size=3)


@settings(max_examples=40, deadline=None)
@given(rates=RATES, requests=st.integers(0, 60))
def test_the_hours_are_the_least_that_the_limiter_itself_takes(
    tmp_path_factory: pytest.TempPathFactory, rates: list[Rate], requests: int
) -> None:
    now = [1_000_000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    file = tmp_path_factory.mktemp("limits") / "limits.sqlite"
    limiter = RateLimiter(file, clock=lambda: now[0], sleep=sleep)
    for _ in range(requests):
        limiter.acquire("reports", "15300002", rates)
    limiter.close()
    taken = now[0] - 1_000_000.0
    assert seconds_needed(requests, rates) <= taken + 0.01
    if len(rates) == 1:
        assert seconds_needed(requests, rates) == pytest.approx(taken, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(rates=RATES.filter(bool), requests=st.integers(20_001, 10_000_000))
def test_very_many_requests_take_as_long_as_the_slowest_window_lets_them(rates: list[Rate], requests: int) -> None:
    slowest = max((rate.seconds + 1) / rate.limit for rate in rates)
    longest = max(rate.seconds + 1 for rate in rates)
    assert abs(seconds_needed(requests, rates) - requests * slowest) <= 3 * longest


def planned(capsys: pytest.CaptureFixture[str], world: World, first: date, last: date | None = None) -> dict[str, Any]:
    capsys.readouterr()
    assert run("plan", ["--from", str(first), "--to", str(last or first), "--json", "plan.json"], world.s3) == 0
    found: dict[str, Any] = json.loads(Path("plan.json").read_text())
    return found


# Of the planned length: a run also logs in, parses and writes, and begins somewhere in a window.
TOLERANCE = 0.35


@pytest.mark.slow
def test_the_planned_hours_are_those_that_the_runs_then_take(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = "3/4"
    world = make_world(
        sandbox={
            "limits": Limits(reports=reports, exchange="none"),
            "calls_per_day": (3, 3),
            "talk_seconds": (1, 1),
        },
        RINGCX_LIMIT_REPORTS=reports,
    )
    days = [datetime.now(UTC).date() - timedelta(days=ago) for ago in range(5, 1, -1)]
    before = planned(capsys, world, days[0], days[-1])
    assert (before["longest"], limit(before, "reports")["requests"]) == ("reports", 12)
    assert world.sandbox.counters()["requests"].get("report", 0) == 0, "a plan asks for nothing"
    assert world.objects("") == {}, "a plan changes nothing"

    took = Took(world, "report", 12)
    for day in days:
        assert world.run(day, select=[*REPORTS, "recording_links"]).success
    seconds = took.wait()
    assert world.sandbox.counters()["violations"]["reports"] == 0
    assert before["seconds"] == 15.0
    assert seconds == pytest.approx(before["seconds"], rel=TOLERANCE)

    after = planned(capsys, world, days[0], days[-1])
    assert {of_date["state"] for of_date in after["dates"]} == {"pending"}


@pytest.mark.slow
def test_the_planned_hours_of_known_recordings_are_those_that_fetching_them_takes(
    make_world: MakeWorld, recent: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    media = "12/2"
    world = make_world(
        sandbox={
            "limits": Limits(reports="none", exchange="none", media=media),
            "calls_per_day": (18, 18),
            "talk_seconds": (1, 1),
        },
        RINGCX_LIMIT_MEDIA=media,
    )
    assert world.run(recent[0], select=[*REPORTS, "recording_links"]).success
    found = planned(capsys, world, recent[0] - ONE_DAY, recent[0] + ONE_DAY)
    due = limit(found, "media")["requests"]
    assert due == sum(day["pending"] for day in found["dates"]) > 30
    took = Took(world, "media", due)
    assert world.run(recent[0], select=["recordings"]).success
    # Whether the limit is kept is tested in test_limits_kept.py: a stall of the machine moves requests into one window.
    assert took.wait() == pytest.approx(limit(found, "media")["seconds"], rel=TOLERANCE)


class Took:
    """Seconds between the first and the last of so many requests, as the source sees them."""

    def __init__(self, world: World, kind: str, wanted: int) -> None:
        self._seen: list[float] = []

        def watch() -> None:
            deadline = time.monotonic() + 120
            before = world.sandbox.counters()["requests"].get(kind, 0)
            while time.monotonic() < deadline:
                now = world.sandbox.counters()["requests"].get(kind, 0) - before
                if now and not self._seen:
                    self._seen.append(time.monotonic())
                if now >= wanted:
                    self._seen.append(time.monotonic())
                    return
                time.sleep(0.05)

        self._thread = threading.Thread(target=watch)
        self._thread.start()

    def wait(self) -> float:
        self._thread.join()
        first, last = self._seen
        return last - first
