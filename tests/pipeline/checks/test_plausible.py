"""The check `report_is_plausible`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from sandbox.faults import Faults, Where
from tests.pipeline.checks.conftest import FEW, OLD, REPORTS, WARN, check, fetch, figures
from tests.pipeline.conftest import World


def weeks_before(world: World, day: date, weeks: int, *, like: date) -> None:
    """A ledger that remembers pulls of the same weekday, with as many rows as `like` has."""
    ledger = world.services().ledger
    for report in REPORTS:
        for pull in ledger.pulls(report, like):
            for back in range(1, weeks + 1):
                past = day - timedelta(weeks=back)
                ahead = past - like
                ledger.append_pull(
                    replace(
                        pull,
                        day=past,
                        period_start=pull.period_start + ahead,
                        period_end=pull.period_end + ahead,
                        pulled_at=pull.pulled_at + ahead,
                    )
                )


def test_too_little_history_says_so_and_passes(make_world: Callable[..., World], recent: list[date]) -> None:
    world = make_world(sandbox=FEW)
    assert world.run(recent[0], select=REPORTS).success
    weeks_before(world, recent[0], 2, like=recent[0])
    found = check(world, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert found.passed
    assert "history cannot tell" in (found.description or "")
    assert "too little history of this weekday: 2 dates, and 3 are needed" in (found.description or "")


def test_a_day_like_the_weeks_before_is_plausible_and_a_zero_or_a_half_is_not(make_world: Callable[..., World]) -> None:
    world = make_world(sandbox={"calls_per_day": (20, 20)})
    usual, half, none = OLD, OLD + timedelta(days=1), OLD + timedelta(days=2)
    assert world.run(usual, select=REPORTS).success
    for day in (usual, half, none):
        weeks_before(world, day, 3, like=usual)
    calls = sorted({recording["uii"] for recording in world.truth(half)})
    world.sandbox.set_faults(Faults(late_rows=Where(paths=tuple(f"*{uii}*" for uii in calls[: len(calls) * 2 // 3]))))
    assert world.run(half, select=REPORTS).success
    world.sandbox.set_faults(Faults(late_rows=Where(share=1.0)))
    assert world.run(none, select=REPORTS).success
    for report in REPORTS:
        assert check(world, "report_is_plausible", usual, asset=report).passed
        found = check(world, "report_is_plausible", half, asset=report)
        assert (found.passed, found.severity) == (False, WARN)
        assert "where this weekday usually has" in (found.description or "")
        found = check(world, "report_is_plausible", none, asset=report)
        assert (found.passed, found.severity) == (False, WARN)
        assert "0 rows, where this weekday usually has" in (found.description or "")


@pytest.mark.parametrize("report", REPORTS)
def test_a_first_pull_that_answers_half_its_rows_is_noticed_without_any_history(
    make_world: Callable[..., World], report: str
) -> None:
    world = make_world(sandbox={"calls_per_day": (20, 20)})
    layout = {"agent_segment_metadata": "stereo", "global_call_type_detail": "mono"}[report]
    uiis = sorted({recording["uii"] for recording in world.truth(OLD) if recording["layout"] == layout})
    marks = {"stereo": "*-session-*", "mono": "-[0-9].WAV"}
    hidden = tuple(f"*{uii}{marks[layout]}" for uii in uiis[::2])
    world.sandbox.set_faults(Faults(late_rows=Where(paths=hidden)))
    assert world.run(OLD, select=REPORTS).success
    agree = check(world, "mono_and_stereo_agree", OLD)
    assert (agree.passed, agree.severity) == (False, WARN)
    lacks = {"stereo": "calls_not_in_agent_report", "mono": "calls_not_in_global_report"}[layout]
    assert figures(agree)[lacks] >= len(hidden) // 2


def test_rows_that_vanish_on_a_later_pull_are_counted_and_their_loss_is_noticed(
    make_world: Callable[..., World],
) -> None:
    world = make_world(sandbox={"calls_per_day": (14, 14)})
    fetch(world, OLD)
    assert check(world, "report_is_plausible", OLD, asset=REPORTS[1]).passed
    uiis = sorted({recording["uii"] for recording in world.truth(OLD)})
    world.sandbox.set_faults(Faults(late_rows=Where(paths=tuple(f"*{uii}*" for uii in uiis[::2]))))
    fetch(world, OLD)
    found = check(world, "report_is_plausible", OLD, asset=REPORTS[1])
    assert (found.passed, found.severity) == (False, WARN)
    assert figures(found)["rows_vanished"] > 0
    assert "no longer in the source" in (found.description or "")
    assert check(world, "every_recording_is_accounted_for", OLD).passed, "what was seen once is still held"


def test_fewer_rows_than_an_earlier_pull_had_are_noticed_though_the_ledger_has_lost_them(
    make_world: Callable[..., World],
) -> None:
    world = make_world(sandbox=FEW)
    assert world.run(OLD, select=REPORTS).success
    ledger = world.services().ledger
    (pull,) = ledger.pulls(REPORTS[1], OLD)
    assert check(world, "report_is_plausible", OLD, asset=REPORTS[1]).passed
    # The lost rows cannot vanish: the pull found none of them.
    ledger.append_pull(replace(pull, rows=1, new=1, pulled_at=datetime.now(UTC)))
    found = check(world, "report_is_plausible", OLD, asset=REPORTS[1])
    assert (found.passed, found.severity) == (False, WARN)
    assert f"1 row, where an earlier pull of the same date had {pull.rows}" in (found.description or "")
    assert figures(found)["rows_vanished"] == 0


def test_one_row_that_vanished_and_one_call_that_is_lacking_are_told_of_as_one(
    make_world: Callable[..., World],
) -> None:
    world = make_world(sandbox=FEW)
    mono, stereo = (
        {recording["uii"] for recording in world.truth(OLD) if recording["layout"] == of} for of in ("mono", "stereo")
    )
    world.sandbox.set_faults(Faults(late_rows=Where(paths=(f"*{min(mono & stereo)}-[0-9].WAV",))))
    assert world.run(OLD, select=REPORTS).success
    ledger = world.services().ledger
    (pull,) = ledger.pulls(REPORTS[1], OLD)
    ledger.append_pull(replace(pull, vanished=1, pulled_at=datetime.now(UTC)))
    description = check(world, "report_is_plausible", OLD, asset=REPORTS[1]).description or ""
    assert "1 row seen before is gone from the report" in description
    assert "earlier pull" not in description
    description = check(world, "mono_and_stereo_agree", OLD).description or ""
    assert "1 call is missing from Global Call Type Detail, 0 from" in description


def test_a_report_that_was_never_pulled_is_not_plausible(make_world: Callable[..., World], recent: list[date]) -> None:
    world = make_world(sandbox=FEW)
    found = check(world, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert not found.passed
    assert "never pulled" in (found.description or "")
