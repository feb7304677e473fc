"""What every store of the limiter has in common: what it keeps, and how one connection serves all threads.

Here: the face that `limits.py` works with. Not here: when a permit is free (`limits.py`), and SQL
(`limit_store_sqlite.py`, `limit_store_postgres.py`).
"""
# ruff: noqa: N818 - verdicts, as in errors.py

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

GONE_AFTER_S = 15.0  # a waiter not seen for so long was killed; its place is free

Connection = TypeVar("Connection")


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


class Page(Protocol):
    """One limit of one account, under its lock: nobody else reads or changes it until it is closed.

    Attributes:
        now: the time, by the clock that all processes share.
        held_until: the end of the source's silence; `now` when there is none.
        permits: the newest ones asked for, in rising order, none after `now`.
        before: how many wait whose turn comes before the one who looks.
    """

    now: float
    held_until: float
    permits: Sequence[float]
    before: int

    def grant(self, *, keep_s: float) -> None:
        """Write a permit at `now`, and forget those older than `keep_s`."""

    def wait(self) -> int:
        """Take or keep a place in the queue; returns the ticket."""

    def leave(self) -> None:
        """Give up the place in the queue, if there is one."""

    def hold(self, until: float) -> None:
        """Nobody may have a permit before `until`."""


class LimitStore(Protocol):
    """What outlives a process: the permits of the last minutes, who waits, and silences asked for.

    All methods raise LimiterBroken when the store cannot be used.
    """

    def is_held(self, place: Place) -> bool:
        """Whether there is a silence now: a read that takes no lock, thousands of times an hour."""

    def silences(self) -> list[tuple[str, str, float]]:
        """Every silence that lasts now: limit, account, seconds left."""

    def page(self, place: Place, *, newest: int) -> AbstractContextManager[Page]:
        """The page of a limit and account with its `newest` permits; what is written is kept when it is closed."""

    def close(self) -> None:
        """Close the connection; it is opened again when the store is used again."""


class OneConnection(Generic[Connection]):
    """A process's one connection, used by a thread at a time, opened when first needed, never shared with a child.

    Args:
        open_: makes a connection.
        close: ends one.
    """

    def __init__(self, open_: Callable[[], Connection], close: Callable[[Connection], None]) -> None:
        self._open = open_
        self._close = close
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._inherited: list[Connection] = []
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)

            def forget_parent() -> None:
                if (one := this()) is not None:
                    one._start_anew_in_child()  # noqa: SLF001 - its own method

            os.register_at_fork(after_in_child=forget_parent)

    @contextmanager
    def use(self) -> Iterator[Connection]:
        """The connection, for this thread alone."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection

    def discard(self) -> None:
        """Close it, inside `use`: the next one to use it gets a new one."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._close(connection)

    def close(self) -> None:
        """Close it once the thread that uses it is done."""
        with self._lock:
            self.discard()

    def _start_anew_in_child(self) -> None:
        """After a fork: neither the parent's lock (perhaps held) nor its connection is ours; keep it, unused."""
        self._lock = threading.Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)  # closing it here would break the parent's
            self._connection = None
