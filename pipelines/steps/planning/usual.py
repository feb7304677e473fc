"""What a usual date holds, by the ledger's own dates: the median of the same weekday. Without such dates: unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from statistics import median

from pipelines.steps.planning.days import KnownDay, KnownDays

# A quarter of a year of each weekday would follow the season; two months follow the account as it is now.
DATES_OF_A_WEEKDAY = 8
_LOOKED_AT = 400


@dataclass(frozen=True, slots=True)
class Usual:
    """A usual date of one weekday. `recordings` by account; `size` in bytes, None where none of the dates holds any."""

    recordings: Mapping[str, float]
    size: float | None
    basis: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The usual date of each weekday that has one, and the bytes of a usual recording (None: nothing is held)."""

    by_weekday: Mapping[int, Usual]
    recording_bytes: float | None

    def of(self, day: date) -> Usual | None:
        """What is usual for the date's weekday; None where nothing is known."""
        return self.by_weekday.get(day.weekday())

    def basis(self) -> tuple[date, ...]:
        """The dates that all of it comes from."""
        return tuple(sorted(day for usual in self.by_weekday.values() for day in usual.basis))


def read_history(days: KnownDays) -> History:
    """Take the newest dates of each weekday whose reports were pulled whole."""
    kept: defaultdict[int, list[KnownDay]] = defaultdict(list)
    for day in days.perhaps_whole()[:_LOOKED_AT]:
        of_weekday = kept[day.weekday()]
        if len(of_weekday) < DATES_OF_A_WEEKDAY:
            known = days.read(day)
            if known.kind in {"complete", "pending"}:
                of_weekday.append(known)
        if len(kept) == 7 and all(len(found) == DATES_OF_A_WEEKDAY for found in kept.values()):
            break
    every = [known for of_weekday in kept.values() for known in of_weekday]
    held = sum(known.held for known in every)
    return History(
        {weekday: _usual(found) for weekday, found in sorted(kept.items()) if found},
        sum(known.held_bytes for known in every) / held if held else None,
    )


def _usual(dates: list[KnownDay]) -> Usual:
    accounts = sorted({account for known in dates for account in known.found})
    # What is not held yet is taken to be as large as what is.
    sizes = [size for known in dates if (size := _size(known)) is not None]
    return Usual(
        {account: median(known.found.get(account, 0) for known in dates) for account in accounts},
        median(sizes) if sizes else None,
        _dates(dates),
    )


def _size(known: KnownDay) -> float | None:
    found = sum(known.found.values())
    if not found:
        return 0.0
    return known.held_bytes / known.held * (known.held + known.pending) if known.held else None


def _dates(dates: Iterable[KnownDay]) -> tuple[date, ...]:
    return tuple(sorted(known.day for known in dates))
