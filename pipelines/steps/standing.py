"""How the recordings of a date stand, whatever number of portions they are read in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from pipelines.ledger.states import FINAL, Status
from pipelines.steps.known import DayPortion, Recordings, grouped
from pipelines.steps.links import rejoin


@dataclass(slots=True)
class Standing:
    """How many recordings stand where; `of_other_dates` of them are stored under another date than `day`."""

    day: date
    by_status: Counter[Status] = field(default_factory=Counter)
    of_other_dates: int = 0
    _reasons: list[pa.Table] = field(default_factory=list)

    def add(self, known: Recordings) -> None:
        """Count these too."""
        self.by_status += known.by_status()
        self.of_other_dates += known.dated_otherwise(self.day)
        self._reasons.append(known.reasons())

    def reasons(self) -> pa.Table:
        """Of all of them, as `Recordings.reasons`."""
        return grouped(pa.concat_tables(self._reasons), "example")


def standing_after(portions: Callable[[], Iterable[DayPortion]], day: date, *, now: datetime, run_id: str) -> Standing:
    """How the recordings stand after a run, which is then told to the next one: what became final under one name is due
    under its other one, and what is held under one name not under the other (`rejoin`).
    """
    standing, joined = Standing(day), False
    for portion in portions():
        standing.add(portion.known)
        if portion.known.by_status().keys() & FINAL:
            joined |= rejoin(portion.ledger, portion.known, portion.day, now=now, run_id=run_id)
        del portion  # before the next is read
    if joined:
        standing = Standing(day)
        for portion in portions():
            standing.add(portion.known)
            del portion  # as above
    return standing
