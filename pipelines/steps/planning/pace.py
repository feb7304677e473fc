"""How long so many requests take under the source's limits, and how many log-ins go with it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from pipelines.ringcx.limits import MARGIN_S, Rate

# A RingCX token lives 5 minutes and is renewed a minute before its end (ringcx/auth.py).
TOKEN_S = 240.0
# The limit on `dagster/backfill` of dagster.yaml: each run is a process, and logs in for itself.
RUNS_AT_ONCE = 2
_EXACT = 20_000


def seconds_needed(requests: int, rates: Sequence[Rate], *, margin_s: float = MARGIN_S) -> float:
    """Seconds from the first to the last permit of so many requests, by a limiter that was idle before.

    All windows hold at once. The first 20,000 requests are followed one by one; after that the slowest window sets the
    pace.
    """
    if requests <= 1 or not rates:
        return 0.0
    times: deque[float] = deque(maxlen=max(rate.limit for rate in rates))
    now = 0.0
    for _ in range(min(requests, _EXACT)):
        free = [times[-rate.limit] + rate.seconds + margin_s for rate in rates if len(times) >= rate.limit]
        now = max([now, *free])
        times.append(now)
    rest = max(0, requests - _EXACT)
    return now + rest * max((rate.seconds + margin_s) / rate.limit for rate in rates)


def log_ins(dates: int, seconds: float) -> int:
    """Log-ins and renewals of so many runs that take so long together: one a run, one for each token's life in each of
    the runs at once.
    """
    return dates + min(dates, RUNS_AT_ONCE) * math.floor(seconds / TOKEN_S) if dates else 0
