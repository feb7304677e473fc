"""A backfill never delays yesterday's recordings: who gets the next permit when many wait, in real time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest

from pipelines.orchestration import priority
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter, parse_rates
from pipelines.settings import Calendar
from tests.ringcx.conftest import free_next_permit, order_of_permits, wait_for_queue
from tests.servers.ports import PATIENCE_S

TODAY = date(2026, 11, 24)
CALENDAR = Calendar(archive_look_back_days=3)
YESTERDAY = priority.of_requests(TODAY - timedelta(days=1), TODAY, CALENDAR)
# Out of order, as runs start.
OLD_DATES = [date(2024, 3, 9), date(2023, 7, 1), date(2026, 11, 1), date(2025, 12, 31), date(2023, 6, 30)]

BACKFILL = """
import sys, threading, time
from pipelines.ringcx.limits.limiter import RateLimiter, parse_rates
where, rates, one_priority, permits = sys.argv[1], parse_rates(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
limiter = RateLimiter(where, sleep=lambda seconds: time.sleep(min(seconds, 0.5)), margin_s=0)
def work():
    for _ in range(permits):
        limiter.acquire("media", "1", rates, priority=one_priority)
        print(f"{time.time()!r}\\n", end="", flush=True)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


def test_yesterday_goes_before_a_whole_backfill_that_waits_already_and_among_old_dates_the_oldest_first(
    where: Path | str,
) -> None:
    recent = [TODAY - timedelta(days=back) for back in (4, 1, 0, 2)]
    asked = [*OLD_DATES, *recent]
    order = order_of_permits(where, [priority.of_requests(day, TODAY, CALENDAR) for day in asked])
    assert [asked[position] for position in order] == [*sorted(recent, reverse=True), *sorted(OLD_DATES)]


@pytest.mark.slow
def test_a_backfill_of_many_processes_and_threads_lets_yesterday_have_every_next_permit(
    each: Callable[[Callable[[Path | str], None]], None],
) -> None:
    each(let_yesterday_have_every_next_permit)


def let_yesterday_have_every_next_permit(where: Path | str) -> None:
    rates = "1/0.5"
    limiter = RateLimiter(where, margin_s=0)
    limiter.hold_off("media", "1", 300)
    backfill = [
        subprocess.Popen(
            [sys.executable, "-c", BACKFILL, str(where), rates, str(priority.of_requests(day, TODAY, CALENDAR)), "2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for day in OLD_DATES[:2]
    ]
    wait_for_queue(limiter, 2 * 4)
    free_next_permit(where)
    mine: list[tuple[float, float]] = []
    for _ in range(5):
        asked = time.time()
        limiter.acquire("media", "1", parse_rates(rates), priority=YESTERDAY)
        mine.append((asked, time.time()))
    limiter.close()
    others: list[float] = []
    for process in backfill:
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        others += map(float, out.split())
    for asked, permitted in mine:  # when one asks, a permit may be on its way to the backfill
        assert sum(asked < at < permitted for at in others) <= 1
    assert len(others) == 2 * 4 * 2, "the backfill did not go on"


def test_a_client_asks_for_all_its_permits_with_its_priority_log_ins_too(where: Path | str) -> None:
    limiter = RateLimiter(where, sleep=lambda seconds: time.sleep(min(seconds, 0.05)), margin_s=0)
    limiter.hold_off("auth", "", 300)
    granted: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        granted.append(int(request.url.path.removeprefix("/")))
        return httpx.Response(200)

    def log_in(priority: int) -> None:
        transport = httpx.MockTransport(answer)
        limits = {"auth": parse_rates("1/0.3")}
        with (
            SourceClient(limiter=limiter, limits=limits, priority=priority, transport=transport) as client,
            client.stream("POST", f"https://ringcx.example.com/{priority}", limit="auth", account_id=""),
        ):
            pass

    threads = [threading.Thread(target=log_in, args=(priority,)) for priority in (5_000, 1, 3_000)]
    for thread in threads:
        thread.start()
    wait_for_queue(limiter, len(threads))
    free_next_permit(where)
    for thread in threads:
        thread.join(PATIENCE_S)
    limiter.close()
    assert granted == [1, 3_000, 5_000]
