"""Which dates of the ledger changed since the last look. For the sensor and for the check that looks over all dates.

Listings tell: they give the time of each date's newest part. The dates are then read side by side, in the order of
these times, so that a look that runs out of time is continued where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel

from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.store import Ledger
from pipelines.steps.parallel import map_in_order

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Writers on other machines have other clocks: parts this much older than the newest one seen are looked at again.
CLOCK_OVERLAP = timedelta(minutes=10)
_READERS = 8  # more only wait for each other's CPU: at 30 ms a request, a date costs as much of that as of waiting
_T = TypeVar("_T")


class Position(BaseModel, extra="forbid"):
    """How far a reader has come: every part written up to `read_to` has been read, also by a clock that is late.

    `began` and `after` belong to a look that ran out of time: when it began, and the last date that it read. `damaged`
    are dates that could not be read: nothing is written when they are restored, so every look tries them again.
    """

    read_to: AwareDatetime = NEVER
    began: AwareDatetime | None = None
    after: tuple[AwareDatetime, date] | None = None
    damaged: set[date] = set()


def changed_dates(
    ledger: Ledger,
    position: Position,
    now: datetime,
    read: Callable[[date], _T],
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[date, _T | LedgerDamaged]]:
    """Yield what `read` makes of each date that changed since `position`, and move `position` on.

    A date with a damaged part yields the error instead: it must not keep the others from being read. After `seconds`
    the look ends; the next one continues it.
    """
    end = None if seconds is None else clock() + seconds
    began = position.began or now
    # A part from a clock ahead of ours must not make us blind to what is written until ours has caught up.
    since = min(position.read_to, began) - CLOCK_OVERLAP
    listed = sorted(
        (written, day) for day, written in ledger.state_days().items() if written > since or day in position.damaged
    )
    todo = [one for one in listed if position.after is None or one > position.after]

    def tried(one: tuple[datetime, date]) -> _T | LedgerDamaged:
        try:
            return read(one[1])
        except LedgerDamaged as error:
            return error

    cut = False

    def in_time() -> Iterator[tuple[datetime, date]]:
        nonlocal cut
        for number, one in enumerate(todo):
            # Some dates are read however long the listing took: otherwise no look would ever get on.
            if cut := end is not None and clock() > end and number >= _READERS:
                return
            yield one

    position.began = began
    for one, made in map_in_order(tried, in_time(), threads=_READERS):
        if isinstance(made, LedgerDamaged):
            position.damaged.add(one[1])
        else:
            position.damaged.discard(one[1])
        position.after = one
        yield one[1], made
    if not cut:
        newest = max((written for written, _ in listed), default=position.read_to)
        position.read_to = min(max(position.read_to, newest), began)
        position.began = position.after = None
