"""Is a report that has fewer rows than usual noticed, whatever one odd week did to the history?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

WEDNESDAY = date(2026, 11, 18)
ACCOUNT = "15300002"
UTC_ZONE = ZoneInfo("UTC")


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


HOLIDAYS: list[Sequence[int]] = [
    (100, 2, 100),
    (0, 104, 96),
    (95, 3, 105),
    (20, 20, 1),
    (5000, 4800, 40, 5150),
    (100, 98, 104, 0, 101, 99, 3, 97),
]


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
