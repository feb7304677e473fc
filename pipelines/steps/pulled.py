"""Was the report of a date asked for at all, by whom, and for how much of the day? Reads the traces of pulls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import FULL_SOURCES, REPORTS
from pipelines.ringcx.reports import ReportName


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


def unpulled(
    ledger: Ledger, day: date, accounts: Sequence[str], zone: ZoneInfo, reports: Sequence[ReportName]
) -> list[Unpulled]:
    """What is missing of `day`, for every account that should have been asked; `reports`: those of RINGCX_SOURCE."""
    pulls = {report: ledger.pulls(report, day) for report in REPORTS}
    return [gap for account_id in accounts for gap in gaps_of(pulls, account_id, day_bounds(day, zone), reports)]


def gaps_of(
    pulls: Mapping[ReportName, Sequence[PullRecord]],
    account_id: str,
    bounds: tuple[datetime, datetime],
    reports: Sequence[ReportName],
) -> list[Unpulled]:
    """The `reports` of an account that were not pulled for the whole day.

    None where any full source was, also one that is no longer asked: both legacy reports, or interaction metadata.
    """
    own = {report: [pull for pull in of if pull.account_id == account_id] for report, of in pulls.items()}
    whole = {report for report, of in own.items() if any(covers(pull, bounds) for pull in of)}
    if any(whole.issuperset(source) for source in FULL_SOURCES):
        return []
    return [
        Unpulled(report, account_id, max((pull.period_end for pull in own[report]), default=None))
        for report in reports
        if report not in whole
    ]


def newest_by_account(pulls: Iterable[PullRecord]) -> dict[str, PullRecord]:
    """The newest of `pulls` (which come in the order of pulling) of each account."""
    return {pull.account_id: pull for pull in pulls}
