"""How many recordings are in flight: as many as help, up to ARCHIVE_CONCURRENCY.

Over a network throughput follows their number. Where the processor is what is short, more threads only stand in each
other's way: at 2.9 MB without latency 16 are a tenth slower than 4. Which of the two it is, a run finds out: it begins
with a few, tries twice as many, and keeps them if that brought more. Not for how often a source may be asked
(`ringcx.limits`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["Climb", "Crew"]

P = ParamSpec("P")
T = TypeVar("T")

BEGIN_WITH: Final = 4
# A recording costs about as much as 400 KB of it, so that mixed sizes can be added up.
_BYTES: Final = 400_000
_LEAST_S: Final = 0.25
_BETTER: Final = 1.15
_AS_GOOD: Final = 0.97
_FELL: Final = 0.6
_HOLD_S: Final = 8.0
# Recordings that take so long are not held up by the processor.
_SLOW_S: Final = 2.0


class Climb:
    """Finds the limit by trying: pure, but for the clock's readings that it is given, in seconds."""

    def __init__(self, most: int, now: float) -> None:
        self.limit = min(BEGIN_WITH, most)
        self._most = most
        self._kept = self.limit  # what the limit goes back to when a trial fails
        self._rate = 0.0  # with that many
        self._down_next = True
        self._held_since = now
        self._changed = self._began = now
        self._work, self._count = 0.0, 0

    def ended(self, size: int, now: float) -> None:
        """Take note that a recording of so many bytes has ended."""
        self._count += 1
        if self._count <= self.limit:  # began under the limit before
            self._began, self._work = now, 0.0
            return
        self._work += 1 + size / _BYTES
        if now - self._began >= _LEAST_S and self._count >= 3 * self.limit:
            self._judge(self._work / (now - self._began), now)
            self._begin(now)

    def waited(self, now: float) -> None:
        """Take note that somebody waits for a turn: where too little ends to be judged, more may be in flight."""
        if now - self._changed >= _SLOW_S and self._count < self.limit:
            self._kept = self.limit = min(self._most, 2 * self.limit)
            self._rate = 0.0
            self._begin(now)

    def _judge(self, rate: float, now: float) -> None:
        trial = self.limit
        if trial > self._kept:
            better = rate > _BETTER * self._rate
        elif trial < self._kept:
            better = rate >= _AS_GOOD * self._rate
        else:
            better = True
        if better:
            # A first rate asks for a trial, and one so much lower that something else must be what is short now.
            climbing = trial > self._kept or rate < _FELL * self._rate or not self._rate
            self._kept, self._rate = trial, rate
            if climbing:
                self.limit = min(self._most, 2 * trial)
        else:
            self.limit = self._kept
        if self.limit == self._kept and trial != self._kept:
            self._held_since = now
        if self.limit == self._kept and now - self._held_since >= _HOLD_S:
            down, self._down_next, self._held_since = self._down_next, not self._down_next, now
            self.limit = max(1, self._kept // 2) if down else min(self._most, 2 * self._kept)

    def _begin(self, now: float) -> None:
        """Begin to measure: first those that began under another limit must end."""
        self._changed = self._began = now
        self._work, self._count = 0.0, 0


class Crew(Executor):
    """Threads of which as many work as help. The others are not there yet, or rest: work goes to the same few, whose
    connections and memory are warm.

    Args:
        most: never more.
        clock: seconds.
        name: what the threads' names begin with.
    """

    def __init__(self, most: int, *, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._climb = Climb(most, clock())
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._work_came = threading.Condition(self._lock)
        self._limit_rose = threading.Condition(self._lock)
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: list[threading.Thread] = []
        self._called = 0  # the limit of which the resting ones were told
        self._is_closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called by a thread, in its turn."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("The crew was sent home; it takes no more work.")
            self._work.append((future, partial(fn, *args, **kwargs)))
            self._hire()
            self._work_came.notify()
        return future

    def ended(self, size: int) -> None:
        """Say that a recording of so many bytes was dealt with."""
        with self._lock:
            self._climb.ended(size, self._clock())
            self._hire()

    def look(self) -> None:
        """Say that work waits; to be said every second or so."""
        with self._lock:
            if self._work:
                self._climb.waited(self._clock())
                self._hire()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Send the threads home once the work is done, or what is not begun was cancelled."""
        with self._lock:
            self._is_closed = True
            dropped = [self._work.popleft() for _ in range(len(self._work))] if cancel_futures else []
            self._work_came.notify_all()
            self._limit_rose.notify_all()
        for future, _ in dropped:
            future.cancel()
        for thread in self._threads if wait else ():
            thread.join()

    def _hire(self) -> None:
        """Bring as many to work as the limit wants, and work is there for."""
        wanted = min(self._climb.limit, len(self._threads) + len(self._work))
        while len(self._threads) < wanted:
            number = len(self._threads)
            self._threads.append(
                threading.Thread(target=self._serve, args=(number,), name=f"{self._name}_{number}", daemon=True)
            )
            self._threads[-1].start()
        if self._climb.limit > self._called:
            self._limit_rose.notify_all()
        self._called = self._climb.limit

    def _serve(self, number: int) -> None:
        while (item := self._next(number)) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
            else:
                future.set_result(result)
            del item, future, call  # what the work held is let go of while this thread waits for more

    def _next(self, number: int) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            while True:
                if self._is_closed and not self._work:
                    return None
                if number >= self._climb.limit and not self._is_closed:
                    self._work_came.notify()  # this one may have been told of work that is another's
                    self._limit_rose.wait()
                elif not self._work:
                    self._work_came.wait()
                else:
                    return self._work.popleft()
