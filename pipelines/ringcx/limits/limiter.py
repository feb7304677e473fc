"""The limiter: it stays within the source's limits over all threads, processes and hosts, and over restarts.

This module decides when a request may be sent and who comes first; `store.py` stores that.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.limits.store import LimiterBroken, LimitStore, SqliteStore, StoreLost

LONGEST_HOLD_S = 300.0  # a mistaken Retry-After must not stop requests for long, nor a waiting run block its date
MARGIN_S = 1.0  # added to each window, as a request reaches the source a little later than it was permitted
ANNOUNCED_FROM_S = 10.0  # shorter waits are normal and not worth a message
_RETRY_EVERY_S = 5.0  # a waiter tries again this often: one before it may have left, or the source asked for a pause
_KEEP_S = 3_600.0  # permits are kept at least this long, so that a window that is made longer has its history
_RECONNECT_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # a minute: as long as a database takes to fail over
_DATABASES = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"
_RATE = re.compile(r"(\d{1,9}) */ *(\d{1,9}(?:\.\d*)?)", re.ASCII)
_NEVER = threading.Event()
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in any `seconds` seconds."""

    limit: int
    seconds: float


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Return the rates in `requests/seconds[,requests/seconds…]`, such as `3/60,9/900`; none for `none` or no text."""
    if text.strip().lower() in {"", "none"}:
        return ()
    found = [_RATE.fullmatch(part.strip()) for part in text.split(",")]
    rates = tuple(Rate(int(rate[1]), float(rate[2])) for rate in found if rate)
    if len(rates) < len(found) or not all(rate.limit and rate.seconds for rate in rates):
        raise ValueError("Write a limit as requests/seconds, such as 3/60 or 3/60,9/900, or none.")
    return rates


def is_database(where: str) -> bool:
    """Return whether a RATE_LIMIT_URL names a database and not a file; raise ValueError for any other address."""
    if where.startswith(_DATABASES):
        return True
    if "://" in where and not where.startswith(_SQLITE):
        raise ValueError("must be a file, sqlite:///<file> or postgresql://user:password@host/database")
    return False


@dataclass(eq=False, repr=False)
class RateLimiter:
    """A source of permits from one store: the most urgent first, and equals in the order of their requests.

    A permit's time is written in the transaction that finds it free, under the store's lock, so that no two processes
    can take the same one. A waiting thread has a ticket; from the tickets before it in the queue it computes its turn,
    sleeps until then without any lock, and tries again. The ticket of a killed waiter lapses. Every method raises
    LimiterBroken if the store cannot be used; a database gets a minute to come back.

    `where`: a file (a path, or `sqlite:///<file>`) for the processes of one host; `postgresql://…` for several.
    `clock` returns seconds since the epoch; None means the host's clock for a file, the database's for a database.
    `notify` takes a sentence about a long wait.
    """

    where: Path | str
    _: KW_ONLY
    clock: Callable[[], float] | None = None
    sleep: Callable[[float], None] | None = None
    margin_s: float = MARGIN_S
    notify: Callable[[str], None] = _log.info

    def __post_init__(self) -> None:
        self._store = _open_store(self.where, self.clock)
        self._elapsed = self.clock or time.monotonic
        self._announced_until: dict[str, float] = {}
        self._announcing = threading.Lock()

    def acquire(
        self,
        name: str,
        account_id: str,
        rates: Sequence[Rate],
        *,
        priority: int = 0,
        stop: threading.Event = _NEVER,
        prepare: Callable[[], None] | None = None,
    ) -> float:
        """Wait until one request of this limit and account may be sent; return the seconds waited.

        All `rates` apply at once; without any, only pauses are waited for. A lower `priority` goes first, even before
        requests that already wait. `prepare` is called before each attempt, so that what the request needs (a token)
        is fresh when the permit comes. Raises Stopped if the stop event is set.
        """
        started = self._elapsed()
        ticket: int | None = None
        try:
            while True:
                check_stop(stop)
                if prepare is not None:
                    prepare()
                attempt = partial(self._attempt, name, account_id, rates, priority, ticket)
                wait_s, ticket = self._persist(attempt, stop)
                if wait_s <= 0:
                    return max(0.0, self._elapsed() - started)
                of_account = f" of account {account_id}" if account_id else ""
                what = f"a permit of the limit `{name}`" if rates else f"the end of a pause RingCX asked for (`{name}`)"
                self.announce(f"{what}{of_account}", wait_s)
                (self.sleep or stop.wait)(min(wait_s, _RETRY_EVERY_S))
        except BaseException:
            if ticket is not None:
                # Should this fail, the ticket lapses by itself, and the reason for leaving matters more.
                with suppress(LimiterBroken), self._store.locked(name, account_id) as state:
                    state.leave(ticket)
            raise

    def _attempt(
        self, name: str, account_id: str, rates: Sequence[Rate], priority: int, ticket: int | None
    ) -> tuple[float, int | None]:
        """Take a permit if it is the waiter's turn, else queue it; return the seconds until then and its ticket."""
        if not rates and ticket is None and (name, account_id) not in {pause[:2] for pause in self.pauses()}:
            return 0.0, None
        newest = max((rate.limit for rate in rates), default=0)
        with self._store.locked(name, account_id, newest=newest) as state:
            position = priority, ticket or math.inf
            ahead = [number for urgency, number, _ in state.queue if (urgency, number) < position]
            resumes_at = max(state.now, state.held_until)
            times = list(state.permits)
            for _ in ahead:
                times.append(self._earliest(times, rates, resumes_at))
            turn = self._earliest(times, rates, resumes_at)
            if turn <= state.now:
                state.leave(ticket)
                if rates:
                    state.grant_s = max(_KEEP_S, *(rate.seconds + self.margin_s for rate in rates))
                return 0.0, None
            return turn - state.now, state.wait(priority, ticket)

    def hold_off(self, name: str, account_id: str, seconds: float, *, stop: threading.Event = _NEVER) -> None:
        """Withhold every permit of this limit and account for `seconds`, in all processes; the longest pause wins."""
        seconds = min(seconds, LONGEST_HOLD_S)

        def hold() -> None:
            with self._store.locked(name, account_id) as state:
                if state.now + seconds > state.held_until:
                    state.held_since, state.held_until = state.now, state.now + seconds

        self._persist(hold, stop)

    def announce(self, what: str, seconds: float) -> None:
        """Log that requests wait for `what` if the wait is long: once for all threads, and again if it gets longer."""
        with self._announcing:
            now = self._elapsed()
            if seconds < ANNOUNCED_FROM_S or now < self._announced_until.get(what, now):
                return
            self._announced_until[what] = now + seconds
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        self.notify(f"Waiting for {what}: about {duration}.")

    def pauses(self) -> list[tuple[str, str, float]]:
        """Return each pause that lasts now: limit, account, seconds left. A host's limit reads `media@host`."""
        states = ((limit, account, state.held_until - state.now) for limit, account, state in self._store.states())
        return [pause for pause in states if pause[2] > 0]

    def waiting(self) -> list[tuple[str, str, int]]:
        """Return how many requests wait for a permit now: limit, account, number."""
        return [(limit, account, len(state.queue)) for limit, account, state in self._store.states()]

    def close(self) -> None:
        """Close the store, which opens again when it is used."""
        self._store.close()

    def _earliest(self, times: Sequence[float], rates: Sequence[Rate], now: float) -> float:
        """Return when the next request may follow those at `times` (ascending): `now`, or later."""
        free = [times[-rate.limit] + rate.seconds + self.margin_s for rate in rates if len(times) >= rate.limit]
        return max([now, *free])

    def _persist(self, work: Callable[[], T], stop: threading.Event) -> T:
        """Run `work`; repeat it while the store is lost and may come back. A second run costs at most one permit."""
        for pause_s in _RECONNECT_AFTER_S:
            try:
                return work()
            except StoreLost:
                (self.sleep or stop.wait)(pause_s)
                check_stop(stop)
        return work()


def _open_store(where: Path | str, clock: Callable[[], float] | None) -> LimitStore:
    if isinstance(where, Path) or not is_database(where):
        return SqliteStore(Path(str(where).removeprefix(_SQLITE)), clock=clock)
    try:
        from pipelines.ringcx.limits.postgres import PostgresStore  # noqa: PLC0415 - an extra brings its library
    except ImportError as error:
        raise LimiterBroken(
            f"RATE_LIMIT_URL names a PostgreSQL database, and psycopg cannot be imported ({error.name or 'libpq'});"
            " install the extra: pip install '.[postgres]' in the project folder."
        ) from None
    return PostgresStore(where, clock=clock)


def check_stop(stop: threading.Event) -> None:
    """Raise Stopped if the event is set."""
    if stop.is_set():
        raise Stopped("The run is being stopped; the next run continues with what is left.")
