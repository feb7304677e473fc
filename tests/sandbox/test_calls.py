"""The sandbox's calls are well-formed, depend on seed, account and date only, and include each special case."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import Faults, Where
from sandbox.calls import Call, CallPlan, calls_between, calls_of_day, find_recording

PLAN = CallPlan(
    seed=1,
    calls_per_day=(20, 60),
    talk_seconds=(3, 20),
    timezone="US/Arizona",
    crossing_zones=("UTC", "US/Arizona", "US/Eastern"),
)
DAY = date(2026, 3, 9)
ACCOUNT = "15300002"
DAYS = st.dates(date(2015, 1, 1), date(2035, 12, 31))


def test_the_same_seed_account_and_date_give_the_same_calls() -> None:
    first = calls_of_day(PLAN, ACCOUNT, DAY)
    calls_of_day.cache_clear()
    assert calls_of_day(PLAN, ACCOUNT, DAY) == first


@given(today=DAYS, back=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_around_a_date_the_calls_and_their_faults_are_those_around_any_other(today: date, back: int) -> None:
    faults = Faults(seed=5, late_links=Where(share=0.2), forbidden=Where(share=0.1), not_found=Where(share=0.1))

    def calls_around(around: date) -> list[Any]:
        day = calls_of_day(replace(PLAN, same_around=around), ACCOUNT, around - timedelta(days=back))
        return [
            (
                call.uii[14:],
                call.direction,
                call.ended_at - call.started_at,
                [(leg.ended_at - leg.started_at, leg.disposition) for leg in call.segments],
                [
                    (recording.layout, recording.duration_s, faults.touching(recording.path))
                    for recording in call.recordings()
                ],
            )
            for call in sorted(day, key=lambda call: call.uii[14:])
        ]

    assert calls_around(today) == calls_around(date(2026, 11, 28))


def test_another_seed_account_or_date_gives_other_calls() -> None:
    days = (
        calls_of_day(PLAN, ACCOUNT, DAY),
        calls_of_day(replace(PLAN, seed=2), ACCOUNT, DAY),
        calls_of_day(PLAN, "15300003", DAY),
        calls_of_day(PLAN, ACCOUNT, DAY + timedelta(days=1)),
    )
    assert len({tuple(call.uii for call in day) for day in days}) == 4


@settings(max_examples=60, deadline=None)
@given(DAYS)
def test_every_call_of_a_day_is_well_formed(day: date) -> None:
    calls = calls_of_day(PLAN, ACCOUNT, day)
    assert 20 <= len(calls) <= 60
    assert len({call.uii for call in calls}) == len(calls)
    for call in calls:
        assert call.started_at.date() == day
        eastern = call.started_at.astimezone(ZoneInfo("US/Eastern"))
        assert call.uii.startswith(eastern.strftime("%Y%m%d%H%M%S"))
        assert len(call.uii) == 30
        assert call.ended_at > call.started_at
        assert [segment.session_id for segment in call.segments] == list(range(2, 2 + len(call.segments)))
        for earlier, later in zip(call.segments, call.segments[1:], strict=False):
            assert earlier.ended_at <= later.started_at
        for recording in call.recordings():
            assert recording.duration_s >= 1
            assert find_recording(PLAN, ACCOUNT, recording.path) == recording


@settings(max_examples=60, deadline=None)
@given(DAYS, st.sampled_from(PLAN.crossing_zones))
def test_every_date_has_a_call_across_midnight_of_each_zone(day: date, zone: str) -> None:
    def crosses(call: Call) -> bool:
        local = ZoneInfo(zone)
        return call.started_at.astimezone(local).date() < call.ended_at.astimezone(local).date()

    crossing = [call for call in calls_of_day(PLAN, ACCOUNT, day) if crosses(call)]
    assert crossing
    assert any(
        segment.started_at.astimezone(ZoneInfo(zone)).date() > call.started_at.astimezone(ZoneInfo(zone)).date()
        for call in crossing
        for segment in call.segments
    )


def test_a_call_starts_exactly_at_midnight() -> None:
    assert any(call.started_at == datetime(2026, 3, 9, tzinfo=UTC) for call in calls_of_day(PLAN, ACCOUNT, DAY))


def test_a_few_weeks_have_everything_that_reports_must_show() -> None:
    calls = [call for n in range(20) for call in calls_of_day(PLAN, ACCOUNT, DAY + timedelta(days=n))]
    assert {call.direction for call in calls} == {"inbound", "outbound"}
    assert {len(call.segments) for call in calls} == {0, 1, 2, 3}
    assert all(not list(call.recordings()) for call in calls if not call.segments)
    assert any(call.segments and not call.mono for call in calls)  # recording not activated
    assert any(call.mono and any(not segment.recording for segment in call.segments) for call in calls)
    assert any(len(call.mono) == 2 for call in calls)
    texts = "".join(segment.disposition + segment.last_name for call in calls for segment in call.segments)
    assert all(sign in texts for sign in (",", '"', "\n", "客", "Н", "ت", "🙂", "'"))


def test_calls_that_began_the_day_before_are_found_by_a_period() -> None:
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    found = list(calls_between(PLAN, ACCOUNT, midnight, midnight + timedelta(seconds=30)))
    assert any(call.started_at < midnight < call.ended_at for call in found)


@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_the_number_of_calls_can_be_set(count: int) -> None:
    assert len(calls_of_day(replace(PLAN, calls_per_day=(count, count)), ACCOUNT, DAY)) == count


def test_no_recording_is_found_under_a_foreign_path() -> None:
    for path in ("", "x", "15300002/202603/09/nothing-1.WAV", "../../etc/passwd", "20260309", "99999999x-1.WAV"):
        assert find_recording(PLAN, ACCOUNT, path) is None


def test_file_paths_are_unique_over_many_days() -> None:
    paths = Counter(
        recording.path
        for n in range(400)
        for call in calls_of_day(PLAN, ACCOUNT, date(2026, 1, 1) + timedelta(days=n))
        for recording in call.recordings()
    )
    assert max(paths.values()) == 1
