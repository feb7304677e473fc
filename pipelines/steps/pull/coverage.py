"""Coverage: was a date's report pulled for the whole day, late enough, and are its rows still in the ledger?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain

from pipelines.calendar import day_bounds
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import GLOBAL, INTERACTIONS, LEGACY, REPORTS, ReportName
from pipelines.settings import VerifySettings
from pipelines.wording import number

Pulls = Mapping[ReportName, Sequence[PullRecord]]

# A call is reported minutes after it ended, its link up to a quarter of an hour later, and a call of the day's last
# minutes ends after midnight: a pull is not final about the hour before it.
SETTLED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MissingReport:
    """A report of an account that does not show the whole day: `pulled_until` is how far a pull came, if any.

    `account_id` is empty if no account is known: the report was not pulled, and no setting names an account.
    `is_too_late`: the source may have purged the day, so no run can change this.
    """

    report: str
    account_id: str
    pulled_until: datetime | None
    explanation: str
    is_too_late: bool = False

    def __str__(self) -> str:
        whose = f" of account {self.account_id}" if self.account_id else ""
        return f"{self.report}{whose} {self.explanation}"


def covers(pull: PullRecord, bounds: tuple[datetime, datetime]) -> bool:
    """Return whether the pull requested the whole day."""
    return pull.period_start <= bounds[0] and pull.period_end >= bounds[1]


def unpulled(pulls: Pulls, day: date, settings: VerifySettings) -> list[MissingReport]:
    """Return, by account, the reports of RINGCX_SOURCE that were not pulled for the whole of `day` after it settled.

    An account lacks nothing if a full source covers the day: both legacy reports, or interaction metadata, which names
    no mono recording, so that RINGCX_SOURCE=both needs the global report too. Without RINGCX_ACCOUNT_IDS, the accounts
    are those of the date's pulls; a date without any pull lacks every report. Empty reports of a day that the source
    may have purged prove nothing.
    """
    bounds = day_bounds(day, settings.zone)
    kept_until = bounds[1] + timedelta(days=settings.ringcx_retention_days)
    all_pulls = list(chain.from_iterable(pulls.values()))
    lacking = []
    for account in settings.ringcx_account_ids or sorted({pull.account_id for pull in all_pulls}) or [""]:
        own = [pull for pull in all_pulls if pull.account_id == account]
        # Rows that were pulled before the day was over do not show that the source still had it later.
        has_rows = any(pull.rows for pull in own if covers(pull, bounds) and pull.pulled_at >= bounds[1] + SETTLED)
        last: dict[str, PullRecord] = {}
        settled: set[str] = set()
        for pull in own:
            if covers(pull, bounds):
                last[pull.report] = pull
                is_in_time = pull.pulled_at >= bounds[1] + SETTLED and (has_rows or pull.pulled_at <= kept_until)
                if is_in_time and not pull.of_another_time:
                    settled.add(pull.report)
        by_interactions = {INTERACTIONS, GLOBAL} if settings.ringcx_source == "both" else {INTERACTIONS}
        if settled.issuperset(LEGACY) or settled.issuperset(by_interactions):
            continue
        for report in (report for report in settings.reports if report not in settled):
            until = max((pull.period_end for pull in own if pull.report == report), default=None)
            is_too_late = False
            if until is None:
                explanation = "was never pulled"
            elif report not in last:
                explanation = f"was pulled only up to {until:%Y-%m-%d %H:%M} UTC"
            elif rows := last[report].of_another_time:
                explanation = f"had the calls of another day ({number(rows, 'row')})"
            elif last[report].pulled_at > kept_until:
                days, is_too_late = settings.ringcx_retention_days, True
                explanation = (
                    f"was empty, but so late that the source may have purged it (RINGCX_RETENTION_DAYS is {days})"
                )
            else:
                at = f"{last[report].pulled_at:%Y-%m-%d %H:%M} UTC"
                explanation = f"was last pulled at {at}, possibly before the day's last calls were in it"
            lacking.append(MissingReport(report, account, until, explanation, is_too_late))
    return lacking


def pulls_of(ledger: Ledger, day: date) -> dict[ReportName, list[PullRecord]]:
    """Return the pulls of each report for a date, in the order of pulling; an empty list if there are none."""
    return {report: ledger.pulls(report, day) for report in REPORTS}


def require_rows(ledger: Ledger, day: date, pulls: Pulls) -> None:
    """Raise LedgerDamaged if the ledger has fewer lines of a report than its pulls appended: a part is gone."""
    for report, made in pulls.items():
        if report == INTERACTIONS:  # its pulls share windows that were taken before; one pull counts no line twice
            least = max((pull.new + pull.changed for pull in made), default=0)
        else:
            accounts = {pull.account_id for pull in made}
            least = sum(_least_lines(pull for pull in made if pull.account_id == account) for account in accounts)
        there = sum(rows.num_rows for rows in ledger.iter_rows(report, day, columns=["row_key"])) if least else 0
        if there < least:
            raise LedgerDamaged(
                f"the ledger has {there:,} of at least {number(least, 'line')} that the pulls of {report} appended for "
                f"{day}: restore the parts of its report_rows that are gone."
            )


def _least_lines(pulls: Iterable[PullRecord]) -> int:
    """Return the least number of lines that the pulls of an account must have left.

    A pull that found fewer rows in the ledger than earlier pulls appended ran after a part was lost. If it appended at
    least as many rows as were lost, only what it found and appended counts; if fewer, some rows are still missing.
    """
    least = rows = 0
    for pull in pulls:
        found = pull.unchanged + pull.changed + pull.vanished
        if found < rows <= found + pull.new:
            least = found
        least += pull.new + pull.changed
        rows = max(rows, found + pull.new)
    return least


def newest_by_account(pulls: Iterable[PullRecord]) -> dict[str, PullRecord]:
    """Return the newest pull of each account; `pulls` are in the order of pulling."""
    return {pull.account_id: pull for pull in pulls}
