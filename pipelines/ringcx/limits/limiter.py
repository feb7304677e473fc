"""Staying inside the source's limits, over all threads, processes and hosts, and over restarts.

Here: when a request may be sent, and who comes first. Not here: where that is written down (`store.py`), how
many requests run at once, and retries.
"""
# ruff: noqa: N818 - verdicts, as in errors.py

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.limits.sqlite import SqliteStore
from pipelines.ringcx.limits.store import LimiterBroken, LimitStore, Place, StoreLost

LONGEST_HOLD_S = 600.0  # a mistaken Retry-After must not silence us for long, in a store that outlives restarts
MARGIN_S = 1.0  # added to each window, as a request reaches the source a little later than it was permitted
_LOOK_EVERY_S = 5.0  # a waiter looks again this often: somebody before it may have left, or a hold-off may have come
_KEEP_S = 3_600.0  # permits are kept at least this long, so that a window made longer still finds its past
_RECONNECT_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # a minute: as long as a database takes to fail over
_DATABASES = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"

T = TypeVar("T")


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


def is_database(where: str) -> bool:
    """Whether a RATE_LIMIT_URL names a database rather than a file.

    Raises:
        ValueError: it is an address of another kind.
    """
    if where.startswith(_DATABASES):
        return True
    if "://" in where and not where.startswith(_SQLITE):
        raise ValueError("must be a file, sqlite:///<file> or postgresql://user:password@host/database")
    return False


class RateLimiter:
    """Permits from one store, the most urgent first, and among equals in the order in which they were asked for.

    A permit's time is written in the same transaction that finds it free, under the store's lock, so that no two
    processes can take the same one. A waiting thread has a ticket; the tickets before it in the queue tell it when
    its turn comes; it sleeps until then without any lock, and looks again. The ticket of a killed waiter lapses.

    Args:
        where: a file (a path, or `sqlite:///<file>`) for the processes of one host; `postgresql://…` for several.
        clock: seconds since the epoch, the same for all processes; None takes the host's for a file, the database's
            own for a database.
        sleep: used for every wait instead of a wait on the stop event; for tests.
        margin_s: added to each window.

    Raises:
        LimiterBroken: from every method, when the store cannot be used; a database is given a minute to come back.
    """

    def __init__(
        self,
        where: Path | str,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] | None = None,
        margin_s: float = MARGIN_S,
    ) -> None:
        self._store = _open_store(where, clock)
        self._elapsed = clock or time.monotonic
        self._sleep = sleep
        self._margin_s = margin_s

    def acquire(
        self,
        name: str,
        account_id: str,
        rates: Sequence[Rate],
        *,
        priority: int = 0,
        stop: threading.Event | None = None,
        patience_s: float | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> float:
        """Wait until one request of this limit and account may be sent; return the seconds waited.

        All `rates` hold at once; without any, only hold-offs are waited for. A lower `priority` goes first, also before
        those who wait already. `patience_s` is the longest hold-off to sit out; None means any. `prepare` is called
        before each look, so that what the request needs (a token) is fresh when the permit comes.

        Raises:
            Stopped: the stop event is set.
            HeldOff: a hold-off has more than `patience_s` seconds left.
        """
        started = self._elapsed()
        place = Place(name, account_id, priority)
        try:
            while True:
                check_stop(stop)
                if prepare is not None:
                    prepare()
                look = self._persist(partial(self._look, place, rates), stop)
                if look.wait_s <= 0:
                    return max(0.0, self._elapsed() - started)
                place = look.place
                _check_patience(look.held_s, patience_s)
                self._wait(min(look.wait_s, _LOOK_EVERY_S), stop)
        except BaseException:
            if place.ticket is not None:
                self._leave(place)
            raise

    def hold_off(self, name: str, account_id: str, seconds: float, *, stop: threading.Event | None = None) -> None:
        """Let nobody, in any process, have a permit of this limit and account for so long; the longest wins."""
        seconds = min(seconds, LONGEST_HOLD_S)
        if not seconds > 0:
            return
        place = Place(name, account_id)

        def hold() -> None:
            with self._store.page(place, newest=0) as page:
                if page.now + seconds > page.held_until:
                    page.hold(page.now + seconds)

        self._persist(hold, stop)

    def silences(self) -> list[tuple[str, str, float]]:
        """Every silence that lasts now: limit, account, seconds left. A host's limit reads `media@host`."""
        return self._store.silences()

    def close(self) -> None:
        """Close the store. The limiter opens it again when it is used again."""
        self._store.close()

    def _look(self, place: Place, rates: Sequence[Rate]) -> "_Look":
        """Take a permit if it is our turn."""
        key = place.name, place.account_id
        if not rates and place.ticket is None and key not in {held[:2] for held in self._store.silences()}:
            return _Look(place)
        with self._store.page(place, newest=max((rate.limit for rate in rates), default=0)) as page:
            times = list(page.permits)
            for _ in range(page.before):
                times.append(self._earliest(times, rates, page.held_until))
            turn = self._earliest(times, rates, page.held_until)
            if turn <= page.now:
                page.leave()
                if rates:
                    longest_s = max(rate.seconds for rate in rates)
                    page.grant(keep_s=max(longest_s + self._margin_s, _KEEP_S))
                return _Look(place)
            return _Look(replace(place, ticket=page.wait()), turn - page.now, page.held_until - page.now)

    def _earliest(self, times: Sequence[float], rates: Iterable[Rate], now: float) -> float:
        """When one more request may follow those at `times` (rising): `limit` requests back lies outside the window."""
        free = [times[-rate.limit] + rate.seconds + self._margin_s for rate in rates if len(times) >= rate.limit]
        return max([now, *free])

    def _persist(self, work: Callable[[], T], stop: threading.Event | None) -> T:
        """Do it, again while the store is lost and may come back. What is done twice so costs a permit, no more."""
        for pause in _RECONNECT_AFTER_S:
            try:
                return work()
            except StoreLost:
                self._wait(pause, stop)
                check_stop(stop)
        return work()

    def _wait(self, seconds: float, stop: threading.Event | None) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif stop is not None:
            stop.wait(seconds)
        else:
            time.sleep(seconds)

    def _leave(self, place: Place) -> None:
        """Give up our place. Should that fail, it lapses by itself, and the reason for leaving matters more."""
        with suppress(LimiterBroken), self._store.page(place, newest=0) as page:
            page.leave()


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look found: where we stand now, how long to wait (0: permitted), and how long of it is a hold-off."""

    place: Place
    wait_s: float = 0.0
    held_s: float = 0.0


def _open_store(where: Path | str, clock: Callable[[], float] | None) -> LimitStore[Any]:
    if isinstance(where, Path) or not is_database(where):
        return SqliteStore(Path(str(where).removeprefix(_SQLITE)), clock=clock)
    try:
        from pipelines.ringcx.limits.postgres import PostgresStore  # noqa: PLC0415 - an extra brings its library
    except ImportError as error:
        raise LimiterBroken(
            f"RATE_LIMIT_URL names a PostgreSQL database, and psycopg cannot be imported ({error.name or 'libpq'});"
            " install the extra: pip install 'ringcx-archive[postgres]'."
        ) from None
    return PostgresStore(where, clock=clock)


def check_stop(stop: threading.Event | None) -> None:
    """Raise Stopped when the event is set."""
    if stop is not None and stop.is_set():
        raise Stopped("The run is being stopped; what is left is taken up by the next one.")


def _check_patience(held_s: float, patience_s: float | None) -> None:
    if patience_s is not None and held_s > patience_s:
        raise HeldOff(held_s)
