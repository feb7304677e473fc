"""Does a pulled report look like the whole of its day? A report that answers half its rows is well-formed all the same.

Four witnesses: what is usual on such a day, earlier pulls of the same date, the rows that vanished since, and the calls
that the other report knows of. None of them is proof, so the verdict is never worse than `doubtful`. What is usual has
limits too, and the sentence says them: what share of the rows could be missing unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.steps.check.findings import Finding, Level, Row, Table
from pipelines.steps.check.report_agreement import compare
from pipelines.steps.link.rows import GLOBAL, INTERACTIONS
from pipelines.steps.pull.coverage import covers, newest_by_account
from pipelines.wording import number

WEEKS = 8
LEAST_DATES = 3
# A date that differs by half from the median of its like is no usual day: a holiday, an outage, a campaign.
ODD_SHARE = 0.5
# Fewer rows than usual are worth a look when it is three times the spread of the history, and a share that days of the
# same kind differ by anyway, and more than chance makes of so few calls (1.5 standard deviations of a Poisson count).
SPREADS = 3.0
DROP_SHARE = 0.3
CHANCE = 1.5
# The median absolute deviation of a normal distribution, as a part of its standard deviation.
_MAD_OF_NORMAL = 0.6745
# History that would not notice that half of the rows are missing can tell nothing.
_TELLING_SHARE = 0.5
# Rows vanish, and calls are missing from one report, one by one; a twentieth of a day is no accident.
NOTABLE_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """How many rows are usual, by `dates` earlier dates, of which `odd` were left out: their like is a holiday.

    `least`: fewer are worth a look, also where `why_not` says why the history cannot call more of them enough.
    """

    like: str
    dates: int
    odd: int
    rows: float
    least: float
    why_not: str

    @classmethod
    def of(cls, like: str, history: pd.Series) -> Usual:
        """Judge by the rows of earlier dates, those of `like` days."""
        median = history.median() if len(history) else 0.0
        odd = (history - median).abs() > max(ODD_SHARE * median, CHANCE * math.sqrt(median))
        rest = history[~odd]
        usual = rest.median() if len(rest) else 0.0
        spread = (rest - usual).abs().median() / _MAD_OF_NORMAL if len(rest) else 0.0
        least = usual - max(SPREADS * spread, DROP_SHARE * usual, CHANCE * math.sqrt(usual))
        why_not = ""
        if len(history) < LEAST_DATES:
            why_not = f"too little history of {like}: {number(len(history), 'date')}, and {LEAST_DATES} are needed"
        elif odd.mean() > 1 / LEAST_DATES or (odd.any() and not usual):
            why_not = f"of {len(history)} dates of {like}, {odd.sum()} were unusual themselves"
        if why_not:
            least = 0.0
        elif least < (1 - _TELLING_SHARE) * usual:
            why_not = f"{like} has {usual:.0f} rows, give or take {usual - least:.0f}, so half could be missing"
        return cls(like=like, dates=len(history), odd=int(odd.sum()), rows=usual, least=least, why_not=why_not)

    @property
    def compared(self) -> str:
        """How sure this is: the number of dates, and of those left out."""
        return f"{number(self.dates, 'date')} compared" + (f", {self.odd} unusual left out" if self.odd else "")

    @property
    def noticeable(self) -> float:
        """The share of the rows whose loss would be noticed."""
        return 1 - self.least / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """One account's newest pull next to what there is to compare it with."""

    pull: PullRecord
    usual: Usual
    most_before: int
    lacking: int
    others: int

    def doubts(self) -> list[str]:
        rows, said = self.pull.rows, []
        if rows < self.usual.least:
            said.append(
                f"{number(rows, 'row')}, where {self.usual.like} usually has {self.usual.rows:.0f} "
                f"({self.usual.compared})"
            )
        if self.most_before - rows > NOTABLE_SHARE * self.most_before:
            said.append(f"{number(rows, 'row')}, where an earlier pull of the same date had {self.most_before}")
        if self.pull.vanished > NOTABLE_SHARE * (rows + self.pull.vanished):
            gone = number(self.pull.vanished, "row seen before is", "rows seen before are")
            said.append(f"{gone} gone from the report")
        if self.lacking > NOTABLE_SHARE * self.others:
            lacking = number(self.lacking, "is", "are")
            said.append(f"of {number(self.others, 'call')} that the other report knows, {lacking} not in this one")
        return said


