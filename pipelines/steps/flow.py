"""How many recordings are in flight: as many as help, up to ARCHIVE_CONCURRENCY.

Over a network throughput follows their number. Where the processor is what is short, more threads only stand in each
other's way: at 2.9 MB without latency 16 are a fifth slower than 4. Which of the two it is, a run finds out: it begins
with a few, tries twice as many, and keeps them if that brought more. Not for how often a source may be asked
(`ringcx.limits`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pipelines.ringcx.limits import check_stop

__all__ = ["Climb", "Flow"]

BEGIN_WITH: Final = 4
# A recording costs about as much as 400 KB of it, so that mixed sizes can be added up.
_BYTES: Final = 400_000
_LEAST_S: Final = 0.25
_BETTER: Final = 1.15
_AS_GOOD: Final = 0.97
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
            climbing = trial > self._kept or not self._rate
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
        self._changed = self._began = now
        self._work, self._count = 0.0, 0


class Flow:
    """Lets so many threads work at a time as help; share it over those of a run.

    Args:
        most: never more.
        stop: set when the run is ending.
        clock: seconds.
    """

    def __init__(self, most: int, stop: threading.Event, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._climb = Climb(most, clock())
        self._stop = stop
        self._clock = clock
        self._turns = threading.Condition()
        self._busy = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it for the length of a `with` block.

        Raises:
            Stopped: the stop event was set while it waited.
        """
        with self._turns:
            while self._busy >= self._climb.limit:
                check_stop(self._stop)
                self._turns.wait(0.5)
                self._climb.waited(self._clock())
            self._busy += 1
        try:
            yield
        finally:
            with self._turns:
                self._busy -= 1
                self._turns.notify()

    def ended(self, size: int) -> None:
        """Say that a recording of so many bytes was dealt with."""
        with self._turns:
            before = self._climb.limit
            self._climb.ended(size, self._clock())
            self._turns.notify(max(0, self._climb.limit - before))
