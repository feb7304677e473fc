"""Does a pulled report look like the whole of its day? A report that answers half its rows is well-formed all the same.

Four witnesses: the same weekday of the last weeks, earlier pulls of the same date, the rows that vanished since, and
the calls that the other report knows of. None of them is proof, so the verdict is never worse than `doubtful`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports import ReportName
from pipelines.steps.agreement import compare
from pipelines.steps.coverage import covers, newest_by_account
from pipelines.steps.findings import Finding, Level, Row, Table, number
from pipelines.steps.rows import GLOBAL, INTERACTIONS

WEEKS = 6
LEAST_WEEKS = 3
# Below both this share of the median and the least of the weeks: so an account whose days differ much is not accused.
DROP_SHARE = 0.7
# Rows vanish, and calls are missing from one report, one by one; a twentieth of a day is no accident.
NOTABLE_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """One account's newest pull beside what there is to compare it with."""

    pull: PullRecord
    weeks: Sequence[int]
    most_before: int
    lacking: int
    others: int

    def doubts(self) -> list[str]:
        rows, said = self.pull.rows, []
        if len(self.weeks) >= LEAST_WEEKS:
            usual = median(self.weeks)
            if rows == 0 < usual:
                said.append(f"no row, where this weekday usually has {usual:.0f}")
            elif rows < DROP_SHARE * usual and rows < min(self.weeks):
                said.append(f"{number(rows, 'row')}, where this weekday usually has {usual:.0f} and never had so few")
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
    history = _history(ledger, report, day, zone)
    lacking, others = _lacking(ledger, report, day, zone, now)
    judged, doubts, rows = [], [], list[Row]()
    for account_id in accounts:
        if account_id not in newest:
            doubts.append(f"account {account_id}: never pulled")
            continue
        one = _Account(
            pull=newest[account_id],
            weeks=history.get(account_id, []),
            most_before=max((pull.rows for pull in pulls if pull.account_id == account_id), default=0),
            lacking=lacking.get(account_id, 0),
            others=others.get(account_id, 0),
        )
        whole = covers(one.pull, bounds)
        found = one.doubts() if whole else []
        if not whole and bounds[1] <= now:
            found = [f"pulled only up to {one.pull.period_end:%Y-%m-%d %H:%M} UTC"]
        doubts += [f"account {account_id}: {doubt}" for doubt in found]
        judged.append(one)
        usual = round(median(one.weeks)) if one.weeks else 0
        least = min(one.weeks, default=0)
        rows.append((account_id, one.pull.rows, usual, least, len(one.weeks), one.pull.vanished, one.lacking))
    columns = ("account", "rows", "usual", "least", "weeks", "vanished", "calls_only_in_other_report")
    counts = {
        "rows": sum(one.pull.rows for one in judged),
        "rows_vanished": sum(one.pull.vanished for one in judged),
        "usual_rows": sum(round(median(one.weeks)) for one in judged if one.weeks),
        "weeks_compared": min((len(one.weeks) for one in judged), default=0),
        "calls_only_in_other_report": sum(one.lacking for one in judged),
    }
    return Finding(
        level=Level.doubtful if doubts else Level.good,
        sentence=_sentence(report, day, judged, doubts, bounds[1] <= now),
        counts=counts,
        tables={"by_account": Table(columns, rows)} if rows else {},
    )


def _history(ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo) -> dict[str, list[int]]:
    """Account -> the rows of the same weekday of the last weeks that were pulled whole, the latest first."""
    days = [day - timedelta(weeks=back) for back in range(1, WEEKS + 1)]
    with ThreadPoolExecutor(len(days), thread_name_prefix="history") as pool:
        found = list(pool.map(lambda past: ledger.pulls(report, past), days))
    rows: dict[str, list[int]] = {}
    for past, pulls in zip(days, found, strict=True):
        bounds = day_bounds(past, zone)
        for account_id, pull in newest_by_account(pull for pull in pulls if covers(pull, bounds)).items():
            rows.setdefault(account_id, []).append(pull.rows)
    return rows


def _lacking(
    ledger: Ledger, report: ReportName, day: date, zone: ZoneInfo, now: datetime
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Account -> the calls that only the other report knows; account -> the calls that the other report knows.

    Nothing for interaction metadata, which is whole by itself.
    """
    if report == INTERACTIONS:
        return {}, {}
    seen = compare(ledger, day, zone=zone, now=now)
    lacking = seen.not_in_global if report == GLOBAL else seen.not_in_agent
    by_account = dict.fromkeys(seen.accounts, 0)
    for account_id, _ in lacking:
        by_account[account_id] += 1
    return by_account, seen.agent_calls if report == GLOBAL else seen.reached


def _sentence(report: ReportName, day: date, judged: Sequence[_Account], doubts: Sequence[str], over: bool) -> str:
    rows, vanished = sum(one.pull.rows for one in judged), sum(one.pull.vanished for one in judged)
    gone = f" {number(vanished, 'row')} seen before vanished from the source; the recordings stay." if vanished else ""
    if doubts:
        return (
            f"{report} of {day} does not look whole: {'; '.join(doubts)}.{gone} Run the date again; if it stays so, "
            "look at the same report in the RingCX administration (a holiday explains a quiet day)."
        )
    weeks = min((len(one.weeks) for one in judged), default=0)
    if not over:
        return f"{day} is not over: {number(rows, 'row')} of {report} so far, not compared with other weeks.{gone}"
    if weeks < LEAST_WEEKS:
        return (
            f"{report} of {day} has {number(rows, 'row')}. Too little history to say more: this weekday was pulled in "
            f"{number(weeks, 'week')} before, and {LEAST_WEEKS} are needed.{gone}"
        )
    return f"{report} of {day} has {number(rows, 'row')}, as this weekday of the last {weeks} weeks lets expect.{gone}"
