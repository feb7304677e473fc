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

TODAY = date(2026, 11, 24)
CALENDAR = Calendar(archive_look_back_days=3)
YESTERDAY = priority.of_requests(TODAY - timedelta(days=1), TODAY, CALENDAR)
# Out of order, as runs start.
OLD_DATES = [date(2024, 3, 9), date(2023, 7, 1), date(2026, 11, 1), date(2025, 12, 31), date(2023, 6, 30)]

BACKFILL = """
import sys, threading, time
from pipelines.ringcx.limits.limiter import RateLimiter, parse_rates
where, rates, one_priority, permits = sys.argv[1], parse_rates(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def sleep(seconds):
    print("waiting\\n", end="", flush=True)
    time.sleep(seconds)
limiter = RateLimiter(where, sleep=sleep, margin_s=0)
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
    rates = parse_rates("1/600")
    gate = RateLimiter(where)
    gate.hold_off("media", "1", 3_600)  # nobody gets a permit until all are in the queue, however slow the machine is
    order: list[date] = []
    stop, waiting, granted = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def run(day: date) -> None:
        def sleep(seconds: float) -> None:
            waiting.release()
            time.sleep(min(seconds, 0.1))

        limiter = RateLimiter(where, sleep=sleep, margin_s=0)
        of_day = priority.of_requests(day, TODAY, CALENDAR)
        limiter.acquire("media", "1", rates, priority=of_day, stop=stop)
        order.append(day)
        granted.release()
        limiter.close()

    recent = [TODAY - timedelta(days=back) for back in (4, 1, 0, 2)]
    threads = []
    for day in [*OLD_DATES, *recent]:
        threads.append(threading.Thread(target=run, args=(day,)))
        threads[-1].start()
        assert waiting.acquire(timeout=10)
    for _ in threads:
        _free_one(where)
        assert granted.acquire(timeout=30)
    for thread in threads:
        thread.join(30)
    gate.close()
    assert order == [*sorted(recent, reverse=True), *sorted(OLD_DATES)]


def _free_one(where: Path | str) -> None:
    """What no caller can do: take back the source's silence and the permit given last, so that the next is due now."""
    if isinstance(where, Path):
        import sqlite3

        with sqlite3.connect(where) as connection:
            connection.execute("UPDATE states SET held_until = 0")
            connection.execute("DELETE FROM permits")
        connection.close()
    else:
        import psycopg

        with psycopg.connect(where) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('ringcx_limit/media/1', 0))")
            connection.execute("UPDATE ringcx_limit_states SET held_until = 0")
            connection.execute("DELETE FROM ringcx_limit_permits")


@pytest.mark.slow
def test_a_backfill_of_many_processes_and_threads_lets_yesterday_have_every_next_permit(
    each: Callable[[Callable[[Path | str], None]], None],
) -> None:
    each(let_yesterday_have_every_next_permit)


def let_yesterday_have_every_next_permit(where: Path | str) -> None:
    rate_s = 0.5
    rates = parse_rates(f"1/{rate_s}")
    limiter = RateLimiter(where, margin_s=0)
    limiter.acquire("media", "1", rates)
    old = [priority.of_requests(day, TODAY, CALENDAR) for day in OLD_DATES[:2]]
    backfill = [
        subprocess.Popen(
            [sys.executable, "-c", BACKFILL, str(where), f"1/{rate_s}", str(priority), "2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for priority in old
    ]
    for process in backfill:
        assert process.stdout is not None
        assert process.stdout.readline().strip(), "its threads do not ask"
    time.sleep(1.0)
    mine: list[float] = []
    asked = time.time()
    for _ in range(5):
        limiter.acquire("media", "1", rates, priority=YESTERDAY)
        mine.append(time.time())
    limiter.close()
    others: list[list[float]] = []
    for process in backfill:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        others.append([float(line) for line in out.split() if line != "waiting"])
    # One permit may have been on its way to the backfill when ours was asked for.
    assert sum(asked < at < mine[-1] for times in others for at in times) <= 1
    assert mine[0] - asked < 2 * rate_s + 0.5
    assert sum(map(len, others)) >= 2 * 4 * 2 - 2, "the backfill did not go on"


def test_a_client_asks_for_all_its_permits_with_its_priority_log_ins_too(where: Path | str) -> None:
    limiter = RateLimiter(where, margin_s=0)
    limiter.hold_off("auth", "", 1)
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
    for thread in threads:
        thread.join(30)
    limiter.close()
    assert granted == [1, 3_000, 5_000]
