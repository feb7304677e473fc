"""The limiter's PostgreSQL store: one clock for all, connections that are lost, and a password that is never shown."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.ringcx.limits.store import LimiterBroken
from sandbox.postgres import USER, LocalPostgres
from tests.ringcx.conftest import permits_given
from tests.servers.ports import PATIENCE_S

ONE_A_MINUTE = [Rate(1, 60)]
TABLES = ("ringcx_limit_permits", "ringcx_limit_states")


@pytest.fixture
def own_server() -> Iterator[LocalPostgres]:
    """A server that the test may stop."""
    with LocalPostgres() as server:
        yield server


def test_hosts_whose_clocks_differ_share_the_databases_clock(
    database: str, monkeypatch: pytest.MonkeyPatch, open_limiter: Callable[..., RateLimiter]
) -> None:
    open_limiter(database, margin_s=0).acquire("reports", "1", [Rate(1, 2)])
    for wrong in (-86_400, 86_400):
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda now=now, wrong=wrong: now + wrong)
            other = open_limiter(database, margin_s=0)
            assert other.acquire("reports", "1", [Rate(1, 2)]) < PATIENCE_S
            other.close()
    first, second, third = permits_given(database)
    assert min(second - first, third - second) >= 2


def test_processes_that_start_together_all_find_or_make_the_tables(database: str) -> None:
    script = """
import sys, time
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
print("ready", flush=True)
url = sys.stdin.readline().strip()
RateLimiter(url).acquire("reports", "1", [Rate(100, 60)])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{database}\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM ringcx_limit_permits").fetchone() == (6,)


def test_a_user_without_the_right_to_make_tables_can_work_with_those_that_are_there(
    postgres_server: LocalPostgres, database: str, open_limiter: Callable[..., RateLimiter]
) -> None:
    open_limiter(database).acquire("reports", "1", [Rate(5, 60)])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE humble LOGIN PASSWORD 'humble-password'")
        try:
            humble = database.replace(f"{USER}:{postgres_server.password}", "humble:humble-password")
            with pytest.raises(LimiterBroken, match="permission denied"):
                open_limiter(humble).acquire("reports", "1", [Rate(5, 60)])
            for table in TABLES:
                connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO humble")
            limiter = open_limiter(humble, margin_s=0)
            assert limiter.acquire("reports", "1", [Rate(5, 60)]) == pytest.approx(0, abs=2)
            limiter.close()
        finally:
            connection.execute("DROP OWNED BY humble")
            connection.execute("DROP ROLE humble")


def test_accounts_wait_for_each_others_locks_not_at_all(database: str) -> None:
    limiter = RateLimiter(database)
    limiter.acquire("reports", "1", [Rate(5, 60)])
    with psycopg.connect(database) as stuck:
        stuck.execute("SELECT pg_advisory_xact_lock(hashtextextended('ringcx_limit/reports/1', 0))")
        limiter.acquire("reports", "2", [Rate(5, 60)])
        limiter.acquire("media", "1", [Rate(5, 60)])  # or this would end in an error, as the lock is never released
    limiter.close()


@pytest.mark.parametrize("crash", [False, True])
def test_a_database_that_comes_back_within_a_minute_is_waited_for_and_has_forgotten_nothing(
    own_server: LocalPostgres, crash: bool
) -> None:
    limiter = RateLimiter(own_server.url(), margin_s=0)
    limiter.acquire("reports", "1", [Rate(1, 3)])
    own_server.stop(crash=crash)
    threading.Timer(1.0, own_server.start).start()
    started = time.monotonic()
    limiter.acquire("reports", "1", [Rate(1, 3)])
    assert time.monotonic() - started > 1
    first, second = permits_given(own_server.url())
    assert second - first >= 3
    limiter.close()


def test_a_waiter_whose_connection_is_cut_keeps_its_place(
    own_server: LocalPostgres, open_limiter: Callable[..., RateLimiter]
) -> None:
    waiting, order = threading.Event(), []

    def wait(name: str, priority: int) -> None:
        def sleep(seconds: float) -> None:
            waiting.set()
            time.sleep(min(seconds, 0.2))

        limiter = open_limiter(own_server.url(), sleep=sleep, margin_s=0)
        limiter.acquire("reports", "1", [Rate(1, 4)], priority=priority)
        order.append(name)
        limiter.close()

    open_limiter(own_server.url(), margin_s=0).acquire("reports", "1", [Rate(1, 4)])
    first = threading.Thread(target=wait, args=("first", 0))
    first.start()
    assert waiting.wait(10)
    waiting.clear()
    with psycopg.connect(own_server.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    second = threading.Thread(target=wait, args=("second", 0))
    second.start()
    for thread in (first, second):
        thread.join(60)
    assert order == ["first", "second"]


def test_a_database_that_stays_away_ends_in_a_sentence_after_a_minute_of_tries(own_server: LocalPostgres) -> None:
    slept: list[float] = []
    limiter = RateLimiter(own_server.url(), sleep=slept.append)
    limiter.acquire("reports", "1", [Rate(5, 60)])
    own_server.stop()
    with pytest.raises(LimiterBroken, match=r"cannot be used.*127\.0\.0\.1.*RATE_LIMIT_URL.*No request is sent") as e:
        limiter.acquire("reports", "1", [Rate(5, 60)])
    assert 55 <= sum(slept) <= 90
    assert own_server.password not in f"{e.value!r}{traceback.format_exception(e.value)}{limiter!r}"
    with pytest.raises(LimiterBroken):
        limiter.hold_off("reports", "1", 10)


def test_a_stop_ends_the_waiting_for_a_lost_database_at_once(
    own_server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.limits.limiter._RECONNECT_AFTER_S", (600.0,))
    limiter = RateLimiter(own_server.url())
    limiter.acquire("reports", "1", [Rate(5, 60)])
    own_server.stop()
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        limiter.acquire("reports", "1", [Rate(5, 60)], stop=stop)
    assert time.monotonic() - started < PATIENCE_S


def test_a_wrong_password_or_database_is_told_at_once_and_shows_no_password(postgres_server: LocalPostgres) -> None:
    slept: list[float] = []
    wrong = postgres_server.url().replace(postgres_server.password, "wrong-secret")
    for url, says in ((wrong, "authentication failed"), (postgres_server.url("nowhere"), "does not exist")):
        with pytest.raises(LimiterBroken, match=says) as caught:
            RateLimiter(url, sleep=slept.append).acquire("reports", "1", ONE_A_MINUTE)
        shown = "".join(traceback.format_exception(caught.value))
        assert "wrong-secret" not in shown
        assert postgres_server.password not in shown
    assert not slept


@pytest.mark.parametrize(
    "url", ["postgresql://user:the-secret@host/db?nonsense=1", "postgresql://user:the-secret@[::1/x"]
)
def test_an_address_that_cannot_be_read_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(LimiterBroken, match="RATE_LIMIT_URL") as caught:
        RateLimiter(url).acquire("reports", "1", ONE_A_MINUTE)
    assert "the-secret" not in "".join(traceback.format_exception(caught.value))


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "pipelines.ringcx.limits.postgres", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LimiterBroken, match=r"psycopg.*pip install '\.\[postgres\]'"):
        RateLimiter("postgresql://user:the-secret@host/db")


def test_a_file_needs_no_psycopg() -> None:
    script = (
        "import sys, tempfile, pathlib; from pipelines.ringcx.limits.limiter import Rate, RateLimiter;"
        "l = RateLimiter(pathlib.Path(tempfile.mkdtemp()) / 'l'); l.acquire('a', '1', [Rate(1, 1)]);"
        "sys.exit('psycopg' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
