"""The check that a report seems to cover its whole day: a report with only half its rows is well-formed too.

It compares with what is usual (docs/operations.md, "What is usual") and with the rows that earlier pulls of the date
had. Neither proves anything, so the result is never worse than `warning`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
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
class _Typical:
    """How many rows are usual on the weekday, from `dates` earlier dates.

    `least`: fewer rows are suspicious. `why_not`: why the history cannot show that a number of rows is enough.
    """

    dates: int
    rows: float
    least: float = 0.0
    why_not: str = ""

    @classmethod
    def of(cls, history: Sequence[int]) -> _Typical:
        """Return what is usual, from the rows of earlier dates."""
        typical = median(history) if history else 0.0
        if len(history) < _LEAST_DATES:
            found = number(len(history), "date")
            why_not = f"too little history of this weekday: {found}, and {_LEAST_DATES} are needed"
            return cls(len(history), typical, why_not=why_not)
        spread = median(abs(rows - typical) for rows in history) / _MAD_OF_NORMAL
        least = typical - max(_SPREADS * spread, _DROP_SHARE * typical, _CHANCE * math.sqrt(typical))
        why_not = ""
        if least < (1 - _NOTICED_SHARE) * typical or (any(history) and not typical):
            why_not = f"this weekday has {min(history)} to {max(history)} rows, so half could be missing"
        return cls(len(history), typical, least, why_not)


def report_is_plausible(
    ledger: Ledger, day: date, settings: VerifySettings, *, report: ReportName, now: datetime
) -> CheckResult:
    """Judge the newest pull of each account; one that does not cover the whole day cannot be compared with others."""
    bounds = day_bounds(day, settings.zone)
    is_over = bounds[1] <= now
    pulls = ledger.pulls(report, day)
    newest = newest_by_account(pulls)
    history = _history(ledger, report, day, settings.zone)
    rows, findings, unclear = [], [], []
    noticeable = 0.0
    for account in settings.ringcx_account_ids:
        pull = newest.get(account)
        typical = _Typical.of(history[account])
        if pull is None:
            findings.append(f"account {account}: never pulled")
            continue
        compared = (round(typical.rows), max(0, math.ceil(typical.least)), typical.dates, typical.why_not or _IS_ENOUGH)
        rows.append((account, pull.rows, *compared, pull.vanished))
        if covers(pull, bounds):
            most = max(other.rows for other in pulls if other.account_id == account)
            findings += [f"account {account}: {finding}" for finding in _findings(pull, typical, most)]
        elif is_over:
            findings.append(f"account {account}: pulled only up to {pull.period_end:%Y-%m-%d %H:%M} UTC")
        if typical.why_not:
            unclear.append(f"account {account}: {typical.why_not}")
        noticeable = max(noticeable, 1 - typical.least / typical.rows if typical.rows else 1.0)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    counts = {
        "rows": int(table["rows"].sum()),
        "rows_vanished": int(table["vanished"].sum()),
        "usual_rows": int(table["usual"].sum()),
        "dates_compared": int(table["dates"].min()) if rows else 0,
        "accounts_history_cannot_tell": len(unclear),
    }
    pulled = number(counts["rows"], "row")
    if findings:
        sentence = (
            f"{report} of {day} seems incomplete: {'; '.join(findings)}. Run the date again; if this persists, look at "
            "the same report in the RingCX admin console (a holiday explains a quiet day)."
        )
    elif not is_over:
        sentence = f"{day} is not over: {pulled} of {report} so far, not compared with other days."
    elif unclear:
        why = "; ".join(unclear)
        sentence = f"{report} of {day} has {pulled}; history cannot tell whether that is the whole day: {why}."
    else:
        sentence = (
            f"{report} of {day} has {pulled}, where {counts['usual_rows']:,} are usual. A loss of more "
            f"than {noticeable:.0%} of the rows would be noticed ({number(counts['dates_compared'], 'date')} compared)."
        )
    if vanished := counts["rows_vanished"]:
        gone = number(vanished, "row seen before is", "rows seen before are")
        sentence += f" {gone} no longer in the source; what was archived is kept."
    return CheckResult(
        level=Level.warning if findings else Level.ok, sentence=sentence, counts=counts, lists={"by_account": table}
    )


def _findings(pull: PullRecord, typical: _Typical, most: int) -> Iterator[str]:
    """Yield why a pull of the whole day seems incomplete; `most`: the rows of the largest pull of the date."""
    pulled = number(pull.rows, "row")
    if pull.rows < typical.least:
        yield f"{pulled}, where this weekday usually has {typical.rows:.0f} ({number(typical.dates, 'date')} compared)"
    # Rows that are gone from the ledger, too, do not count as vanished.
    if most - pull.rows > _NOTABLE_SHARE * most:
        yield f"{pulled}, where an earlier pull of the same date had {most}"
    if pull.vanished > _NOTABLE_SHARE * (pull.rows + pull.vanished):
        gone = number(pull.vanished, "row seen before is", "rows seen before are")
        yield f"{gone} gone from the report"


def _history(ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo) -> defaultdict[str, list[int]]:
    """Return, by account, the rows of the same weekday in earlier weeks, where it was pulled whole."""

    def read(day: date) -> dict[str, PullRecord]:
        bounds = day_bounds(day, zone)
        return newest_by_account(pull for pull in ledger.pulls(report, day) if covers(pull, bounds))

    history: defaultdict[str, list[int]] = defaultdict(list)
    days = [day - timedelta(weeks=back) for back in range(1, _WEEKS + 1)]
    for _, pulls in map_in_order(read, days, threads=_WEEKS):
        for account, pull in pulls.items():
            history[account].append(pull.rows)
    return history
