"""Did every event arrive? The Global Call Type Detail report against the End Call Events, call by call.

An event may be lost on its way; the report is the remedy, and knows what was lost. The reverse, an event whose call the
report lacks, is a report that is not whole. Reads rows only, and says nothing about whether a recording is held.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.ringcx.reports.times import uii_time
from pipelines.steps.check.findings import SAMPLE, Finding, Level, Row, Table
from pipelines.steps.check.report_agreement import YOUNG, Call
from pipelines.steps.link.matching import call_of
from pipelines.steps.link.rows import EVENTS, GLOBAL
from pipelines.steps.pull.coverage import covers
from pipelines.wording import number

_COUNTS = (
    "calls_with_recording",
    "events_with_recording",
    "calls_without_event",
    "events_without_call",
    "accounts_not_compared",
)
# The two may date one call on either side of midnight.
_NEAR = (timedelta(days=-1), timedelta(0), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class _Compared:
    """Calls with a recording, by account and UII, and the accounts whose report covers the whole day."""

    reported: frozenset[Call]
    told: frozenset[Call]
    lost: tuple[Call, ...]
    unreported: tuple[Call, ...]
    accounts: frozenset[str]


def every_event_arrived(
    ledger: Ledger, day: date, *, accounts: Collection[str], zone: ZoneInfo, now: datetime
) -> Finding:
    """Calls that the report gives a recording and no event told of, and the reverse. Never worse than `doubtful`."""
    days_of_events = ledger.row_days(EVENTS)
    if not days_of_events or day < days_of_events[0]:
        since = f"the first one is of {days_of_events[0]}" if days_of_events else "none was ever stored"
        return Finding(
            level=Level.good,
            sentence=f"Nothing to compare on {day}: of End Call Events {since}.",
            counts=dict.fromkeys(_COUNTS, 0),
        )
    seen = _compare(ledger, day, accounts, zone, now)
    not_compared = len(set(accounts) - seen.accounts)
    found = (len(seen.reported), len(seen.told), len(seen.lost), len(seen.unreported), not_compared)
    shares: list[Row] = [
        ("calls_without_event", len(seen.lost), len(seen.reported), _percent(len(seen.lost), len(seen.reported))),
        ("events_without_call", len(seen.unreported), len(seen.told), _percent(len(seen.unreported), len(seen.told))),
    ]
    sample = _sample(seen)
    return Finding(
        level=Level.doubtful if sample or not_compared else Level.good,
        sentence=_sentence(day, seen, not_compared),
        counts=dict(zip(_COUNTS, found, strict=True)),
        tables={
            "shares": Table(("matter", "calls", "of", "percent"), shares),
            **({"sample": Table(("matter", "account", "uii"), sample)} if sample else {}),
        },
    )


def _compare(ledger: Ledger, day: date, accounts: Collection[str], zone: ZoneInfo, now: datetime) -> _Compared:
    bounds = day_bounds(day, zone)
    pulls = [pull for pull in ledger.pulls(GLOBAL, day) if pull.account_id in accounts]
    whole = frozenset(pull.account_id for pull in pulls if covers(pull, bounds))
    near = [day + step for step in _NEAR]

    def ours(call: Call) -> bool:
        # A call that began on another date is left to that one: a report may end with the first call of the next day.
        at = uii_time(call[1])
        return call[0] in accounts and (at is None or bounds[0] <= at < bounds[1])

    def settled(call: Call) -> bool:
        at = uii_time(call[1])
        return at is None or at <= now - YOUNG

    reported = frozenset(filter(ours, _recorded(ledger, GLOBAL, [day])))
    told = frozenset(filter(ours, _recorded(ledger, EVENTS, [day])))
    lost = reported - told
    unreported = frozenset(call for call in told - reported if call[0] in whole)
    if lost:
        lost -= _recorded(ledger, EVENTS, near)
    if unreported:
        unreported -= _recorded(ledger, GLOBAL, near)
    return _Compared(
        reported,
        told,
        tuple(sorted(filter(settled, lost))),
        tuple(sorted(filter(settled, unreported))),
        whole,
    )


def _recorded(ledger: Ledger, report: ReportName, days: list[date]) -> frozenset[Call]:
    """The calls of which any row version has a link."""
    found: set[Call] = set()
    for day in days:
        table = ledger.all_rows(report, day, columns=["account_id", "uii", LINK_COLUMN[report]])
        for account, uii, link in zip(*(column.to_pylist() for column in table.itercolumns()), strict=True):
            if account and uii and link:
                found.add(call_of(account, uii))
    return frozenset(found)


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _sentence(day: date, seen: _Compared, not_compared: int) -> str:
    calls, told = len(seen.reported), len(seen.told)
    if seen.lost or seen.unreported:
        said = (
            f"On {day} {number(len(seen.lost), 'call')} of {calls} with a recording came without an event "
            f"({_percent(len(seen.lost), calls)} %), and {number(len(seen.unreported), 'event')} of {told} without a "
            f"call in the report ({_percent(len(seen.unreported), told)} %). Lost events cost time and no recording: "
            "the report names those too. If many are lost, look at the receiver. Where the report lacks calls, run the "
            "date again."
        )
    else:
        said = f"{number(calls, 'call')} with a recording on {day}: each has an event, and the reverse."
    if not_compared:
        said += f" {number(not_compared, 'account')} not compared in full: the report does not cover the whole day."
    return said


def _sample(seen: _Compared) -> list[Row]:
    """Up to `SAMPLE` calls, half of them for the rarer matter."""
    unreported: list[Row] = [("without_call", *call) for call in seen.unreported]
    first = unreported[: max(SAMPLE // 2, SAMPLE - len(seen.lost))]
    return [*first, *(("without_event", *call) for call in seen.lost[: SAMPLE - len(first)])]
