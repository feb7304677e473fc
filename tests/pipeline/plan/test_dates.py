"""Which dates are left, in which order, and what each costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from pipelines.ledger.files import LocalFiles
from pipelines.ringcx.limits.limiter import Rate
from pipelines.steps.plan.estimate import seconds_needed
from tests.pipeline.plan.conftest import INTERACTIONS, TODAY, Chronicle, back, limit, row_of


def test_dates_never_pulled_cost_three_reports_an_account_and_their_recordings_are_unknown(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle(RINGCX_ACCOUNT_IDS="15300002,15300003")
    found = chronicle.plan(back(10), back(1))
    reports = limit(found, "reports")
    assert (reports["requests"], reports["of_one_account"]) == (60, 30)
    # 30 of an account, two in each 60 s and the limiter's own second; accounts do not wait for each other.
    assert reports["seconds"] == 14 * 61
    assert limit(found, "media")["requests"] == limit(found, "metadata")["requests"] == 0
    assert found["dates_unknown"] == 10
    assert {day["recordings_to_fetch"] for day in found["dates"]} == {None}
    assert {day["bytes_to_store"] for day in found["dates"]} == {None}
    assert "unknown" in chronicle.out
    assert "how many recordings they have is unknown" in chronicle.out
    assert "To fetch: 0 known, 0 estimated; the size is unknown.\n" in chronicle.out
    assert "At the prices of PLAN_PRICE_*: the cost is unknown, too.\n" in chronicle.out


@pytest.mark.parametrize(("window", "spring", "usual", "autumn"), [("10800", 8, 8, 9), ("3600", 23, 24, 25)])
def test_interaction_metadata_is_asked_for_by_the_windows_of_a_day_of_23_24_or_25_hours(
    make_chronicle: Callable[..., Chronicle], window: str, spring: int, usual: int, autumn: int
) -> None:
    chronicle = make_chronicle(RINGCX_SOURCE="current", ARCHIVE_TIMEZONE="Europe/Berlin", RINGCX_METADATA_WINDOW=window)
    found = chronicle.plan(date(2026, 3, 28), date(2026, 10, 25))
    asked = [
        row_of(found, day)["requests"]["metadata"] for day in (date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25))
    ]
    assert asked == [spring, usual, autumn]
    assert limit(found, "reports")["requests"] == 0
    assert limit(found, "metadata")["seconds"] == pytest.approx(
        seconds_needed(limit(found, "metadata")["requests"], (Rate(3, 60), Rate(9, 900))), abs=0.1
    )
    assert found["longest"] == "metadata"


def test_a_date_that_a_full_source_covers_is_complete_and_another_costs_what_is_asked(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle(RINGCX_SOURCE="both")
    chronicle.pulled(back(3))
    chronicle.pulled(back(4), names=[INTERACTIONS, "global_call_type_detail"])
    chronicle.pulled(back(5), names=["agent_segment_metadata"])
    found = chronicle.plan(back(5), back(3))
    assert [day["state"] for day in found["dates"]] == ["partly pulled", "complete", "complete"]
    assert row_of(found, back(5))["requests"] == {"reports": 3, "metadata": 8}


def test_complete_dates_are_left_out_and_the_backfills_are_the_ranges_between_them(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle()
    for ago in (9, 6, 5):
        chronicle.pulled(back(ago))
        chronicle.recordings(back(ago), held=4)
    found = chronicle.plan(back(10), back(1))
    ranges = [(backfill["from"], backfill["to"]) for backfill in found["backfills"]]
    assert ranges == [(str(a), str(b)) for a, b in ((back(10), back(10)), (back(8), back(7)), (back(4), back(1)))]
    assert found["dates_to_run"] == 7
    for backfill in found["backfills"]:
        assert f"  {backfill['command']}  # in time\n" in chronicle.out
    assert "7 dates to run, 3 left out" in chronicle.out


def test_a_range_in_which_nothing_is_left_says_so_and_launches_nothing(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle()
    chronicle.pulled(back(2))
    found = chronicle.plan(back(2), back(2))
    assert found["backfills"] == []
    assert chronicle.out.endswith(
        "Nothing to run: according to the ledger, nothing is left to fetch on the 1 planned date.\n"
    )
    assert "dagster job backfill" not in chronicle.out


def test_a_pulled_date_with_something_pending_fetches_only_that(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle(RINGCX_LIMIT_MEDIA="6/60")
    chronicle.pulled(back(2))
    chronicle.recordings(back(2), held=4, pending=13, size=2_000_000)
    found = chronicle.plan(back(2), back(2))
    day = row_of(found, back(2))
    assert (day["state"], day["pending"], day["recordings_to_fetch"], day["estimated"]) == ("pending", 13, 13, False)
    assert day["bytes_to_store"] == 13 * 2_000_000
    assert limit(found, "media")["seconds"] == 2 * 61


def test_what_the_current_api_holds_back_counts_against_its_own_limit(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle(RINGCX_SOURCE="current")
    chronicle.pulled(back(2), names=[INTERACTIONS])
    chronicle.recordings(back(2), pending=7, source=INTERACTIONS)
    found = chronicle.plan(back(2), back(2))
    assert (limit(found, "media")["requests"], limit(found, "download")["requests"]) == (0, 7)


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ([(0, 0.5)], "partly pulled"),
        ([(0, 0.5), (0.6, 1)], "partly pulled"),
        ([(0.5, 1), (0, 0.5)], "partly pulled"),
        ([(0.5, 1), (0, 1)], "complete"),
    ],
)
def test_only_a_pull_of_the_whole_day_makes_it_complete_as_it_does_for_the_checks(
    make_chronicle: Callable[..., Chronicle], parts: list[tuple[float, float]], state: str
) -> None:
    chronicle = make_chronicle(RINGCX_SOURCE="current")
    for part in parts:
        chronicle.pulled(back(2), names=[INTERACTIONS], part=part)
    assert row_of(chronicle.plan(back(2), back(2)), back(2))["state"] == state


def test_a_date_that_one_account_was_not_asked_for_is_not_complete(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle(RINGCX_ACCOUNT_IDS="15300002,15300003")
    chronicle.pulled(back(2))
    assert row_of(chronicle.plan(back(2), back(2)), back(2))["state"] == "partly pulled"


def test_today_is_not_over_and_is_left_to_the_nights_run(make_chronicle: Callable[..., Chronicle]) -> None:
    found = make_chronicle().plan(back(1), TODAY)
    assert row_of(found, TODAY)["state"] == "not over"
    assert [(backfill["from"], backfill["to"]) for backfill in found["backfills"]] == [(str(back(1)), str(back(1)))]


def test_recordings_are_estimated_by_the_median_of_the_same_weekday_and_by_nothing_else(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle(RINGCX_LIMIT_MEDIA="10/60", RINGCX_RETENTION_DAYS="365")
    # Three Mondays with 10, 40 and 20 recordings, two Sundays that were quiet; no other weekday.
    monday, sunday = date(2026, 11, 23), date(2026, 11, 22)
    for weeks, count in enumerate((10, 40, 20)):
        chronicle.pulled(monday - timedelta(weeks=weeks))
        chronicle.recordings(monday - timedelta(weeks=weeks), held=count, size=3_000_000)
        if weeks < 2:
            chronicle.pulled(sunday - timedelta(weeks=weeks))
    found = chronicle.plan(date(2026, 6, 1), date(2026, 6, 7))
    days = {date.fromisoformat(day["date"]).weekday(): day for day in found["dates"]}
    assert (days[0]["recordings_to_fetch"], days[0]["bytes_to_store"], days[0]["estimated"]) == (20, 60_000_000, True)
    assert (days[6]["recordings_to_fetch"], days[6]["bytes_to_store"], days[6]["estimated"]) == (0, 0, True)
    assert {days[weekday]["recordings_to_fetch"] for weekday in range(1, 6)} == {None}
    assert found["dates_unknown"] == 5
    assert found["estimate"]["dates"] == sorted(
        str(day)
        for day in [*(monday - timedelta(weeks=n) for n in range(3)), *(sunday - timedelta(weeks=n) for n in range(2))]
    )
    assert limit(found, "media")["seconds"] == 61
    assert "here 5 dates from 2026-11-09 to 2026-11-23" in " ".join(chronicle.out.split())


def test_a_quiet_weekday_of_one_account_lowers_its_estimate_and_not_the_others(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    accounts = ("15300002", "15300003")
    chronicle = make_chronicle(RINGCX_ACCOUNT_IDS=",".join(accounts), RINGCX_LIMIT_MEDIA="1/9")
    for weeks in (0, 1):
        chronicle.pulled(back(1 + 7 * weeks), accounts=accounts)
        chronicle.recordings(back(1 + 7 * weeks), held=8, account=accounts[0])
    found = chronicle.plan(back(15), back(15))
    media = limit(found, "media")
    assert (media["requests"], media["of_one_account"], media["seconds"]) == (8, 8, 70)


def test_what_the_source_purges_soon_comes_first_and_what_it_has_purged_comes_last(
    make_chronicle: Callable[..., Chronicle],
) -> None:
    chronicle = make_chronicle(RINGCX_RETENTION_DAYS="30", RINGCX_RETENTION_MARGIN_DAYS="5")
    found = chronicle.plan(back(33), back(20))
    assert [(backfill["from"], backfill["to"], backfill["urgency"]) for backfill in found["backfills"]] == [
        (str(back(30)), str(back(26)), "urgent"),
        (str(back(25)), str(back(20)), "in time"),
        (str(back(33)), str(back(31)), "probably lost"),
    ]
    assert [row_of(found, back(ago))["days_left"] for ago in (33, 30, 20)] == [-3, 0, 10]
    assert chronicle.out.index("# urgent") < chronicle.out.index("# probably lost")


def test_the_cost_is_puts_and_gigabytes_by_their_prices(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle()
    chronicle.pulled(back(2))
    chronicle.recordings(back(2), held=1, pending=1000, size=2**20)
    usual = chronicle.plan(back(2), back(2))["storage"]
    assert usual == {"puts": 1000, "currency": "USD", "once": 0.005, "each_month": round(1000 / 1024 * 0.023, 4)}
    chronicle = make_chronicle(PLAN_PRICE_PUT_PER_1000="1", PLAN_PRICE_GB_MONTH="2", PLAN_CURRENCY="EUR")
    other = chronicle.plan(back(2), back(2))["storage"]
    assert other == {"puts": 1000, "currency": "EUR", "once": 1.0, "each_month": round(2000 / 1024, 4)}
    assert "1.00 EUR to upload, 1.95 EUR a month to keep" in chronicle.out


def test_three_years_are_planned_at_the_cost_of_the_dates_that_there_are(
    make_chronicle: Callable[..., Chronicle], monkeypatch: pytest.MonkeyPatch
) -> None:
    chronicle = make_chronicle(RINGCX_RETENTION_DAYS="1500")
    for ago in range(1, 15):
        chronicle.pulled(back(ago))
        chronicle.recordings(back(ago), held=3)
    before = {path: path.stat().st_mtime_ns for path in Path("ledger").rglob("*")}
    started = time.process_time()
    found = chronicle.plan(date(2023, 11, 24), TODAY)
    assert time.process_time() - started < 10
    assert len(found["dates"]) == 1097
    assert found["dates_unknown"] == 0
    assert found["dates_to_run"] == 1097 - 14 - 1
    assert {path: path.stat().st_mtime_ns for path in Path("ledger").rglob("*")} == before, "it changes nothing"


def test_the_files_of_dates_that_are_not_planned_are_never_listed(
    make_chronicle: Callable[..., Chronicle], monkeypatch: pytest.MonkeyPatch
) -> None:
    chronicle = make_chronicle()
    for ago in (2, 40, 400):
        chronicle.recordings(back(ago), held=1)
    listed = []
    whole = LocalFiles.list

    def listing(files: LocalFiles, prefix: str) -> list[str]:
        listed.append(prefix)
        return whole(files, prefix)

    monkeypatch.setattr(LocalFiles, "list", listing)
    chronicle.plan(back(2), back(1))
    assert [key for key in listed if key.startswith("recording_states/")] == [f"recording_states/date={back(2)}/"]
