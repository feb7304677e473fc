"""The check that every event arrived: the Global Call Type Detail report against the End Call Events, call by call."""

from datetime import date, datetime
from typing import NamedTuple

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.ringcx.reports.times import uii_time
from pipelines.settings import VerifySettings
from pipelines.steps.check.report_agreement import YOUNG
from pipelines.steps.check.result import LISTED, CheckResult, Level
from pipelines.steps.link.matching import Call
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.rows import EVENTS, GLOBAL
from pipelines.steps.pull.coverage import covers
from pipelines.wording import number


class _Compared(NamedTuple):
    """The calls with a recording that the report and the events name, those only one of them does, and the number of
    accounts that the report does not cover.
    """

    reported: set[Call]
    events: set[Call]
    without_event: list[Call]
    without_call: list[Call]
    not_compared: int


def every_event_arrived(ledger: Ledger, day: date, settings: VerifySettings, *, now: datetime) -> CheckResult:
    """Name the calls with a recording that have no event, and the reverse, except calls younger than an hour."""
    days_of_events = ledger.row_days(EVENTS)
    if not days_of_events or day < days_of_events[0]:
        since = f"the first End Call Event is of {days_of_events[0]}" if days_of_events else "no event was ever stored"
        return CheckResult(level=Level.ok, sentence=f"There is nothing to compare on {day}: {since}.", counts={})
    compared = _compare_calls(ledger, day, settings, now)
    sample = [("without_call", *call) for call in compared.without_call[: LISTED // 2]]
    sample += [("without_event", *call) for call in compared.without_event[: LISTED // 2]]
    return CheckResult(
        level=Level.warning if sample or compared.not_compared else Level.ok,
        sentence=_sentence(compared, day),
        counts={
            "calls_with_recording": len(compared.reported),
            "events_with_recording": len(compared.events),
            "calls_without_event": len(compared.without_event),
            "events_without_call": len(compared.without_call),
            "accounts_not_compared": compared.not_compared,
        },
        lists={"sample": pd.DataFrame(sample, columns=["matter", "account", "uii"])},
    )


def _compare_calls(ledger: Ledger, day: date, settings: VerifySettings, now: datetime) -> _Compared:
    begin, end = day_bounds(day, settings.zone)
    accounts = set(settings.ringcx_account_ids)
    covered = {pull.account_id for pull in ledger.pulls(GLOBAL, day) if covers(pull, (begin, end))} & accounts
    # The two may date one call on either side of midnight.
    around = sorted(near({day}))

    def is_of_date(call: Call) -> bool:
        # A call that began on another date is left to that one: a report may end with the first call of the next day.
        started_at = uii_time(call.uii)
        return call.account_id in accounts and (started_at is None or begin <= started_at < end)

    def is_settled(call: Call) -> bool:
        started_at = uii_time(call.uii)
        return started_at is None or started_at <= now - YOUNG

    reported = set(filter(is_of_date, _recorded(ledger, GLOBAL, [day])))
    events = set(filter(is_of_date, _recorded(ledger, EVENTS, [day])))
    lost = reported - events
    if lost:
        lost -= _recorded(ledger, EVENTS, around)
    unreported = {call for call in events - reported if call.account_id in covered}
    if unreported:
        unreported -= _recorded(ledger, GLOBAL, around)
    return _Compared(
        reported=reported,
        events=events,
        without_event=sorted(filter(is_settled, lost)),
        without_call=sorted(filter(is_settled, unreported)),
        not_compared=len(accounts - covered),
    )


def _sentence(compared: _Compared, day: date) -> str:
    reported, events = len(compared.reported), len(compared.events)
    lost, unreported = len(compared.without_event), len(compared.without_call)
    sentence = f"{number(reported, 'call')} with a recording on {day}: each has an event, and each event a call."
    if lost or unreported:
        sentence = (
            f"Of {number(reported, 'call')} with a recording on {day}, {number(lost, 'has', 'have')} no event "
            f"({lost / max(reported, 1):.2%}), and of {number(events, 'event')}, {number(unreported, 'has', 'have')} "
            f"no call in the report ({unreported / max(events, 1):.2%}). Lost events only delay recordings, since the "
            "report names them too. If many are lost, check the receiver. If the report lacks calls, run the date "
            "again."
        )
    if compared.not_compared:
        accounts_were = number(compared.not_compared, "account was", "accounts were")
        sentence += f" {accounts_were} not compared in full: the report does not cover the whole day."
    return sentence


def _recorded(ledger: Ledger, report: ReportName, days: list[date]) -> set[Call]:
    """Return the calls with a link in any row version."""
    columns = ["account_id", "uii", LINK_COLUMN[report]]
    rows = pd.concat([ledger.all_rows(report, day, columns=columns).to_pandas() for day in days]).replace("", None)
    return {Call.of(account, uii) for account, uii, _ in rows.dropna().itertuples(index=False)}
