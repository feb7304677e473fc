"""Dates that follow each other and stand alike, as one: what a table shows, and what a backfill is launched for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Literal, TypeVar

from pipelines.steps.planning.days import Kind
from pipelines.steps.planning.plan import Plan, PlannedDay

Urgency = Literal["urgent", "in time", "probably lost"]
_ORDER: dict[Urgency, int] = {"urgent": 0, "in time": 1, "probably lost": 2}
_ONE_DAY = timedelta(days=1)
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Dates in a row. `days` are all of them, in the order of the calendar."""

    kind: Kind | None
    urgency: Urgency
    days: Sequence[PlannedDay]

    @property
    def first(self) -> date:
        """The earliest."""
        return self.days[0].day

    @property
    def last(self) -> date:
        """The latest."""
        return self.days[-1].day

    @property
    def days_left(self) -> int:
        """Of the earliest, which the source purges first."""
        return self.days[0].days_left


def urgency_of(day: PlannedDay, margin_days: int) -> Urgency:
    """Whether the source has purged the date, will do so within the margin, or later."""
    if day.days_left < 0:
        return "probably lost"
    return "urgent" if day.days_left < margin_days else "in time"


def shown(plan: Plan) -> list[Stretch]:
    """Every date of the plan, those of one state and urgency together: first what is to run, by days left."""
    stretches = [
        Stretch(kind, urgency, days)
        for (kind, urgency), days in _in_a_row(
            plan.days, lambda day: (day.kind, urgency_of(day, plan.terms.margin_days))
        )
    ]
    return sorted(stretches, key=lambda one: (not one.days[0].to_run, _ORDER[one.urgency], one.first))


def backfills(plan: Plan) -> list[Stretch]:
    """What to launch, in its order: what the source purges soon, the rest from the oldest on, what is probably lost."""
    stretches = [
        Stretch(None, urgency, days)
        for urgency, days in _in_a_row(plan.to_run, lambda day: urgency_of(day, plan.terms.margin_days))
    ]
    return sorted(stretches, key=lambda one: (_ORDER[one.urgency], one.first))


def _in_a_row(days: Iterable[PlannedDay], alike: Callable[[PlannedDay], K]) -> Iterator[tuple[K, list[PlannedDay]]]:
    """Days that are alike and follow each other without a hole."""
    numbered = enumerate(days)
    for (key, _), members in groupby(numbered, key=lambda one: (alike(one[1]), one[1].day - _ONE_DAY * one[0])):
        yield key, [day for _, day in members]
