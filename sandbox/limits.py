"""The source's documented limits, enforced exactly.

Sliding windows, kept in memory: a request over the limit is refused, takes no place in the window, and is counted.
How a client stays within them is up to the client.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in any `seconds`."""

    limit: int
    seconds: float


def parse_rates(text: str) -> tuple[Rate, ...]:
    """Read `3/60,9/900`; `none` or an empty text means no limit.

    Raises:
        ValueError: Another form.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    rates = []
    for part in text.split(","):
        limit, slash, seconds = part.partition("/")
        try:
            rate = Rate(int(limit), float(seconds))
        except ValueError as error:
            raise ValueError(f"A limit reads requests/seconds, as in 2/60, not {part!r}.") from error
        if not slash or rate.limit < 1 or rate.seconds <= 0:
            raise ValueError(f"A limit has at least one request and some time, not {part!r}.")
        rates.append(rate)
    return tuple(rates)


class SlidingWindows:
    """Several rates at once, for each key on its own.

    Args:
        rates: All of them must have room.
        clock: Seconds from any origin, never backwards.
    """

    def __init__(self, rates: tuple[Rate, ...], clock: Callable[[], float]) -> None:
        self.rates = rates
        self.violations = 0
        self._clock = clock
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    def admit(self, key: str) -> int | None:
        """Let a request in, or say how many whole seconds it should wait (the `Retry-After`)."""
        if not self.rates:
            return None
        now = self._clock()
        admitted = self._admitted[key]
        longest = max(rate.seconds for rate in self.rates)
        while admitted and admitted[0] <= now - longest:
            admitted.popleft()
        wait = max((self._wait(admitted, rate, now) for rate in self.rates), default=0.0)
        if wait > 0:
            self.violations += 1
            return max(1, math.ceil(wait))
        admitted.append(now)
        return None

    @staticmethod
    def _wait(admitted: deque[float], rate: Rate, now: float) -> float:
        if len(admitted) < rate.limit:
            return 0.0
        # Rounded, since the clock may be a sum of the waits it gave: a rest of 1e-15 s is not a wait.
        return round(admitted[-rate.limit] + rate.seconds - now, 6)
