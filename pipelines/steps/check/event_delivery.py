"""The check that every event arrived: the Global Call Type Detail report against the End Call Events, call by call.

The report makes up for a lost event; an event whose call the report lacks shows that the report is not whole. The check
reads rows only, and does not check whether a recording is held.
"""

from collections.abc import Iterable
from datetime import date, datetime

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.ringcx.reports.times import uii_time
from pipelines.settings import VerifySettings
from pipelines.steps.check.report_agreement import YOUNG
from pipelines.steps.check.result import LISTED, CheckResult, Level
from pipelines.steps.link.matching import Call, call_of
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.rows import EVENTS, GLOBAL
from pipelines.steps.pull.coverage import covers
from pipelines.wording import number


def every_event_arrived(ledger: Ledger, day: date, settings: VerifySettings, *, now: datetime) -> CheckResult:
    """Name the calls with a recording that have no event, and the reverse, except calls younger than an hour."""
    days_of_events = ledger.row_days(EVENTS)
    if not days_of_events or day < days_of_events[0]:
        since = f"the first End Call Event is of {days_of_events[0]}" if days_of_events else "no event was ever stored"
        return CheckResult(level=Level.ok, sentence=f"There is nothing to compare on {day}: {since}.", counts={})
    begin, end = day_bounds(day, settings.zone)
    accounts = set(settings.ringcx_account_ids)
    # The two may date one call on either side of midnight.
    around = sorted(near({day}))
    whole = {pull.account_id for pull in ledger.pulls(GLOBAL, day) if covers(pull, (begin, end))} & accounts

    def of_date(calls: Iterable[Call]) -> set[Call]:
        # A call that began on another date is left to that one: a report may end with the first call of the next day.
        return {call for call in calls if call[0] in accounts and begin <= (uii_time(call[1]) or begin) < end}

    def settled(calls: Iterable[Call]) -> list[Call]:
        return sorted(call for call in calls if not (at := uii_time(call[1])) or at <= now - YOUNG)

    reported, events = of_date(_recorded(ledger, GLOBAL, [day])), of_date(_recorded(ledger, EVENTS, [day]))
    lost, unreported = reported - events, {call for call in events - reported if call[0] in whole}
    without_event = settled(lost - _recorded(ledger, EVENTS, around) if lost else ())
    without_call = settled(unreported - _recorded(ledger, GLOBAL, around) if unreported else ())
    not_compared = len(accounts - whole)
    sample = [("without_call", *call) for call in without_call[: LISTED // 2]]
    sample += [("without_event", *call) for call in without_event[: LISTED // 2]]
    if sample:
        sentence = (
            f"Of {number(len(reported), 'call')} with a recording on {day}, "
            f"{number(len(without_event), 'has', 'have')} no event ({len(without_event) / max(len(reported), 1):.2%}), "
            f"and of {number(len(events), 'event')}, {number(len(without_call), 'has', 'have')} no call in the report "
            f"({len(without_call) / max(len(events), 1):.2%}). Lost events only delay recordings, since the report "
            "names them too. If many are lost, check the receiver. If the report lacks calls, run the date again."
        )
    else:
        sentence = (
            f"{number(len(reported), 'call')} with a recording on {day}: each has an event, and each event a call."
        )
    if not_compared:
        accounts_were = number(not_compared, "account was", "accounts were")
        sentence += f" {accounts_were} not compared in full: the report does not cover the whole day."
    return CheckResult(
        level=Level.warning if sample or not_compared else Level.ok,
        sentence=sentence,
        counts={
            "calls_with_recording": len(reported),
            "events_with_recording": len(events),
            "calls_without_event": len(without_event),
            "events_without_call": len(without_call),
            "accounts_not_compared": not_compared,
        },
        lists={"sample": pd.DataFrame(sample, columns=["matter", "account", "uii"])},
    )


def _recorded(ledger: Ledger, report: ReportName, days: list[date]) -> set[Call]:
    """Return the calls with a link in any row version."""
    columns = ["account_id", "uii", LINK_COLUMN[report]]
    rows = pd.concat([ledger.all_rows(report, day, columns=columns).to_pandas() for day in days]).replace("", None)
    return {call_of(account, uii) for account, uii, _ in rows.dropna().itertuples(index=False)}
