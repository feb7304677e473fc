"""The limiter's store for one host: a SQLite file. Every change is made under SQLite's write lock.

Plain sqlite3 rather than pyrate-limiter: its SQLiteBucket (4.5.1) counts before it takes the write lock, so two
processes can both see the last free permit, and its file lock serves processes or threads but not both.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.ringcx.limits.store import TABLES, LimiterBroken, LimitStore

_LOCK_TIMEOUT_S = 60.0


class SqliteStore(LimitStore):
    """A store in a file on a local disk, as SQLite's locks need; its folder is made."""

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

    def _explained(self, error: BaseException) -> LimiterBroken | None:
        if not isinstance(error, sqlite3.Error):
            return None
        return LimiterBroken(
            f"The rate limiter's file {self._path} cannot be used ({error}); it must be on a writable local disk. It"
            " may be deleted while no run is going on, as it only holds the times of requests."
        )

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LimiterBroken(
                f"The folder {self._path.parent} for the rate limiter's file cannot be created ({error.strerror});"
                " check DATA_DIR and RATE_LIMIT_URL."
            ) from error
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        give_up_at = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_in_sqlite(';'.join(TABLES))}; COMMIT;")
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


def _in_sqlite(statement: str) -> str:
    """Return the statement with SQLite's placeholders and without the prefix of tables: the file holds nothing else."""
    return statement.replace("%s", "?").replace("ringcx_limit_", "")
