"""Was the report of a date asked for at all, by whom, and for how much of the day? Reads the traces of pulls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports import ReportName
from pipelines.steps.links import REPORTS


@dataclass(frozen=True, slots=True)
class Unpulled:
    """A report of an account that no pull covers to the end of the day; `to` is how far one came, if any."""

    report: ReportName
    account_id: str
    to: datetime | None

    def __str__(self) -> str:
        how = "was never pulled" if self.to is None else f"was pulled only up to {self.to:%Y-%m-%d %H:%M} UTC"
        return f"{self.report} of account {self.account_id} {how}"


def covers(pull: PullRecord, bounds: tuple[datetime, datetime]) -> bool:
    """Whether the pull asked for the whole day."""
    return pull.period_start <= bounds[0] and pull.period_end >= bounds[1]


def unpulled(ledger: Ledger, day: date, accounts: Sequence[str], zone: ZoneInfo) -> list[Unpulled]:
    """The reports of `day` that were not pulled for the whole day, for every account that should have been asked."""
    bounds = day_bounds(day, zone)
    gaps = []
    for report in REPORTS:
        pulls = ledger.pulls(report, day)
        for account_id in accounts:
            own = [pull for pull in pulls if pull.account_id == account_id]
            if not any(covers(pull, bounds) for pull in own):
                gaps.append(Unpulled(report, account_id, max((pull.period_end for pull in own), default=None)))
    return gaps


def newest_by_account(pulls: Iterable[PullRecord]) -> dict[str, PullRecord]:
    """The newest of `pulls` (which come in the order of pulling) of each account."""
    return {pull.account_id: pull for pull in pulls}
