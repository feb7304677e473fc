"""The limiter's stored state, and its SQL, which is the same for SQLite (here) and PostgreSQL (`postgres.py`).

The store holds the times of the last hour's permits and, for each limit of each account, the pause that the source
asked for and the queue of waiting requests.
"""
# ruff: noqa: ANN401, N818, S608 - cursors of two libraries; named as in errors.py; no value is part of a statement

import json
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from pipelines.errors import ExpectedError

_LOCK_TIMEOUT_S: Final = 60.0
GONE_AFTER_S: Final = 15.0  # a waiter that has not come back for this long was killed, and loses its turn
TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS ringcx_limit_permits (
        name text NOT NULL, account_id text NOT NULL, at float8 NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS ringcx_limit_permits_by_time ON ringcx_limit_permits (name, account_id, at)",
    """CREATE TABLE IF NOT EXISTS ringcx_limit_states (
        name text NOT NULL, account_id text NOT NULL, held_since float8 NOT NULL, held_until float8 NOT NULL,
        last_ticket bigint NOT NULL, queue text NOT NULL, PRIMARY KEY (name, account_id))""",
)


class LimiterBroken(ExpectedError):
    """The limiter's store cannot be used. No request is sent then: the limits could not be kept."""


class StoreLost(LimiterBroken):
    """The store does not answer now, but may in a moment."""


@dataclass(slots=True)
class LimitState:
    """One limit of one account while its lock is held. Times are seconds by the clock that all processes share.

    `permits`: the times of the newest permits, ascending, none after `now`, when the lock was taken. `held_since`: when
    the source last asked for a pause, which ends at `held_until`. `queue`: for each waiting request its priority, its
    ticket and when it was last seen. `grant_s`: set it to write a permit at `now`, and to drop permits older than
    that many seconds.
    """

    now: float
    permits: list[float]
    held_since: float = 0.0
    held_until: float = 0.0
    last_ticket: int = 0
    queue: list[list[float]] = field(default_factory=list)
    grant_s: float | None = None

    def __post_init__(self) -> None:
        # If the clock was set back, times in its future count as now: never a permit too many
        # then, and no wait for hours either.
        self.held_until -= max(0.0, self.held_since - self.now)
        self.held_since = min(self.held_since, self.now)
        self.queue = [
            [priority, ticket, min(seen, self.now)]
            for priority, ticket, seen in self.queue
            if seen >= self.now - GONE_AFTER_S
        ]

    def wait(self, priority: int, ticket: int | None) -> int:
        """Join the queue, or keep the ticket's place even if it has lapsed; return the ticket."""
        self.leave(ticket)
        if ticket is None:
            ticket = self.last_ticket = self.last_ticket + 1
        self.queue.append([priority, ticket, self.now])
        return ticket

    def leave(self, ticket: int | None) -> None:
        """Remove the ticket from the queue, if it is there."""
        self.queue = [waiter for waiter in self.queue if waiter[1] != ticket]

    def saved(self) -> tuple[float, float, int, str]:
        """Return the columns of the state, as they are stored."""
        return self.held_since, self.held_until, self.last_ticket, json.dumps(self.queue)