def report_is_plausible(
    ledger: Ledger, report: ReportName, day: date, *, accounts: Sequence[str], zone: ZoneInfo, now: datetime
) -> Finding:
    """Judge the newest pull of each account; one that does not cover the whole day cannot be compared with others."""
    bounds = day_bounds(day, zone)
    pulls = ledger.pulls(report, day)
    newest = newest_by_account(pulls)
    usual = _usual(ledger, report, day, zone, [account for account in accounts if account in newest])
    lacking, others = _lacking(ledger, report, day, zone, now)
    judged, doubts = list[_Account](), list[str]()
    for account_id in accounts:
        if account_id not in newest:
            doubts.append(f"account {account_id}: never pulled")
            continue
        one = _Account(
            pull=newest[account_id],
            usual=usual[account_id],
            most_before=max(pull.rows for pull in pulls if pull.account_id == account_id),
            lacking=lacking.get(account_id, 0),
            others=others.get(account_id, 0),
        )
        whole = covers(one.pull, bounds)
        found = one.doubts() if whole else []
        if not whole and bounds[1] <= now:
            found = [f"pulled only up to {one.pull.period_end:%Y-%m-%d %H:%M} UTC"]
        doubts += [f"account {account_id}: {doubt}" for doubt in found]
        judged.append(one)
    rows: list[Row] = [
        (
            *(one.pull.account_id, one.pull.rows, round(one.usual.rows), max(0, math.ceil(one.usual.least))),
            *(one.usual.dates, one.usual.odd, one.usual.why_not or "can be told", one.pull.vanished, one.lacking),
        )
        for one in judged
    ]
    columns = ("account", "rows", "usual", "least", "dates", "odd_dates", "history", "vanished")
    counts = {
        "rows": sum(one.pull.rows for one in judged),
        "rows_vanished": sum(one.pull.vanished for one in judged),
        "usual_rows": sum(round(one.usual.rows) for one in judged),
        "dates_compared": min((one.usual.dates for one in judged), default=0),
        "accounts_history_cannot_tell": sum(bool(one.usual.why_not) for one in judged),
        "calls_only_in_other_report": sum(one.lacking for one in judged),
    }
    return Finding(
        level=Level.doubtful if doubts else Level.good,
        sentence=_sentence(report, day, judged, doubts, bounds[1] <= now),
        counts=counts,
        tables={"by_account": Table((*columns, "calls_only_in_other_report"), rows)} if rows else {},
    )


def _usual(ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo, accounts: Sequence[str]) -> dict[str, Usual]:
    """What is usual for each account on the day's weekday; where that cannot tell, on the days around it of its kind.

    Monday to Friday are of one kind; Saturdays are another, and Sundays.
    """
    weekday, kind = "this weekday", "a working day"
    same = _history(ledger, report, [day - timedelta(weeks=back) for back in range(1, WEEKS + 1)], zone)
    found = {account: Usual.of(weekday, same.get(account, _NO_HISTORY)) for account in accounts}
    if any(one.why_not for one in found.values()) and day.weekday() < 5:
        near = [day - timedelta(days=back) for back in range(1, 15)]
        around = _history(ledger, report, [one for one in near if one.weekday() < 5], zone)
        for account, one in found.items():
            if one.why_not:
                other = Usual.of(kind, around.get(account, _NO_HISTORY))
                found[account] = one if other.why_not else other
    return found


_NO_HISTORY = pd.Series(dtype="float64")


def _history(ledger: Ledger, report: ReportName, days: Iterable[date], zone: ZoneInfo) -> Mapping[str, pd.Series]:
    """Account -> the rows of those of the days that were pulled whole."""

    def read(day: date) -> list[tuple[str, int]]:
        bounds = day_bounds(day, zone)
        whole = newest_by_account(pull for pull in ledger.pulls(report, day) if covers(pull, bounds))
        return [(account, pull.rows) for account, pull in whole.items()]

    with ThreadPoolExecutor(WEEKS, thread_name_prefix="history") as pool:
        lines = [line for of_day in pool.map(read, days) for line in of_day]
    history = pd.DataFrame(lines, columns=["account_id", "rows"])
    return {str(account): rows for account, rows in history.groupby("account_id")["rows"]}


def _lacking(
    ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo, now: datetime
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Account -> the calls that only the other report knows; account -> the calls that the other report knows.

    Nothing for interaction metadata, which is whole by itself.
    """
    if report == INTERACTIONS:
        return {}, {}
    calls = compare(ledger, day, zone=zone, now=now).calls.groupby("account_id")
    names = ("not_in_global", "in_agent") if report == GLOBAL else ("not_in_agent", "reached")
    lacking, others = ({str(account): int(count) for account, count in calls[name].sum().items()} for name in names)
    return lacking, others


def _sentence(report: ReportName, day: date, judged: Sequence[_Account], doubts: Sequence[str], over: bool) -> str:
    rows, vanished = sum(one.pull.rows for one in judged), sum(one.pull.vanished for one in judged)
    gone = f" {number(vanished, 'row')} seen before vanished from the source; the recordings stay." if vanished else ""
    if doubts:
        return (
            f"{report} of {day} does not look whole: {'; '.join(doubts)}.{gone} Run the date again; if it stays so, "
            "look at the same report in the RingCX administration (a holiday explains a quiet day)."
        )
    if not over:
        return f"{day} is not over: {number(rows, 'row')} of {report} so far, not compared with other days.{gone}"
    reasons = [f"account {one.pull.account_id}: {one.usual.why_not}" for one in judged if one.usual.why_not]
    if reasons:
        return (
            f"{report} of {day} has {number(rows, 'row')}. Whether that is the whole day, history cannot tell: "
            f"{'; '.join(reasons)}.{gone}"
        )
    weakest = max((one.usual for one in judged), key=lambda usual: usual.noticeable, default=None)
    if weakest is None:
        return f"{report} of {day}: no account to judge."
    return (
        f"{report} of {day} has {number(rows, 'row')}, where {sum(one.usual.rows for one in judged):.0f} are usual. "
        f"More than {weakest.noticeable:.0%} missing would have been noticed ({weakest.compared}).{gone}"
    )
