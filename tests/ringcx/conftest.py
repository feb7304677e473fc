"""The limiter's stores: what holds for one holds for the other."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from tests.servers.ports import PATIENCE_S


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty store of either kind, as `RateLimiter` is told of it."""
    if request.param == "sqlite":
        return tmp_path / "limits.sqlite"
    return str(request.getfixturevalue("database"))


@pytest.fixture
def each(tmp_path: Path, database: str) -> Callable[[Callable[[Path | str], None]], None]:
    """Try something that takes real time with an empty store of each kind, at once."""

    def try_each(body: Callable[[Path | str], None]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(body, [tmp_path / "limits.sqlite", database]))

    return try_each


@pytest.fixture
def open_limiter() -> Iterator[Callable[..., RateLimiter]]:
    """Make limiters that are closed after the test."""
    with ExitStack() as stack:
        yield lambda *where, **options: stack.enter_context(closing(RateLimiter(*where, **options)))


def free_next_permit(where: Path | str) -> None:
    """What no caller can do: take back all pauses and permits, so that the first in the queue is due now."""
    if isinstance(where, Path):
        with closing(sqlite3.connect(where)) as connection, connection:
            connection.execute("UPDATE states SET held_until = 0")
            connection.execute("DELETE FROM permits")
    else:
        with psycopg.connect(where) as session:
            session.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('ringcx_limit/' || name || '/' || account_id, 0))"
                " FROM ringcx_limit_states"
            )
            session.execute("UPDATE ringcx_limit_states SET held_until = 0")
            session.execute("DELETE FROM ringcx_limit_permits")


def permits_given(where: Path | str, account_id: str = "1") -> list[float]:
    """Return when an account's permits were given, in order: a process may come to say so much later."""
    if isinstance(where, Path):
        with closing(sqlite3.connect(where)) as connection:
            found = connection.execute("SELECT at FROM permits WHERE account_id = ? ORDER BY at", [account_id])
            return [at for (at,) in found]
    with psycopg.connect(where) as connection:
        query = "SELECT at FROM ringcx_limit_permits WHERE account_id = %s ORDER BY at"
        return [at for (at,) in connection.execute(query, [account_id])]


def wait_for_queue(limiter: RateLimiter, length: int) -> None:
    """Return once so many requests wait for permits."""
    deadline = time.monotonic() + PATIENCE_S
    while (waiting := sum(count for _, _, count in limiter.waiting())) < length:
        assert time.monotonic() < deadline, f"only {waiting} wait"
        time.sleep(0.02)


def order_of_permits(where: Path | str, priorities: Sequence[int]) -> list[int]:
    """Queue a thread for each priority, one after the other, then free permits one at a time.

    Returns the positions in `priorities` in the order in which their threads got a permit. Nobody gets one before all
    are in the queue, however slow the machine is.
    """
    order: list[int] = []
    queued, permitted = [threading.Event() for _ in priorities], threading.Semaphore(0)

    def wait(position: int, priority: int) -> None:
        def sleep(seconds: float) -> None:
            queued[position].set()
            time.sleep(min(seconds, 0.05))

        with closing(RateLimiter(where, sleep=sleep, margin_s=0)) as limiter:
            limiter.acquire("media", "1", [Rate(1, 600)], priority=priority)
            order.append(position)
            permitted.release()

    with closing(RateLimiter(where)) as limiter:
        limiter.hold_off("media", "1", 300)
    threads = [threading.Thread(target=wait, args=item, daemon=True) for item in enumerate(priorities)]
    for thread, waits in zip(threads, queued, strict=True):
        thread.start()
        assert waits.wait(PATIENCE_S)
    for _ in threads:
        free_next_permit(where)
        assert permitted.acquire(timeout=PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
    return order
