"""Find the dates of the ledger that changed since the last scan, for the sensor of pending recordings.

Listings give the time of each date's newest part. The dates are then read in parallel, in the order of these times, so
that the next scan continues where one that ran out of time ended.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel

from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.store import Ledger
from pipelines.steps.parallel import map_readable

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Writers on other machines have other clocks: parts this much older than the position are read again.
CLOCK_OVERLAP = timedelta(minutes=10)
_READERS = 8  # more only wait for each other's CPU: at 30 ms a request, a date costs as much of that as of waiting
_T = TypeVar("_T")


class Position(BaseModel, extra="forbid"):
    """How far a reader has come: every part written up to `read_to` has been read, also by a clock that is late.

    `began` and `after` belong to a scan that ran out of time: when it began, and the last date that it read. `damaged`
    are dates that could not be read: nothing is written when they are restored, so every scan tries them again.
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
    """Yield what `read` returns for each date that changed since `position`, and move `position` on.

    A date with a damaged part yields the error instead: it must not keep the others from being read. After `seconds`
    the scan ends; the next one continues it.
    """
    end = None if seconds is None else clock() + seconds
    position.began = began = position.began or now
    # A part from a clock ahead of ours must not hide what is written until ours has caught up.
    since = min(position.read_to, began) - CLOCK_OVERLAP
    changed = sorted(
        (written, day) for day, written in ledger.state_days().items() if written > since or day in position.damaged
    )
    todo = [change for change in changed if position.after is None or change > position.after]

    begun = 0

    def in_time() -> Iterator[tuple[datetime, date]]:
        nonlocal begun
        for change in todo:
            # Some dates are read however long the listing took: otherwise no scan would ever advance.
            if end is not None and clock() > end and begun >= _READERS:
                return
            begun += 1
            yield change

    for change, result in map_readable(lambda change: read(change[1]), in_time(), threads=_READERS):
        day = change[1]
        position.damaged = position.damaged | {day} if isinstance(result, LedgerDamaged) else position.damaged - {day}
        position.after = change
        yield day, result
    if begun == len(todo):
        newest = max((written for written, _ in changed), default=position.read_to)
        position.read_to = min(max(position.read_to, newest), began)
        position.began = position.after = None
