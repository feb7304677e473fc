"""The limiter's store for one host: a SQLite file. Every change is made under SQLite's write lock.

Plain sqlite3 rather than pyrate-limiter: its SQLiteBucket (4.5.1) counts before it takes the write lock, so two
processes can both see the last free permit, and its file lock serves processes or threads but not both.
"""
# ruff: noqa: S608 - statements are put together from parts that stand in this file

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.ringcx.limit_store import GONE_AFTER_S, LimiterBroken, OneConnection, Page, Place

_LOCK_TIMEOUT_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS permits (name TEXT NOT NULL, account_id TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS permits_by_time ON permits (name, account_id, at);
CREATE TABLE IF NOT EXISTS queue (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, account_id TEXT NOT NULL,
    priority INTEGER NOT NULL, seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS holds (
    name TEXT NOT NULL, account_id TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (name, account_id));
"""
_MINE = "name = ? AND account_id = ?"


class SqliteStore:
    """A file on a local disk, as SQLite's locks need.

    Args:
        path: the file; its folder is made.
        clock: seconds since the epoch, the same for all processes.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] | None = None) -> None:
        self._path = path
        self._clock = clock or time.time
        self._connection = OneConnection(self._open, sqlite3.Connection.close)

    def is_held(self, place: Place) -> bool:
        """Whether there is a silence now."""
        with self._use() as connection:
            row = connection.execute(f"SELECT until FROM holds WHERE {_MINE}", _key(place)).fetchone()
        return row is not None and bool(row[0] > self._clock())

    def silences(self) -> list[tuple[str, str, float]]:
        """Every silence that lasts now: limit, account, seconds left."""
        now = self._clock()
        with self._use() as connection:
            return connection.execute(
                "SELECT name, account_id, until - ? FROM holds WHERE until > ? ORDER BY name, account_id", (now, now)
            ).fetchall()

    @contextmanager
    def page(self, place: Place, *, newest: int) -> Iterator[Page]:
        """Write lock from before the first look until after the last write."""
        with self._use() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield _Page(connection, place, newest=newest, now=self._clock())
                connection.execute("COMMIT")
            except BaseException:  # an interrupt too: an open transaction would stop every other process
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection.use() as connection:
                yield connection
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


class _Page:
    """A limit's rows in an open transaction; see `limit_store.Page`."""

    def __init__(self, connection: sqlite3.Connection, place: Place, *, newest: int, now: float) -> None:
        self._connection = connection
        self._place = place
        self._key = _key(place)
        self.now = now
        self._move_out_of_the_future()
        held = self._execute(f"SELECT until FROM holds WHERE {_MINE}", self._key).fetchone()
        self.held_until: float = now if held is None else max(now, held[0])
        times = self._execute(f"SELECT at FROM permits WHERE {_MINE} ORDER BY at DESC LIMIT ?", (*self._key, newest))
        self.permits: Sequence[float] = [at for (at,) in times][::-1]
        self._execute(f"DELETE FROM queue WHERE {_MINE} AND seen < ?", (*self._key, now - GONE_AFTER_S))
        (self.before,) = self._execute(
            f"SELECT count(*) FROM queue WHERE {_MINE} AND (priority, ticket) < (?, ?)",
            (*self._key, place.priority, math.inf if place.ticket is None else place.ticket),
        ).fetchone()

    def grant(self, *, keep_s: float) -> None:
        """Write a permit at `now`, and forget those older than `keep_s`."""
        self._execute(f"DELETE FROM permits WHERE {_MINE} AND at < ?", (*self._key, self.now - keep_s))
        self._execute("INSERT INTO permits (name, account_id, at) VALUES (?, ?, ?)", (*self._key, self.now))

    def wait(self) -> int:
        """Take or keep a place in the queue; one that has lapsed meanwhile is had again."""
        found = self._execute(
            "INSERT OR REPLACE INTO queue (ticket, name, account_id, priority, seen) VALUES (?, ?, ?, ?, ?)",
            (self._place.ticket, *self._key, self._place.priority, self.now),
        )
        return self._place.ticket or int(found.lastrowid or 0)

    def leave(self) -> None:
        """Give up the place in the queue."""
        self._execute("DELETE FROM queue WHERE ticket = ?", (self._place.ticket,))

    def hold(self, until: float) -> None:
        """Nobody may have a permit before `until`."""
        self._execute("INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?)", (*self._key, self.now, until))

    def _move_out_of_the_future(self) -> None:
        """When the clock was set back, what lies in its future is taken to have happened now.

        Never a permit too many then, and no wait for hours either.
        """
        late = (self.now, *self._key, self.now)
        self._execute(f"UPDATE permits SET at = ? WHERE {_MINE} AND at > ?", late)
        self._execute(f"UPDATE queue SET seen = ? WHERE {_MINE} AND seen > ?", late)
        self._execute(
            f"UPDATE holds SET until = until - since + ?, since = ? WHERE {_MINE} AND since > ?", (self.now, *late)
        )

    def _execute(self, statement: str, values: Sequence[str | float | None]) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


def _key(place: Place) -> tuple[str, str]:
    return place.name, place.account_id
