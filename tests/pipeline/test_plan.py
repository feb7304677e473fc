"""`ringcx-archive plan` and the job `backfill_plan`: what a backfill takes is known before it runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status, archived
from pipelines.ledger.store import Ledger
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.settings import PlanSettings, load
from pipelines.steps.plan.estimate import seconds_needed
from sandbox.config import Limits
from tests.commands import run
from tests.pipeline.conftest import World

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY = NOW.date()
REPORTS = ("agent_segment_metadata", "global_call_type_detail")
INTERACTIONS = "interaction_metadata"
ONE_DAY = timedelta(days=1)


def back(days: int) -> date:
    return TODAY - timedelta(days=days)


@dataclass
class Chronicle:
    """A ledger in a folder, written as runs write it, and the command over it."""

    capsys: pytest.CaptureFixture[str]
    variables: dict[str, str]
    out: str = ""
    err: str = ""

    @property
    def ledger(self) -> Ledger:
        return Ledger(LocalFiles(Path("ledger")), clock=lambda: datetime.now(UTC))

    def pulled(
        self,
        day: date,
        *,
        names: Iterable[str] = REPORTS,
        accounts: Iterable[str] = ("15300002",),
        part: tuple[float, float] = (0, 1),
    ) -> None:
        """A pull of each report; `part` of the day."""
        start, end = day_bounds(day, load(PlanSettings).zone)
        length = end - start
        for name in names:
            for account in accounts:
                self.ledger.append_pull(
                    PullRecord(
                        report=name,
                        day=day,
                        account_id=account,
                        period_start=start + length * part[0],
                        period_end=start + length * part[1],
                        pulled_at=NOW,
                        run_id="test",
                        size=0,
                        sha256="",
                        rows=0,
                        new=0,
                        changed=0,
                        unchanged=0,
                        vanished=0,
                        with_link=0,
                    )
                )

    def recordings(
        self,
        day: date,
        *,
        held: int = 0,
        pending: int = 0,
        size: int = 1_000_000,
        account: str = "15300002",
        source: str = "global_call_type_detail",
    ) -> None:
        lines = []
        for number in range(held + pending):
            state = RecordingState(
                recording_id=f"{account}/{source}/{day}-{number}.WAV",
                account_id=account,
                uii="1",
                layout="mono",
                source=source,
                date=day,
                status=Status.pending,
                next_attempt_at=NOW,
                run_id="test",
                written_at=NOW,
                link="https://c02-recordings.virtualacd.biz/x",
                found_on=day,
                first_seen_at=NOW,
            )
            if number < held:
                state = archived(
                    replace(state, written_at=NOW + ONE_DAY),
                    key=f"recordings/{day}-{number}.WAV",
                    size=size,
                    sha256="0" * 64,
                    duration_s=1.0,
                    etag=None,
                    version_id=None,
                    warnings=(),
                    now=NOW + ONE_DAY,
                    run_id="test",
                )
            lines.append(state)
        self.ledger.append_states(lines)

    def plan(self, first: date, last: date) -> dict[str, Any]:
        code = run("plan", ["--from", str(first), "--to", str(last), "--json", "plan.json"], clock=lambda: NOW)
        self.out, self.err = self.capsys.readouterr()
        assert code == 0, self.err
        found: dict[str, Any] = json.loads(Path("plan.json").read_text())
        return found

    def refused(self, *arguments: str) -> str:
        assert run("plan", list(arguments), clock=lambda: NOW) == 2
        self.out, self.err = self.capsys.readouterr()
        assert self.out == ""
        return self.err


@pytest.fixture
def chronicle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Chronicle]:
    """Without any log-in to RingCX, and with an S3 that nobody can reach: neither is needed."""

    def make(**variables: str) -> Chronicle:
        environment = {
            "RINGCX_ACCOUNT_IDS": "15300002",
            "ARCHIVE_BUCKET": "archive",
            "LEDGER_URL": "ledger",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
            **variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Chronicle(capsys, environment)

    return make


def limit(found: dict[str, Any], name: str) -> dict[str, Any]:
    (limit,) = [limit for limit in found["limits"] if limit["name"] == name]
    return limit


def row_of(found: dict[str, Any], day: date) -> dict[str, Any]:
    (row,) = [row for row in found["dates"] if row["date"] == str(day)]
    return row


def test_dates_never_pulled_cost_three_reports_an_account_and_their_recordings_are_unknown(
    chronicle: Callable[..., Chronicle],
) -> None:
    it = chronicle(RINGCX_ACCOUNT_IDS="15300002,15300003")
    found = it.plan(back(10), back(1))
    reports = limit(found, "reports")
    assert (reports["requests"], reports["of_one_account"]) == (60, 30)
    # 30 of an account, two in each 60 s and the limiter's own second; accounts do not wait for each other.
    assert reports["seconds"] == 14 * 61
    assert limit(found, "media")["requests"] == limit(found, "metadata")["requests"] == 0
    assert found["dates_unknown"] == 10
    assert {day["recordings_to_fetch"] for day in found["dates"]} == {None}
    assert {day["bytes_to_store"] for day in found["dates"]} == {None}
    assert "unknown" in it.out
    assert "how many recordings they have is unknown" in it.out
    assert "To fetch: 0 known, 0 estimated; the size is unknown.\n" in it.out
    assert "At the prices of PLAN_PRICE_*: the cost is unknown, too.\n" in it.out


@pytest.mark.parametrize(("window", "spring", "usual", "autumn"), [("10800", 8, 8, 9), ("3600", 23, 24, 25)])
def test_interaction_metadata_is_asked_for_by_the_windows_of_a_day_of_23_24_or_25_hours(
    chronicle: Callable[..., Chronicle], window: str, spring: int, usual: int, autumn: int
) -> None:
    it = chronicle(RINGCX_SOURCE="current", ARCHIVE_TIMEZONE="Europe/Berlin", RINGCX_METADATA_WINDOW=window)
    found = it.plan(date(2026, 3, 28), date(2026, 10, 25))
    asked = [
        row_of(found, day)["requests"]["metadata"] for day in (date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25))
    ]
    assert asked == [spring, usual, autumn]
    assert limit(found, "reports")["requests"] == 0
    assert limit(found, "metadata")["seconds"] == pytest.approx(
        seconds_needed(limit(found, "metadata")["requests"], (Rate(3, 60), Rate(9, 900))), abs=0.1
    )
    assert found["longest"] == "metadata"


def test_a_date_that_either_source_covers_is_complete_and_another_costs_what_is_asked(
    chronicle: Callable[..., Chronicle],
) -> None:
    it = chronicle(RINGCX_SOURCE="both")
    it.pulled(back(3))
    it.pulled(back(4), names=[INTERACTIONS])
    it.pulled(back(5), names=["agent_segment_metadata"])
    found = it.plan(back(5), back(3))
    assert [day["state"] for day in found["dates"]] == ["partly pulled", "complete", "complete"]
    assert row_of(found, back(5))["requests"] == {"reports": 3, "metadata": 8}


def test_complete_dates_are_left_out_and_the_backfills_are_the_ranges_between_them(
    chronicle: Callable[..., Chronicle],
) -> None:
    it = chronicle()
    for ago in (9, 6, 5):
        it.pulled(back(ago))
        it.recordings(back(ago), held=4)
    found = it.plan(back(10), back(1))
    ranges = [(backfill["from"], backfill["to"]) for backfill in found["backfills"]]
    assert ranges == [(str(a), str(b)) for a, b in ((back(10), back(10)), (back(8), back(7)), (back(4), back(1)))]
    assert found["dates_to_run"] == 7
    for backfill in found["backfills"]:
        assert f"  {backfill['command']}  # in time\n" in it.out
    assert "7 dates to run, 3 left out" in it.out


def test_a_range_in_which_nothing_is_left_says_so_and_launches_nothing(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle()
    it.pulled(back(2))
    found = it.plan(back(2), back(2))
    assert found["backfills"] == []
    assert it.out.endswith("Nothing to run: according to the ledger, nothing is left to fetch on the 1 planned date.\n")
    assert "dagster job backfill" not in it.out


def test_a_pulled_date_with_something_pending_fetches_only_that(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle(RINGCX_LIMIT_MEDIA="6/60")
    it.pulled(back(2))
    it.recordings(back(2), held=4, pending=13, size=2_000_000)
    found = it.plan(back(2), back(2))
    day = row_of(found, back(2))
    assert (day["state"], day["pending"], day["recordings_to_fetch"], day["estimated"]) == ("pending", 13, 13, False)
    assert day["bytes_to_store"] == 13 * 2_000_000
    assert limit(found, "media")["seconds"] == 2 * 61


def test_what_the_current_api_holds_back_counts_against_its_own_limit(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle(RINGCX_SOURCE="current")
    it.pulled(back(2), names=[INTERACTIONS])
    it.recordings(back(2), pending=7, source=INTERACTIONS)
    found = it.plan(back(2), back(2))
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
    chronicle: Callable[..., Chronicle], parts: list[tuple[float, float]], state: str
) -> None:
    it = chronicle(RINGCX_SOURCE="current")
    for part in parts:
        it.pulled(back(2), names=[INTERACTIONS], part=part)
    assert row_of(it.plan(back(2), back(2)), back(2))["state"] == state


def test_a_date_that_one_account_was_not_asked_for_is_not_complete(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle(RINGCX_ACCOUNT_IDS="15300002,15300003")
    it.pulled(back(2))
    assert row_of(it.plan(back(2), back(2)), back(2))["state"] == "partly pulled"


def test_today_is_not_over_and_is_left_to_the_nights_run(chronicle: Callable[..., Chronicle]) -> None:
    found = chronicle().plan(back(1), TODAY)
    assert row_of(found, TODAY)["state"] == "not over"
    assert [(backfill["from"], backfill["to"]) for backfill in found["backfills"]] == [(str(back(1)), str(back(1)))]


def test_recordings_are_estimated_by_the_median_of_the_same_weekday_and_by_nothing_else(
    chronicle: Callable[..., Chronicle],
) -> None:
    it = chronicle(RINGCX_LIMIT_MEDIA="10/60", RINGCX_RETENTION_DAYS="365")
    # Three Mondays with 10, 40 and 20 recordings, two Sundays that were quiet; no other weekday.
    monday, sunday = date(2026, 11, 23), date(2026, 11, 22)
    for weeks, count in enumerate((10, 40, 20)):
        it.pulled(monday - timedelta(weeks=weeks))
        it.recordings(monday - timedelta(weeks=weeks), held=count, size=3_000_000)
        if weeks < 2:
            it.pulled(sunday - timedelta(weeks=weeks))
    found = it.plan(date(2026, 6, 1), date(2026, 6, 7))
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
    assert "here 5 dates from 2026-11-09 to 2026-11-23" in " ".join(it.out.split())


def test_a_quiet_weekday_of_one_account_lowers_its_estimate_and_not_the_others(
    chronicle: Callable[..., Chronicle],
) -> None:
    accounts = ("15300002", "15300003")
    it = chronicle(RINGCX_ACCOUNT_IDS=",".join(accounts), RINGCX_LIMIT_MEDIA="1/9")
    for weeks in (0, 1):
        it.pulled(back(1 + 7 * weeks), accounts=accounts)
        it.recordings(back(1 + 7 * weeks), held=8, account=accounts[0])
    found = it.plan(back(15), back(15))
    media = limit(found, "media")
    assert (media["requests"], media["of_one_account"], media["seconds"]) == (8, 8, 70)


def test_what_the_source_purges_soon_comes_first_and_what_it_has_purged_comes_last(
    chronicle: Callable[..., Chronicle],
) -> None:
    it = chronicle(RINGCX_RETENTION_DAYS="30", RINGCX_RETENTION_MARGIN_DAYS="5")
    found = it.plan(back(33), back(20))
    assert [(backfill["from"], backfill["to"], backfill["urgency"]) for backfill in found["backfills"]] == [
        (str(back(30)), str(back(26)), "urgent"),
        (str(back(25)), str(back(20)), "in time"),
        (str(back(33)), str(back(31)), "probably lost"),
    ]
    assert [row_of(found, back(ago))["days_left"] for ago in (33, 30, 20)] == [-3, 0, 10]
    assert it.out.index("# urgent") < it.out.index("# probably lost")


def test_the_cost_is_puts_and_gigabytes_by_their_prices(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle()
    it.pulled(back(2))
    it.recordings(back(2), held=1, pending=1000, size=2**20)
    usual = it.plan(back(2), back(2))["storage"]
    assert usual == {"puts": 1000, "currency": "USD", "once": 0.005, "each_month": round(1000 / 1024 * 0.023, 4)}
    it = chronicle(PLAN_PRICE_PUT_PER_1000="1", PLAN_PRICE_GB_MONTH="2", PLAN_CURRENCY="EUR")
    other = it.plan(back(2), back(2))["storage"]
    assert other == {"puts": 1000, "currency": "EUR", "once": 1.0, "each_month": round(2000 / 1024, 4)}
    assert "1.00 EUR to upload, 1.95 EUR a month to keep" in it.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "2026-11-20"), "Missing option '--to'"),
        (("--from", "2026-11-20", "--to", "2026-11-19"), "is after --to"),
        (("--from", "2026-11-20", "--to", "2026-11-25"), "is in the future"),
        (("--from", "2026-13-20", "--to", "2026-11-21"), "not a valid date"),
        (("--from", "yesterday", "--to", "2026-11-21"), "yesterday is not a valid date"),
        (("--from", "2019-12-31", "--to", "2026-11-21"), "before the first date of the archive, 2020-01-01"),
        (("--from", "2026-11-20", "--to", "2026-11-21", "--json", "nowhere/plan.json"), "there is no folder nowhere"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_sentence(
    chronicle: Callable[..., Chronicle], arguments: tuple[str, ...], sentence: str
) -> None:
    refusal = chronicle().refused(*arguments)
    assert sentence in refusal
    assert refusal.endswith(".\n")
    assert refusal.count("\n") == 1


def test_a_wrong_setting_ends_with_2_and_names_the_variable(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle(PLAN_PRICE_GB_MONTH="cheap")
    assert "PLAN_PRICE_GB_MONTH" in it.refused("--from", "2026-11-20", "--to", "2026-11-21")


def test_a_damaged_ledger_is_no_history_but_an_error(chronicle: Callable[..., Chronicle]) -> None:
    it = chronicle()
    it.pulled(back(2))
    (part,) = Path(f"ledger/report_pulls/report={REPORTS[0]}/date={back(2)}").glob("*.parquet")
    part.write_bytes(b"PAR1 cut off")
    assert "cannot be read" in it.refused("--from", str(back(3)), "--to", str(back(1)))


def test_three_years_are_planned_at_the_cost_of_the_dates_that_there_are(
    chronicle: Callable[..., Chronicle], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = chronicle(RINGCX_RETENTION_DAYS="1500")
    for ago in range(1, 15):
        it.pulled(back(ago))
        it.recordings(back(ago), held=3)
    before = {path: path.stat().st_mtime_ns for path in Path("ledger").rglob("*")}
    started = time.process_time()
    found = it.plan(date(2023, 11, 24), TODAY)
    assert time.process_time() - started < 10
    assert len(found["dates"]) == 1097
    assert found["dates_unknown"] == 0
    assert found["dates_to_run"] == 1097 - 14 - 1
    assert {path: path.stat().st_mtime_ns for path in Path("ledger").rglob("*")} == before, "it changes nothing"


def test_the_files_of_dates_that_are_not_planned_are_never_listed(
    chronicle: Callable[..., Chronicle], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = chronicle()
    for ago in (2, 40, 400):
        it.recordings(back(ago), held=1)
    listed = []
    whole = LocalFiles.list

    def listing(files: LocalFiles, prefix: str) -> list[str]:
        listed.append(prefix)
        return whole(files, prefix)

    monkeypatch.setattr(LocalFiles, "list", listing)
    it.plan(back(2), back(1))
    assert [key for key in listed if key.startswith("recording_states/")] == [f"recording_states/date={back(2)}/"]


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


def planned(capsys: pytest.CaptureFixture[str], it: World, first: date, last: date | None = None) -> dict[str, Any]:
    capsys.readouterr()
    assert run("plan", ["--from", str(first), "--to", str(last or first), "--json", "plan.json"], it.s3) == 0
    found: dict[str, Any] = json.loads(Path("plan.json").read_text())
    return found


# Of the planned length: a run also logs in, parses and writes, and begins somewhere in a window.
TOLERANCE = 0.35


@pytest.mark.slow
def test_the_planned_hours_are_those_that_the_runs_then_take(
    world: Callable[..., World], capsys: pytest.CaptureFixture[str]
) -> None:
    reports = "3/4"
    it = world(
        sandbox={
            "limits": Limits(reports=reports, exchange="none"),
            "calls_per_day": (3, 3),
            "talk_seconds": (1, 1),
        },
        RINGCX_LIMIT_REPORTS=reports,
    )
    days = [datetime.now(UTC).date() - timedelta(days=ago) for ago in range(5, 1, -1)]
    before = planned(capsys, it, days[0], days[-1])
    assert (before["longest"], limit(before, "reports")["requests"]) == ("reports", 12)
    assert it.sandbox.counters()["requests"].get("report", 0) == 0, "a plan asks for nothing"
    assert it.objects("") == {}, "a plan changes nothing"

    took = Took(it, "report", 12)
    for day in days:
        assert it.run(day, select=[*REPORTS, "recording_links"]).success
    seconds = took.wait()
    assert it.sandbox.counters()["violations"]["reports"] == 0
    assert before["seconds"] == 15.0
    assert seconds == pytest.approx(before["seconds"], rel=TOLERANCE)

    after = planned(capsys, it, days[0], days[-1])
    assert {of_date["state"] for of_date in after["dates"]} == {"pending"}


@pytest.mark.slow
def test_the_planned_hours_of_known_recordings_are_those_that_fetching_them_takes(
    world: Callable[..., World], recent: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    media = "12/2"
    it = world(
        sandbox={
            "limits": Limits(reports="none", exchange="none", media=media),
            "calls_per_day": (18, 18),
            "talk_seconds": (1, 1),
        },
        RINGCX_LIMIT_MEDIA=media,
    )
    assert it.run(recent[0], select=[*REPORTS, "recording_links"]).success
    found = planned(capsys, it, recent[0] - ONE_DAY, recent[0] + ONE_DAY)
    due = limit(found, "media")["requests"]
    assert due == sum(day["pending"] for day in found["dates"]) > 30
    took = Took(it, "media", due)
    assert it.run(recent[0], select=["recordings"]).success
    assert took.wait() == pytest.approx(limit(found, "media")["seconds"], rel=TOLERANCE)
    assert it.sandbox.counters()["violations"]["media"] == 0


class Took:
    """Seconds between the first and the last of so many requests, as the source sees them."""

    def __init__(self, it: World, kind: str, wanted: int) -> None:
        self._seen: list[float] = []

        def watch() -> None:
            deadline = time.monotonic() + 120
            before = it.sandbox.counters()["requests"].get(kind, 0)
            while time.monotonic() < deadline:
                now = it.sandbox.counters()["requests"].get(kind, 0) - before
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


@pytest.mark.slow
def test_each_command_that_the_plan_ends_with_is_a_backfill_that_dagster_takes(
    chronicle: Callable[..., Chronicle], tmp_path: Path
) -> None:
    it = chronicle(RINGCX_RETENTION_DAYS="12", RINGCX_RETENTION_MARGIN_DAYS="4")
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=ago) for ago in range(13, 9, -1)]
    it.pulled(days[1])
    assert run("plan", ["--from", str(days[0]), "--to", str(days[-1])]) == 0
    printed = it.capsys.readouterr().out
    commands = [line.strip() for line in printed.splitlines() if line.startswith("    .venv/bin/dagster ")]
    assert len(commands) == 2
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    basic = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    wanted = []
    for command in commands:
        words = shlex.split(command, comments=True)
        wanted.append((words[words.index("--from") + 1], words[words.index("--to") + 1]))
        words[0] = str(Path(sys.executable).parent / "dagster")
        result = subprocess.run(
            words,
            cwd=ROOT,
            env={**basic, **it.variables, "ARCHIVE_START_DATE": "2020-01-01", "DAGSTER_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert result.returncode == 0, result.stderr
    with DagsterInstance.from_config(str(home)) as instance:
        launched = sorted(instance.get_backfills(), key=lambda backfill: backfill.backfill_timestamp)
        names = [list(backfill.partition_names or []) for backfill in launched]
    assert [(of_one[0], of_one[-1]) for of_one in names] == wanted
    assert sorted(name for of_one in names for name in of_one) == [str(day) for day in days if day != days[1]]


def planned_in_dagster(it: World, config: dict[str, str]) -> ExecuteInProcessResult:
    return (
        build_defs(environment=it.environment)
        .resolve_job_def("backfill_plan")
        .execute_in_process(
            instance=it.instance, run_config={"ops": {"plan_dates": {"config": config}}}, raise_on_error=False
        )
    )


def test_the_job_plans_what_its_config_asks_for(world: Callable[..., World], recent: list[date]) -> None:
    it = world()
    assert it.run(recent[0]).success
    asked = it.sandbox.counters()["requests"]
    result = planned_in_dagster(it, {"first_date": str(recent[0]), "last_date": str(recent[1])})
    (event,) = [event for event in result.events_for_node("plan_dates") if event.is_successful_output]
    metadata = {name: value.value for name, value in event.step_output_data.metadata.items()}
    assert (metadata["dates"], metadata["dates_to_run"]) == (2, 1)
    assert f"--from {recent[1]} --to {recent[1]} --noprompt" in metadata["plan"]
    assert it.sandbox.counters()["requests"] == asked, "a plan asks for nothing"


@pytest.mark.parametrize("config", [{"first_date": "soon"}, {"last_date": "2031-01-01"}, {"first_date": "2019-01-01"}])
def test_the_job_refuses_dates_that_there_are_not_in_a_sentence(
    world: Callable[..., World], config: dict[str, str]
) -> None:
    it = world()
    result = planned_in_dagster(it, config)
    assert not result.success
    (sentence,) = it.failures(result).values()
    assert "date" in sentence
