"""The check that every event arrived: the Global Call Type Detail report against the End Call Events, call by call."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import EVENTS, GLOBAL, LINK_COLUMN, ReportName
from pipelines.ringcx.reports.times import uii_time
from pipelines.settings import VerifySettings
from pipelines.steps.check.report_agreement import YOUNG
from pipelines.steps.check.result import LISTED, CheckResult, Level
from pipelines.steps.link.matching import Call
from pipelines.steps.link.recording_date import near
from pipelines.steps.pull.coverage import covers
from pipelines.wording import number


def every_event_arrived(ledger: Ledger, day: date, settings: VerifySettings, *, now: datetime) -> CheckResult:
    """Name the calls with a recording that have no event, and the reverse, except calls younger than an hour."""
    days_of_events = ledger.days("report_rows", EVENTS)
    if not days_of_events or day < days_of_events[0]:
        since = f"the first End Call Event is of {days_of_events[0]}" if days_of_events else "no event was ever stored"
        return CheckResult(level=Level.ok, sentence=f"There is nothing to compare on {day}: {since}.", counts={})
    begin, end = day_bounds(day, settings.zone)
    accounts = set(settings.ringcx_account_ids)
    covered = {pull.account_id for pull in ledger.pulls(GLOBAL, day) if covers(pull, (begin, end))} & accounts

    def is_of_date(call: Call) -> bool:
        # A call that began on another date is left to that one: a report may end with the first call of the next day.
        started_at = uii_time(call.uii)
        return call.account_id in accounts and (started_at is None or begin <= started_at < end)

    def is_settled(call: Call) -> bool:
        started_at = uii_time(call.uii)
        return started_at is None or started_at <= now - YOUNG

    reported = set(filter(is_of_date, _recorded(ledger, GLOBAL, [day])))
    events = set(filter(is_of_date, _recorded(ledger, EVENTS, [day])))
    # The two may date one call on either side of midnight.
    lost = reported - _recorded(ledger, EVENTS, near({day}))
    unreported = events - _recorded(ledger, GLOBAL, near({day}))
    without_event = sorted(filter(is_settled, lost))
    without_call = sorted(call for call in unreported if is_settled(call) and call.account_id in covered)
    sample = [("without_call", *call) for call in without_call[: LISTED // 2]]
    sample += [("without_event", *call) for call in without_event[: LISTED // 2]]
    counts = {
        "calls_with_recording": len(reported),
        "events_with_recording": len(events),
        "calls_without_event": len(without_event),
        "events_without_call": len(without_call),
        "accounts_not_compared": len(accounts - covered),
    }
    return CheckResult(
        level=Level.warning if sample or counts["accounts_not_compared"] else Level.ok,
        sentence=_sentence(counts, day),
        counts=counts,
        lists={"sample": pd.DataFrame(sample, columns=["condition", "account", "uii"])},
    )


def _sentence(counts: Mapping[str, int], day: date) -> str:
    reported, events = counts["calls_with_recording"], counts["events_with_recording"]
    lost, unreported = counts["calls_without_event"], counts["events_without_call"]
    sentence = f"{number(reported, 'call')} with a recording on {day}: each has an event, and each event a call."
    if lost or unreported:
        sentence = (
            f"Of {number(reported, 'call')} with a recording on {day}, {number(lost, 'has', 'have')} no event "
            f"({lost / max(reported, 1):.2%}), and of {number(events, 'event')}, {number(unreported, 'has', 'have')} "
            f"no call in the report ({unreported / max(events, 1):.2%}). Lost events only delay recordings, since the "
            "report names them too. If many are lost, check the receiver. If the report lacks calls, run the date "
            "again."
        )
    if counts["accounts_not_compared"]:
        accounts_were = number(counts["accounts_not_compared"], "account was", "accounts were")
        sentence += f" {accounts_were} not compared in full: the report does not cover the whole day."
    return sentence


def _recorded(ledger: Ledger, report: ReportName, days: Iterable[date]) -> set[Call]:
    """Return the calls with a link in any row version."""
    columns = ["account_id", "uii", LINK_COLUMN[report]]
    rows = pd.concat([ledger.all_rows(report, day, columns=columns).to_pandas() for day in days]).replace("", None)
    return {Call.of(account, uii) for account, uii, _ in rows.dropna().itertuples(index=False)}
