"""The sandbox admits no more requests than its limits, and a client that waits as told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox import Limits
from sandbox.limits import Rate, SlidingWindows, parse_rates
from tests.sandbox.conftest import Asker, Clock

DAY = ("2026-03-09 00:00:00", "2026-03-09 02:00:00")


def test_limits_are_read() -> None:
    assert parse_rates("3/60, 9/900") == (Rate(3, 60), Rate(9, 900))
    assert parse_rates("none") == parse_rates("") == ()


@pytest.mark.parametrize("text", ["3", "x/60", "0/60", "3/0", "3/60,"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        parse_rates(text)


@example(gaps=[0.0, 40 - 1e-14], limit=1, seconds=40)  # no wait: what is shorter than a microsecond is none
@given(gaps=st.lists(st.floats(0, 40), max_size=60), limit=st.integers(1, 4), seconds=st.integers(1, 60))
def test_no_window_ever_admits_more_than_its_limit(gaps: list[float], limit: int, seconds: int) -> None:
    now = 0.0
    windows = SlidingWindows((Rate(limit, seconds), Rate(limit * 2, seconds * 3)), lambda: now)
    admitted = []
    for gap in gaps:
        now += gap
        if windows.admit("a") is None:
            admitted.append(now)
    for at in admitted:
        assert sum(at <= other < at + seconds - 1e-6 for other in admitted) <= limit
        assert sum(at <= other < at + seconds * 3 - 1e-6 for other in admitted) <= limit * 2
    assert windows.violations == len(gaps) - len(admitted)


@example(gaps=[1.3113173709339678, 0.0, 7.0])  # the sum of its waits is a rest of 1e-15 s short
@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_whoever_waits_as_told_is_admitted(gaps: list[float]) -> None:
    now = 0.0
    windows = SlidingWindows((Rate(2, 60), Rate(3, 300)), lambda: now)
    for gap in gaps:
        now += gap
        if (wait := windows.admit("a")) is not None:
            now += wait
            assert windows.admit("a") is None


def test_reports_are_limited_to_two_a_minute_for_each_account(start: Callable[..., Asker], clock: Clock) -> None:
    source = start(limits=Limits(), accounts=("15300002", "2"))
    statuses = [source.agents("inbound", *DAY).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = source.agents("inbound", *DAY)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    body = {"reportType": "GLOBAL_CALL_TYPE_DELIMITED", "reportCriteria": {"startDate": "x"}}
    assert source.report(body, account="2").status_code == 400  # another account has its own window
    clock.advance(int(refused.headers["retry-after"]))
    assert source.agents("inbound", *DAY).status_code == 200
    violations = source.sandbox.counters()["violations"]
    assert {name: number for name, number in violations.items() if number} == {"reports": 2}


def test_exchanges_are_limited_to_five_a_minute(start: Callable[..., Asker]) -> None:
    source = start(limits=Limits())
    form = {"rcAccessToken": "wrong", "rcTokenType": "Bearer"}
    url = f"{source.sandbox.url}/api/auth/login/rc/accesstoken"
    assert [source.http.post(url, data=form).status_code for _ in range(6)] == [401] * 5 + [429]
    assert source.sandbox.counters()["violations"]["exchange"] == 1


def test_media_is_limited_only_when_asked_for(start: Callable[..., Asker]) -> None:
    source = start(limits=Limits(media="1/60"))
    file = source.sandbox.truth("2026-03-09")[0]["file"]
    assert [source.media(file).status_code for _ in range(2)] == [200, 429]
    source.sandbox.set_limits(media="none")
    assert [source.media(file).status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("limits", [{"reports": "x"}, {"nonsense": "1/1"}])
def test_limits_that_are_none_are_refused_at_run_time(start: Callable[..., Asker], limits: dict[str, str]) -> None:
    source = start()
    with pytest.raises(ValueError, match="limit"):
        source.sandbox.set_limits(**limits)
