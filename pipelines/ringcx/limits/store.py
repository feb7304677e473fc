"""What the limiter writes down, and the SQL for it, which is the same for every store.

Here: one limit of one account under its lock (`Page`), and one connection that serves all threads (`LimitStore`). Not
here: when a permit is free (`limiter.py`), and how a store connects and locks (`sqlite.py`,
`postgres.py`).
"""
# ruff: noqa: N818, S608 - verdicts, as in errors.py; statements are put together from parts that stand in this file

import math
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

GONE_AFTER_S = 15.0  # a waiter not seen for so long was killed; its place is free
_MINE = "name = %(name)s AND account_id = %(account_id)s"


class _Closable(Protocol):
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=_Closable)
Execute: TypeAlias = Callable[[str, Mapping[str, Any]], Any]
"""Runs a statement written as for PostgreSQL and returns its cursor."""


class LimiterBroken(RuntimeError):
    """The limiter's store cannot be used. Nothing is requested then: without it the limits cannot be kept."""


class StoreLost(LimiterBroken):
    """The store does not answer now; it may in a moment."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stands: for which limit of which account, how urgently (lower first), with which ticket."""

    name: str
    account_id: str
    priority: int = 0
    ticket: int | None = None


class Page:
    """One limit of one account, under its lock: nobody else reads or changes it until it is closed.

    Attributes:
        now: the time, by the clock that all processes share.
        held_until: the end of the source's silence; `now` when there is none.
        permits: the newest ones asked for, in rising order, none after `now`.
        before: how many wait whose turn comes before the one who looks.
    """

    def __init__(self, execute: Execute, values: Mapping[str, Any], *, now: str, relax: str) -> None:
        self._execute_with = execute
        self._values = values
        self._relax = relax
        # All three are sent before the first answer is read: one round trip to a database.
        held = self._execute(
            f"SELECT {now}, since, until FROM (SELECT 1) AS always LEFT JOIN ringcx_limit_holds ON {_MINE}"
        )
        newest = self._execute(f"SELECT at FROM ringcx_limit_permits WHERE {_MINE} ORDER BY at DESC LIMIT %(newest)s")
        waiting = self._execute(f"SELECT priority, ticket, seen FROM ringcx_limit_queue WHERE {_MINE}")
        self.now, since, until = held.fetchone()
        self._values = {**values, "now": self.now}
        times = [at for (at,) in newest.fetchall()][::-1]
        queue = waiting.fetchall()
        if max([since or 0.0, *times[-1:], *(seen for *_, seen in queue)]) > self.now:
            self._move_out_of_the_future()
        if until is not None and since > self.now:
            until += self.now - since
        self.held_until: float = self.now if until is None else max(self.now, until)
        self.permits: Sequence[float] = [min(at, self.now) for at in times]
        own = values["priority"], values["ticket"] or math.inf
        self.before = sum(
            (priority, ticket) < own for priority, ticket, seen in queue if seen >= self.now - GONE_AFTER_S
        )

    def grant(self, *, keep_s: float) -> None:
        """Write a permit at `now`, and forget those older than `keep_s`."""
        self._execute(f"DELETE FROM ringcx_limit_permits WHERE {_MINE} AND at < %(until)s", until=self.now - keep_s)
        self._execute(
            "INSERT INTO ringcx_limit_permits (name, account_id, at) VALUES (%(name)s, %(account_id)s, %(now)s)"
        )

    def wait(self) -> int:
        """Take or keep a place in the queue, also one that has lapsed; return the ticket."""
        if self._relax:
            self._execute(self._relax)
        self._execute(
            f"DELETE FROM ringcx_limit_queue WHERE {_MINE} AND seen < %(until)s", until=self.now - GONE_AFTER_S
        )
        if ticket := self._values["ticket"]:
            self._execute(
                "INSERT INTO ringcx_limit_queue (ticket, name, account_id, priority, seen)"
                " VALUES (%(ticket)s, %(name)s, %(account_id)s, %(priority)s, %(now)s)"
                " ON CONFLICT (ticket) DO UPDATE SET seen = excluded.seen"
            )
            return int(ticket)
        self._execute(
            "INSERT INTO ringcx_limit_queue (name, account_id, priority, seen)"
            " VALUES (%(name)s, %(account_id)s, %(priority)s, %(now)s)"
        )
        # Tickets rise, and nobody else can take one here now. RETURNING needs SQLite 3.35, which not everybody has.
        (ticket,) = self._execute(f"SELECT max(ticket) FROM ringcx_limit_queue WHERE {_MINE}").fetchone()
        return int(ticket)

    def leave(self) -> None:
        """Give up the place in the queue, if there is one."""
        if self._values["ticket"]:
            self._execute("DELETE FROM ringcx_limit_queue WHERE ticket = %(ticket)s")

    def hold(self, until: float) -> None:
        """Let nobody have a permit before `until`."""
        self._execute(
            "INSERT INTO ringcx_limit_holds VALUES (%(name)s, %(account_id)s, %(now)s, %(until)s)"
            " ON CONFLICT (name, account_id) DO UPDATE SET since = excluded.since, until = excluded.until",
            until=until,
        )

    def _move_out_of_the_future(self) -> None:
        """When the clock was set back, take what is in its future to have happened now.

        Never a permit too many then, and no wait for hours either.
        """
        self._execute(f"UPDATE ringcx_limit_permits SET at = %(now)s WHERE {_MINE} AND at > %(now)s")
        self._execute(f"UPDATE ringcx_limit_queue SET seen = %(now)s WHERE {_MINE} AND seen > %(now)s")
        self._execute(
            "UPDATE ringcx_limit_holds SET until = until - since + %(now)s, since = %(now)s"
            f" WHERE {_MINE} AND since > %(now)s"
        )

    def _execute(self, statement: str, **more: float) -> Any:  # noqa: ANN401 - a cursor of either library
        return self._execute_with(statement, {**self._values, **more})


