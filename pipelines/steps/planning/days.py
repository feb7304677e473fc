"""What the ledger says of single dates: pulled or not, complete or not, how much of them is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import CURRENT, FULL_SOURCES, LEGACY, REPORTS, ReportName
from pipelines.steps.rows import INTERACTIONS

Kind = Literal["complete", "pending", "partly pulled", "never pulled", "not over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is asked of the source, by the settings."""

    accounts: Sequence[str]
    zone: ZoneInfo
    uses_reports: bool
    uses_interactions: bool
    metadata_window_s: int

    @property
    def names(self) -> tuple[ReportName, ...]:
        """The reports that are asked for."""
        return (*(LEGACY if self.uses_reports else ()), *(CURRENT if self.uses_interactions else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDay:
    """A date by the ledger's word. Counts are by account; `pending_download`: those of the current API."""

    day: date
    kind: Kind
    found: Mapping[str, int]
    held: int
    held_bytes: int
    pending_media: Mapping[str, int]
    pending_download: Mapping[str, int]

    @property
    def pending(self) -> int:
        """Recordings known and not yet held."""
        return sum(self.pending_media.values()) + sum(self.pending_download.values())


class KnownDays:
    """Reads dates one by one; one listing tells which of them there is anything to read of. Safe to share.

    Raises (from every method): LedgerUnavailable, LedgerDamaged.
    """

    def __init__(self, ledger: Ledger, source: Source, now: datetime) -> None:
        self._ledger = ledger
        self._source = source
        self._now = now
        self._pulled = {name: frozenset(ledger.pull_days(name)) for name in REPORTS}
        self._stated = frozenset(ledger.state_days())

    def perhaps_whole(self) -> list[date]:
        """The dates for which a full source was asked, newest first; whether to their end only `read` tells."""
        asked = (frozenset.intersection(*(self._pulled[name] for name in full)) for full in FULL_SOURCES)
        return sorted(frozenset().union(*asked), reverse=True)

    def read(self, day: date) -> KnownDay:
        """What the ledger says of a date."""
        found: Counter[str] = Counter()
        waiting: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        held = held_bytes = 0
        for one in self._ledger.tally(day) if day in self._stated else ():
            if one.account_id not in self._source.accounts:
                continue
            found[one.account_id] += one.recordings
            if one.status is Status.archived:
                held += one.recordings
                held_bytes += one.size
            elif one.status is Status.pending:
                waiting[one.source != INTERACTIONS][one.account_id] += one.recordings
        return KnownDay(
            day=day,
            kind=self._kind(day, pending=bool(waiting[True] or waiting[False])),
            found=found,
            held=held,
            held_bytes=held_bytes,
            pending_media=waiting[True],
            pending_download=waiting[False],
        )

    def _kind(self, day: date, *, pending: bool) -> Kind:
        bounds = day_bounds(day, self._source.zone)
        if self._now < bounds[1]:
            return "not over"
        pulls = {name: self._ledger.pulls(name, day) for name, days in self._pulled.items() if day in days}
        if not pulls:
            return "never pulled"
        if not all(self._is_covered(pulls, account_id, bounds) for account_id in self._source.accounts):
            return "partly pulled"
        return "pending" if pending else "complete"

    @staticmethod
    def _is_covered(
        pulls: Mapping[ReportName, Sequence[PullRecord]], account_id: str, bounds: tuple[datetime, datetime]
    ) -> bool:
        """Whether any full source was asked for the whole day, also one no longer asked: as the checks see it."""
        own = {name: [pull for pull in of if pull.account_id == account_id] for name, of in pulls.items()}
        whole = {name for name, of in own.items() if _cover(of, bounds)}
        return any(whole.issuperset(full) for full in FULL_SOURCES)


def _cover(pulls: Sequence[PullRecord], bounds: tuple[datetime, datetime]) -> bool:
    """Whether the pulls together asked for the whole day: the current API is asked window by window."""
    reached, end = bounds
    for pull in sorted(pulls, key=lambda one: one.period_start):
        if pull.period_start > reached:
            return False
        reached = max(reached, pull.period_end)
    return bool(pulls) and reached >= end
