"""The check that a report seems to cover its whole day: a report with only half its rows is well-formed too.

It compares with what is usual (docs/operations.md, "What is usual") and with the rows that earlier pulls of the date
had. Neither proves anything, so the result is never worse than `warning`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.settings import VerifySettings
from pipelines.steps.check.result import CheckResult, Level
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import covers, newest_by_account
from pipelines.wording import number

_WEEKS = 8
_LEAST_DATES = 3
_SPREADS = 3.0
_DROP_SHARE = 0.3
_CHANCE = 1.5  # standard deviations of a Poisson count
# The median absolute deviation of a normal distribution, as a part of its standard deviation. Neither it nor the median
# follows the odd day of a history: a holiday, an outage, a campaign.
_MAD_OF_NORMAL = 0.6745
# History in which the loss of half of the rows would go unnoticed shows nothing.
_NOTICED_SHARE = 0.5
# Rows vanish one by one; losing a twentieth of a day is not a coincidence.
_NOTABLE_SHARE = 0.05
_IS_ENOUGH = "is enough"
_COLUMNS = ["account", "rows", "usual", "least", "dates", "history", "vanished"]


@dataclass(frozen=True, slots=True)
class _Usual:
    """How many rows are usual, from `dates` earlier dates.

    `least`: fewer rows are suspicious. `why_not`: why the history cannot show that a number of rows is enough.
    """

    like: str
    dates: int
    rows: float
    least: float
    why_not: str

    @classmethod
    def of(cls, like: str, history: pd.Series) -> _Usual:
        """Return what is usual, from the rows of earlier dates; `like` names their kind of day."""
        if len(history) < _LEAST_DATES:
            why_not = f"too little history of {like}: {number(len(history), 'date')}, and {_LEAST_DATES} are needed"
            return cls(like, len(history), history.median() if len(history) else 0.0, 0.0, why_not)
        usual = history.median()
        spread = (history - usual).abs().median() / _MAD_OF_NORMAL
        least = usual - max(_SPREADS * spread, _DROP_SHARE * usual, _CHANCE * math.sqrt(usual))
        why_not = ""
        if least < (1 - _NOTICED_SHARE) * usual or (history.any() and not usual):
            why_not = f"{like} has {history.min():.0f} to {history.max():.0f} rows, so half could be missing"
        return cls(like, len(history), usual, least, why_not)

    @property
    def noticeable(self) -> float:
        """The share of the rows whose loss would be noticed."""
        return 1 - self.least / self.rows if self.rows else 1.0


def report_is_plausible(
    ledger: Ledger, day: date, settings: VerifySettings, *, report: ReportName, now: datetime
) -> CheckResult:
    """Judge the newest pull of each account; one that does not cover the whole day cannot be compared with others."""
    bounds = day_bounds(day, settings.zone)
    pulls = ledger.pulls(report, day)
    newest = newest_by_account(pulls)
    accounts = [account for account in settings.ringcx_account_ids if account in newest]
    usual = _usual(ledger, report, day, settings.zone, accounts)
    rows = []
    doubts = [f"account {account}: never pulled" for account in settings.ringcx_account_ids if account not in newest]
    for account in accounts:
        pull, history = newest[account], usual[account]
        compared = (round(history.rows), max(0, math.ceil(history.least)), history.dates, history.why_not or _IS_ENOUGH)
        rows.append((account, pull.rows, *compared, pull.vanished))
        if covers(pull, bounds):
            most = max(other.rows for other in pulls if other.account_id == account)
            doubts += [f"account {account}: {doubt}" for doubt in _doubts(pull, history, most)]
        elif bounds[1] <= now:
            doubts.append(f"account {account}: pulled only up to {pull.period_end:%Y-%m-%d %H:%M} UTC")
    table = pd.DataFrame(rows, columns=_COLUMNS)
    counts = {
        "rows": int(table["rows"].sum()),
        "rows_vanished": int(table["vanished"].sum()),
        "usual_rows": int(table["usual"].sum()),
        "dates_compared": int(table["dates"].min()) if rows else 0,
        "accounts_history_cannot_tell": int((table["history"] != _IS_ENOUGH).sum()),
    }
    if doubts:
        sentence = (
            f"{report} of {day} seems incomplete: {'; '.join(doubts)}.{_vanished(counts)} Run the date again; if "
            "this persists, look at the same report in the RingCX admin console (a holiday explains a quiet day)."
        )
    else:
        sentence = _sentence(report, day, counts, usual, is_over=bounds[1] <= now) + _vanished(counts)
    return CheckResult(
        level=Level.warning if doubts else Level.ok, sentence=sentence, counts=counts, lists={"by_account": table}
    )


def _doubts(pull: PullRecord, history: _Usual, most: int) -> Iterator[str]:
    """Yield why a pull of the whole day seems incomplete; `most`: the rows of the largest pull of the date."""
    pulled = number(pull.rows, "row")
    if pull.rows < history.least:
        dates = number(history.dates, "date")
        yield f"{pulled}, where {history.like} usually has {history.rows:.0f} ({dates} compared)"
    # Rows that are gone from the ledger, too, do not count as vanished.
    if most - pull.rows > _NOTABLE_SHARE * most:
        yield f"{pulled}, where an earlier pull of the same date had {most}"
    if pull.vanished > _NOTABLE_SHARE * (pull.rows + pull.vanished):
        gone = number(pull.vanished, "row seen before is", "rows seen before are")
        yield f"{gone} gone from the report"


def _usual(ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo, accounts: Sequence[str]) -> dict[str, _Usual]:
    """Return what is usual for each account on the day's weekday or, if that is unclear, on nearby days of its kind:
    Monday to Friday are of one kind, Saturdays of another, Sundays of a third.
    """

    def judged(like: str, days: Iterable[date]) -> dict[str, _Usual]:
        history = _history(ledger, report, days, zone)
        return {account: _Usual.of(like, history["rows"][history["account_id"] == account]) for account in accounts}

    usual = judged("this weekday", [day - timedelta(weeks=back) for back in range(1, _WEEKS + 1)])
    unclear = [account for account, of_account in usual.items() if of_account.why_not]
    if unclear and day.weekday() < 5:
        before = [day - timedelta(days=back) for back in range(1, 15)]
        of_working_days = judged("a working day", [near for near in before if near.weekday() < 5])
        for account in unclear:
            if not of_working_days[account].why_not:
                usual[account] = of_working_days[account]
    return usual


def _history(ledger: Ledger, report: ReportName, days: Iterable[date], zone: ZoneInfo) -> pd.DataFrame:
    """Return `account_id` and `rows` of those days that were pulled whole."""

    def read(day: date) -> list[tuple[str, int]]:
        bounds = day_bounds(day, zone)
        whole = newest_by_account(pull for pull in ledger.pulls(report, day) if covers(pull, bounds))
        return [(account, pull.rows) for account, pull in whole.items()]

    rows = [row for _, of_day in map_in_order(read, days, threads=_WEEKS) for row in of_day]
    return pd.DataFrame(rows, columns=["account_id", "rows"]).astype({"rows": "float64"})


def _vanished(counts: Mapping[str, int]) -> str:
    count = counts["rows_vanished"]
    return f" {number(count, 'row')} seen before: no longer in the source; the recordings are kept." if count else ""


def _sentence(
    report: ReportName, day: date, counts: Mapping[str, int], usual: Mapping[str, _Usual], *, is_over: bool
) -> str:
    rows = number(counts["rows"], "row")
    if not is_over:
        return f"{day} is not over: {rows} of {report} so far, not compared with other days."
    if reasons := [f"account {account}: {history.why_not}" for account, history in usual.items() if history.why_not]:
        return f"{report} of {day} has {rows}; history cannot tell whether that is the whole day: {'; '.join(reasons)}."
    if not usual:
        return f"{report} of {day}: no account can be judged."
    weakest = max(usual.values(), key=lambda history: history.noticeable)
    return (
        f"{report} of {day} has {rows}, where {sum(history.rows for history in usual.values()):.0f} are usual. More "
        f"than {weakest.noticeable:.0%} missing would have been noticed ({number(weakest.dates, 'date')} compared)."
    )
