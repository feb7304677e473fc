"""Staying inside the source's limits, over all threads and processes of one host, and over restarts.

Not for concurrency (how many at once) and not for retries: only for how often, and for the silence the source asks for.

Plain sqlite3 rather than pyrate-limiter: its SQLiteBucket (4.5.1) counts before it takes the write lock, so two
processes can both see the last free permit, and its file lock serves processes or threads but not both.
"""
# ruff: noqa: N818 - verdicts, as in errors.py

import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.ringcx.errors import Stopped

LONGEST_HOLD_S = 86_400.0  # a mistaken Retry-After must not silence us for ever, in a file that outlives restarts
_LOOK_EVERY_S = 5.0  # a waiter looks again this often: somebody before it may have left, or a hold-off may have come
_GONE_AFTER_S = 15.0  # a waiter not seen for so long was killed; its place is free
_KEEP_S = 3_600.0  # permits are kept at least this long, so that a window made longer still finds its past
_LOCK_TIMEOUT_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS permits (name TEXT NOT NULL, account_id TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS permits_by_time ON permits (name, account_id, at);
CREATE TABLE IF NOT EXISTS waiters (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, account_id TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS holds (
    name TEXT NOT NULL, account_id TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (name, account_id));
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in any `seconds` seconds."""

    limit: int
    seconds: float

    def __post_init__(self) -> None:
        if self.limit < 1 or not (0 < self.seconds < math.inf):
            raise ValueError("A rate is a number of requests and a number of seconds, both above zero.")


class HeldOff(Exception):
    """The source asked for a silence longer than the caller wants to wait.

    Attributes:
        seconds: how much of it is left.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The source asked for silence for another {seconds:.0f} s.")
        self.seconds = seconds


class LimiterBroken(RuntimeError):
    """The limiter's file cannot be used. Nothing is requested then: without it the limits cannot be kept."""


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Read `requests/seconds[,requests/seconds…]`, such as `3/60,9/900`; `none` or nothing means no limit."""
    if text.strip().lower() in {"", "none"}:
        return ()
    rates = []
    for part in text.split(","):
        requests, slash, seconds = part.partition("/")
        try:
            if not slash:
                raise ValueError  # noqa: TRY301 - one sentence for every way to get it wrong
            rates.append(Rate(int(requests), float(seconds)))
        except ValueError:
            raise ValueError("A limit reads requests/seconds, such as 3/60 or 3/60,9/900, or none.") from None
    return tuple(rates)


class RateLimiter:
    """Permits, handed out in the order they were asked for, from one SQLite file.

    A permit's time is written in the same transaction that finds it free, under SQLite's write lock, so that no two
    processes can take the same one. Whoever waits has a ticket; from the tickets before its own it knows when its turn
    comes, sleeps until then without any lock, and looks again. A killed waiter's ticket lapses.

    Args:
        path: the file; its folder is made. It must lie on a local disk, as SQLite's locks need.
        clock: seconds since the epoch, the same for all processes.
        sleep: used for every wait instead of a wait on the stop event; for tests.
        margin_s: added to each window, as a request reaches the source a little later than it was permitted.

    Raises:
        LimiterBroken: from every method, when the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
        margin_s: float = 1.0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._sleep = sleep
        self._margin_s = margin_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)

            def forget_parent() -> None:
                if (limiter := this()) is not None:
                    limiter._start_anew_in_child()  # noqa: SLF001 - its own method

            os.register_at_fork(after_in_child=forget_parent)

    def acquire(
        self,
        name: str,
        account_id: str,
        rates: Sequence[Rate],
        *,
        stop: threading.Event | None = None,
        patience_s: float | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> float:
        """Wait until one request of this limit and account may be sent; return the seconds waited.

        Args:
            name: the limit, for example `reports`.
            account_id: whose limit it is.
            rates: all of them hold at once; none means that only hold-offs are waited for.
            stop: ends the wait at once when set.
            patience_s: the longest hold-off to sit out; None means any.
            prepare: called before each look, so that what the request needs (a token) is fresh when the permit comes.

        Raises:
            Stopped: the stop event is set.
            HeldOff: a hold-off has more than `patience_s` seconds left.
        """
        started = self._clock()
        ticket: int | None = None
        try:
            while True:
                check_stop(stop)
                if prepare is not None:
                    prepare()
                held_s, wait_s, ticket = self._look(name, account_id, rates, ticket)
                if wait_s <= 0:
                    return max(0.0, self._clock() - started)
                _check_patience(held_s, patience_s)
                self._wait(min(wait_s, _LOOK_EVERY_S), stop)
        except BaseException:
            if ticket is not None:
                self._leave(ticket)
            raise

    def hold_off(self, name: str, account_id: str, seconds: float) -> None:
        """Let nobody, in any process, have a permit of this limit and account for so long; the longest wins."""
        seconds = min(seconds, LONGEST_HOLD_S)
        if not seconds > 0:
            return
        with self._transaction() as connection:
            now = self._now(connection, (name, account_id))
            connection.execute(
                "INSERT INTO holds (name, account_id, since, until) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name, account_id) DO UPDATE SET since = excluded.since, until = excluded.until"
                " WHERE excluded.until > until",
                (name, account_id, now, now + seconds),
            )

    def close(self) -> None:
        """Close the file. The limiter opens it again when it is used again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _look(
        self, name: str, account_id: str, rates: Sequence[Rate], ticket: int | None
    ) -> tuple[float, float, int | None]:
        """Take a permit if it is our turn. Returns seconds of hold-off left, seconds to wait (0: taken), our ticket."""
        key = (name, account_id)
        if not rates and not self._held(key):
            return 0.0, 0.0, None
        with self._transaction() as connection:
            now = self._now(connection, key)
            row = connection.execute("SELECT until FROM holds WHERE name = ? AND account_id = ?", key).fetchone()
            held_until = now if row is None else max(now, row[0])
            newest = connection.execute(
                "SELECT at FROM permits WHERE name = ? AND account_id = ? ORDER BY at DESC LIMIT ?",
                (*key, max((rate.limit for rate in rates), default=0)),
            )
            times = [at for (at,) in newest][::-1]
            connection.execute("DELETE FROM waiters WHERE seen < ?", (now - _GONE_AFTER_S,))
            (before,) = connection.execute(
                "SELECT count(*) FROM waiters WHERE name = ? AND account_id = ? AND ticket < ?",
                (*key, math.inf if ticket is None else ticket),
            ).fetchone()
            for _ in range(before):
                times.append(self._earliest(times, rates, held_until))
            turn = self._earliest(times, rates, held_until)
            if turn <= now:
                connection.execute("DELETE FROM waiters WHERE ticket = ?", (ticket,))
                if rates:
                    self._write_permit(connection, key, now, max(rate.seconds for rate in rates))
                return 0.0, 0.0, None
            if ticket is None:
                ticket = connection.execute(
                    "INSERT INTO waiters (name, account_id, seen) VALUES (?, ?, ?)", (*key, now)
                ).lastrowid
            else:  # it may have lapsed meanwhile; the place in the queue is kept all the same
                connection.execute("INSERT OR REPLACE INTO waiters VALUES (?, ?, ?, ?)", (ticket, *key, now))
            return held_until - now, turn - now, ticket

    def _held(self, key: tuple[str, str]) -> bool:
        """Whether there is a hold-off: a read, thousands of times an hour, that never takes the write lock."""
        with self._use() as connection:
            row = connection.execute("SELECT until FROM holds WHERE name = ? AND account_id = ?", key).fetchone()
        return row is not None and bool(row[0] > self._clock())

    def _write_permit(self, connection: sqlite3.Connection, key: tuple[str, str], now: float, longest_s: float) -> None:
        connection.execute(
            "DELETE FROM permits WHERE name = ? AND account_id = ? AND at < ?",
            (*key, now - max(longest_s + self._margin_s, _KEEP_S)),
        )
        connection.execute("INSERT INTO permits (name, account_id, at) VALUES (?, ?, ?)", (*key, now))

    def _earliest(self, times: Sequence[float], rates: Sequence[Rate], now: float) -> float:
        """When one more request may follow those at `times` (rising): `limit` requests back lies outside the window."""
        free = [times[-rate.limit] + rate.seconds + self._margin_s for rate in rates if len(times) >= rate.limit]
        return max([now, *free])

    def _now(self, connection: sqlite3.Connection, key: tuple[str, str]) -> float:
        """The time, read under the write lock, so that permits are written in rising order.

        When the clock was set back, what lies in its future is taken to have happened now: never a permit too many,
        and no wait for hours either.
        """
        now = self._clock()
        mine = "name = ? AND account_id = ?"
        connection.execute(f"UPDATE permits SET at = ? WHERE {mine} AND at > ?", (now, *key, now))  # noqa: S608
        connection.execute(f"UPDATE waiters SET seen = ? WHERE {mine} AND seen > ?", (now, *key, now))  # noqa: S608
        connection.execute(
            f"UPDATE holds SET until = until - since + ?, since = ? WHERE {mine} AND since > ?",  # noqa: S608
            (now, now, *key, now),
        )
        return now

    def _wait(self, seconds: float, stop: threading.Event | None) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif stop is not None:
            stop.wait(seconds)
        else:
            time.sleep(seconds)

    def _leave(self, ticket: int) -> None:
        """Give up our place. Should that fail, it lapses by itself, and the reason for leaving matters more."""
        try:
            with self._transaction() as connection:
                connection.execute("DELETE FROM waiters WHERE ticket = ?", (ticket,))
        except LimiterBroken:
            return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """SQLite's write lock from before the first look until after the last write."""
        with self._use() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:  # an interrupt too: an open transaction would stop every other process
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except sqlite3.Error as error:
                raise LimiterBroken(
                    f"The rate limiter's file {self._path} cannot be used ({error}); it must lie on a writable local"
                    " disk, and it may be deleted when no run is going on, as it only holds the times of requests."
                ) from error

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LimiterBroken(
                f"The folder {self._path.parent} for the rate limiter's file cannot be made ({error.strerror});"
                " check DATA_DIR and RATE_LIMIT_URL."
            ) from error
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        give_up_at = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            except sqlite3.OperationalError as error:
                # Changing the journal's mode does not wait for the lock as other statements do: several processes
                # that start together would otherwise fail here.
                busy = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
                if not busy or time.monotonic() > give_up_at:
                    connection.close()
                    raise
                time.sleep(0.02)
            else:
                return connection

    def _start_anew_in_child(self) -> None:
        """After a fork: neither the parent's lock (perhaps held) nor its connection is ours; keep it, unused."""
        self._lock = threading.Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)  # closing it here would break the parent's
            self._connection = None


def check_stop(stop: threading.Event | None) -> None:
    """Raise Stopped when the event is set."""
    if stop is not None and stop.is_set():
        raise Stopped("The run is being stopped; what is left is taken up by the next one.")


def _check_patience(held_s: float, patience_s: float | None) -> None:
    if patience_s is not None and held_s > patience_s:
        raise HeldOff(held_s)