class LimitStore(ABC, Generic[Connection]):
    """What outlives a process: the permits of the last minutes, who waits, and silences asked for.

    A process has one connection, opened when first needed, used by a thread at a time, never shared with a child.

    Args:
        clock: seconds since the epoch; None takes the database's own.

    Raises:
        LimiterBroken: from every method, when the store cannot be used.
    """

    _now: ClassVar[str]  # the time, in SQL
    _relax: ClassVar[str] = ""  # run before a place in the queue is written, whose loss costs nothing but the place

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._inherited: list[Connection] = []
        if hasattr(os, "register_at_fork"):
            start_anew = weakref.WeakMethod(self._start_anew_in_child)
            os.register_at_fork(after_in_child=lambda: (this := start_anew()) and this())

    def silences(self) -> list[tuple[str, str, float]]:
        """Return every silence that lasts now: limit, account, seconds left. It takes no lock."""
        statement = (
            f"SELECT name, account_id, until - {self._now} FROM ringcx_limit_holds WHERE until > {self._now}"
            " ORDER BY name, account_id"
        )
        with self._use() as connection:
            return list(self._execute(connection)(statement, {"clock": self._clock and self._clock()}).fetchall())

    @contextmanager
    def page(self, place: Place, *, newest: int) -> Iterator[Page]:
        """The page of a limit and account with its `newest` permits; what is written is kept when it is closed."""
        values = {
            "name": place.name,
            "account_id": place.account_id,
            "priority": place.priority,
            "ticket": place.ticket,
            "newest": newest,
        }
        with self._use() as connection, self._locked(connection, values):
            values["clock"] = self._clock and self._clock()
            yield Page(self._execute(connection), values, now=self._now, relax=self._relax)

    def close(self) -> None:
        """Close the connection; it is opened again when the store is used again."""
        with self._lock:
            self._discard()

    @contextmanager
    def _use(self) -> Iterator[Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except BaseException as error:
                # An interrupt too: what is left of a transaction must not stop others, nor be taken for the next
                # one's. It is rolled back when the connection ends.
                self._discard()
                if (verdict := self._verdict(error)) is not None:
                    raise verdict from None  # a database's error holds the password
                raise

    def _discard(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _start_anew_in_child(self) -> None:
        """After a fork: neither the parent's lock (perhaps held) nor its connection is ours; keep it, unused."""
        self._lock = threading.Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)  # closing it here would break the parent's
            self._connection = None

    @abstractmethod
    def _open(self) -> Connection:
        """Connect, and make the tables when they are not there."""

    @abstractmethod
    def _locked(self, connection: Connection, values: Mapping[str, Any]) -> AbstractContextManager[object]:
        """A transaction that nobody else has for the same limit and account; rolled back after an exception."""

    @abstractmethod
    def _execute(self, connection: Connection) -> Execute:
        """What runs statements on the connection."""

    @abstractmethod
    def _verdict(self, error: BaseException) -> LimiterBroken | None:
        """What an error of the store's library means; None for any other error."""


def schema(ticket: str) -> Sequence[str]:
    """The statements that make the tables; `ticket` is the type of a key that the store counts up itself."""
    return (
        """CREATE TABLE IF NOT EXISTS ringcx_limit_permits (
            name text NOT NULL, account_id text NOT NULL, at float8 NOT NULL)""",
        "CREATE INDEX IF NOT EXISTS ringcx_limit_permits_by_time ON ringcx_limit_permits (name, account_id, at)",
        f"""CREATE TABLE IF NOT EXISTS ringcx_limit_queue (
            ticket {ticket}, name text NOT NULL, account_id text NOT NULL,
            priority integer NOT NULL, seen float8 NOT NULL)""",
        """CREATE TABLE IF NOT EXISTS ringcx_limit_holds (
            name text NOT NULL, account_id text NOT NULL, since float8 NOT NULL, until float8 NOT NULL,
            PRIMARY KEY (name, account_id))""",
    )