class LimitStore(ABC):
    """The permits, pauses and queues that outlive a process; every method raises LimiterBroken if it cannot be used.

    A process has one connection, opened when needed and used by one thread at a time. No process forks meanwhile.
    `clock` returns seconds since the epoch, or None for the database's own time.
    """

    _now: ClassVar[str] = "%s"  # the time in SQL, a parameter from the clock

    def __init__(self, clock: Callable[[], float | None]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Any = None

    def states(self) -> list[tuple[str, str, LimitState]]:
        """Return each limit, account and its state, without permits. Take no lock."""
        columns = f"name, account_id, {self._now}, held_since, held_until, last_ticket, queue"
        with self._use() as connection:
            rows = self._run(connection, f"SELECT {columns} FROM ringcx_limit_states", self._clock()).fetchall()
        return [
            (name, account_id, LimitState(now, [], since, until, ticket, json.loads(queue)))
            for name, account_id, now, since, until, ticket, queue in sorted(rows)
        ]

    @contextmanager
    def locked(self, name: str, account_id: str, *, newest: int = 0) -> Iterator[LimitState]:
        """Lock a limit of an account, yield its state with its `newest` permits, and save the changes to it."""
        this = "WHERE name = %s AND account_id = %s"
        with self._use() as connection, self._locked(connection, name, account_id):
            run = partial(self._run, connection)
            # All three are sent before the first answer is read: one round trip to a database.
            clock = run(f"SELECT {self._now}", self._clock())
            states = run(
                f"SELECT held_since, held_until, last_ticket, queue FROM ringcx_limit_states {this}", name, account_id
            )
            permits = run(
                f"SELECT at FROM ringcx_limit_permits {this} ORDER BY at DESC LIMIT %s", name, account_id, newest
            )
            (now,) = clock.fetchone()
            saved = states.fetchone() or (0.0, 0.0, 0, "[]")
            times = [at for (at,) in permits.fetchall()]
            if times and times[0] > now:
                run(f"UPDATE ringcx_limit_permits SET at = %s {this} AND at > %s", now, name, account_id, now)
            since, until, ticket, queue = saved
            state = LimitState(now, [min(at, now) for at in reversed(times)], since, until, ticket, json.loads(queue))
            yield state
            if state.saved() != saved:
                run(
                    "INSERT INTO ringcx_limit_states VALUES (%s, %s, %s, %s, %s, %s)"
                    " ON CONFLICT (name, account_id) DO UPDATE SET held_since = excluded.held_since,"
                    " held_until = excluded.held_until, last_ticket = excluded.last_ticket, queue = excluded.queue",
                    *(name, account_id, *state.saved()),
                )
            if state.grant_s is not None:
                run(f"DELETE FROM ringcx_limit_permits {this} AND at < %s", name, account_id, now - state.grant_s)
                run("INSERT INTO ringcx_limit_permits VALUES (%s, %s, %s)", name, account_id, now)

    def close(self) -> None:
        """Close the connection, which opens again when the store is used."""
        with self._lock:
            self._discard()

    @contextmanager
    def _use(self) -> Iterator[Any]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except BaseException as error:
                # An interrupt too: an open transaction must not block others, or become part of the next one. It is
                # rolled back when the connection ends.
                self._discard()
                if (broken := self._as_limiter_error(error)) is not None:
                    raise broken from None  # a database's error holds the password
                raise

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, connection: Any, statement: str, *values: object) -> Any:
        """Run a statement written for PostgreSQL; return its cursor."""
        return connection.execute(statement, values)

    @abstractmethod
    def _open(self) -> Any:
        """Connect, and create the tables if they do not exist."""

    @abstractmethod
    def _locked(self, connection: Any, name: str, account_id: str) -> AbstractContextManager[object]:
        """Open a transaction that excludes others of the same limit and account; roll it back after an exception."""

    @abstractmethod
    def _as_limiter_error(self, error: BaseException) -> LimiterBroken | None:
        """Translate a database library's error, or return None for any other error."""


class SqliteStore(LimitStore):
    """A store for one host, in a file on a local disk, as SQLite's locks require; its folder is created."""

    def __init__(self, path: Path, *, clock: Callable[[], float] | None = None) -> None:
        super().__init__(clock or time.time)
        self._path = path

    @contextmanager
    def _locked(self, connection: sqlite3.Connection, *_: str) -> Iterator[None]:
        """Lock the whole file for writing, from before the first read until everything is written."""
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")

    def _run(self, connection: sqlite3.Connection, statement: str, *values: object) -> sqlite3.Cursor:
        return connection.execute(_in_sqlite(statement), values)

    def _as_limiter_error(self, error: BaseException) -> LimiterBroken | None:
        if not isinstance(error, sqlite3.Error | OSError):
            return None
        return LimiterBroken(
            f"The rate limiter's file {self._path} cannot be used ({error}); it must be on a writable local disk: check"
            " DATA_DIR and RATE_LIMIT_URL. It may be deleted while no run is in progress: it holds no more than the"
            " times of requests."
        )

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level: transactions are ours; each statement waits for the lock of another process.
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            with suppress(sqlite3.OperationalError):  # another process is changing it, for all
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_in_sqlite(';'.join(TABLES))}; COMMIT;")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _in_sqlite(statement: str) -> str:
    """Return the statement with SQLite's placeholders and without the prefix of tables: the file holds nothing else."""
    return statement.replace("%s", "?").replace("ringcx_limit_", "")
