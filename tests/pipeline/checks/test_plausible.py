"""The check `report_is_plausible`: a report that has fewer rows than usual is noticed, whatever one odd week did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines.calendar import day_bounds
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import INTERACTIONS
from pipelines.settings import VerifySettings
from pipelines.steps.check.result import CheckResult, Level
from pipelines.steps.check.row_counts import report_is_plausible
from sandbox.faults import Faults, Where
from tests.pipeline.checks.conftest import FEW, OLD, REPORTS, WARN, check, fetch, figures
from tests.pipeline.conftest import MakeWorld, World

WEDNESDAY = date(2026, 11, 18)
ACCOUNT = "15300002"
UTC_ZONE = ZoneInfo("UTC")

HOLIDAYS: list[Sequence[int]] = [
    (100, 2, 100),
    (0, 104, 96),
    (95, 3, 105),
    (20, 20, 1),
    (5000, 4800, 40, 5150),
    (100, 98, 104, 0, 101, 99, 3, 97),
]


def judged(folder: Path, history: Mapping[date, int], rows: int, *, day: date = WEDNESDAY) -> CheckResult:
    ledger = Ledger(LocalFiles(folder), clock=lambda: datetime.now(UTC))
    for past, count in {**history, day: rows}.items():
        start, end = day_bounds(past, UTC_ZONE)
        ledger.append_pull(
            PullRecord(
                report=INTERACTIONS,
                day=past,
                account_id=ACCOUNT,
                period_start=start,
                period_end=end,
                pulled_at=end + timedelta(hours=4),
                run_id="test",
                size=0,
                sha256="",
                rows=count,
                new=count,
                changed=0,
                unchanged=0,
                vanished=0,
                with_link=count,
            )
        )
    now = day_bounds(day, UTC_ZONE)[1] + timedelta(hours=5)
    settings = VerifySettings(archive_bucket="archive", ringcx_account_ids=(ACCOUNT,))
    return report_is_plausible(ledger, day, settings, report=INTERACTIONS, now=now)


def weeks(*rows: int, day: date = WEDNESDAY) -> dict[date, int]:
    """The rows of the same weekday, last week first."""
    return {day - timedelta(weeks=back): count for back, count in enumerate(rows, start=1)}


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


def test_too_little_history_says_so_and_passes(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox=FEW)
    assert world.run(recent[0], select=REPORTS).success
    weeks_before(world, recent[0], 2, like=recent[0])
    found = check(world, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert found.passed
    assert "history cannot tell" in (found.description or "")
    assert "too little history of this weekday: 2 dates, and 3 are needed" in (found.description or "")


def test_a_day_like_the_weeks_before_is_plausible_and_a_zero_or_a_half_is_not(make_world: MakeWorld) -> None:
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
    make_world: MakeWorld, report: str
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
    make_world: MakeWorld,
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
    make_world: MakeWorld,
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
    make_world: MakeWorld,
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


def test_a_report_that_was_never_pulled_is_not_plausible(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox=FEW)
    found = check(world, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert not found.passed
    assert "never pulled" in (found.description or "")


@pytest.mark.parametrize("history", HOLIDAYS)
def test_half_of_the_rows_missing_is_noticed_with_a_holiday_among_few_weeks(
    tmp_path: Path, history: Sequence[int]
) -> None:
    usual = sorted(history)[-2]
    found = judged(tmp_path / "half", weeks(*history), usual // 2)
    assert found.level is Level.warning
    assert f"{usual // 2:,} rows, where this weekday usually has" in found.sentence
    assert judged(tmp_path / "whole", weeks(*history), usual).level is Level.ok


@pytest.mark.parametrize("history", [*HOLIDAYS, (100, 101, 99), (100, 2, 3), (0, 0, 100), (3, 100), ()])
@pytest.mark.parametrize("rows", [0, 1])
def test_an_honest_holiday_is_never_called_usual(tmp_path: Path, history: Sequence[int], rows: int) -> None:
    found = judged(tmp_path, weeks(*history), rows)
    assert found.level is Level.warning or "history cannot tell" in found.sentence
    assert "would be noticed" not in found.sentence


@pytest.mark.parametrize("history", [(2, 3, 1, 4), (1, 1, 1), (5, 0, 2, 3, 1, 4)])
@pytest.mark.parametrize("rows", [0, 1, 6])
def test_a_quiet_account_is_not_accused_and_not_called_whole(tmp_path: Path, history: Sequence[int], rows: int) -> None:
    found = judged(tmp_path, weeks(*history), rows)
    assert found.level is Level.ok
    assert "so half could be missing" in found.sentence


def test_a_weekday_without_calls_is_as_usual_without_calls(tmp_path: Path) -> None:
    sunday = date(2026, 11, 22)
    found = judged(tmp_path, weeks(0, 0, 0, 0, day=sunday), 0, day=sunday)
    assert found.level is Level.ok
    assert "has 0 rows, where 0 are usual" in found.sentence


def test_the_sentence_says_how_sure_it_is(tmp_path: Path) -> None:
    steady = judged(tmp_path / "steady", weeks(100, 101, 99, 100), 100).sentence
    assert steady == (
        "interaction_metadata of 2026-11-18 has 100 rows, where 100 are usual. A loss of more than 30% of the "
        "rows would be noticed (4 dates compared)."
    )
    wild = judged(tmp_path / "wild", weeks(100, 140, 80, 110, 125, 90), 100).sentence
    assert "history cannot tell whether that is the whole day: " in wild
    assert "account 15300002: this weekday has 80 to 140 rows, so half could be missing" in wild
