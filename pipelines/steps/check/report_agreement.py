"""The check that both reports of a date name the same calls, and that each call has the recordings it should have.

One report names the mono recording of a call, the other the stereo recording of each agent leg.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import links_in
from pipelines.ringcx.reports.columns import (
    AGENT,
    DIRECTIONS,
    EVENTS,
    GLOBAL,
    INTERACTIONS,
    LINK_COLUMN,
    REPORTS,
    UII_COLUMN,
    ReportName,
)
from pipelines.ringcx.reports.times import parse_hms, parse_moment, parse_report_time, uii_time
from pipelines.settings import VerifySettings
from pipelines.steps.check.result import LISTED, CheckResult, Level
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.rows import links_of, needed_columns, start_of
from pipelines.steps.pull.coverage import MissingReport, Pulls, covers, newest_by_account
from pipelines.wording import number

# A row may come before its link: 10 to 15 minutes by the vendor's pages. Younger calls are not judged.
YOUNG = timedelta(hours=1)

_CALL = ["account_id", "uii"]
_LEG = [*_CALL, "session_id"]


def _match_reports(
    ledger: Ledger, day: date, *, zone: ZoneInfo, now: datetime
) -> tuple[pd.DataFrame, pd.DataFrame, frozenset[str]]:
    """Match the rows of `day` by account and UII; return calls, legs, and the accounts whose reports were both pulled.

    Calls: by account and UII, columns of true and false: `in_agent`, `reached` (an agent took the call, by the global
    report), `known`, `without_mono`, `unrecorded` (no recording of any leg either), `not_in_global`, `not_in_agent`.
    Legs: by account, UII and session id, `without_stereo`. A call belongs to the date on which it began or was taken.
    """
    begin, end = day_bounds(day, zone)
    by_agents = {pull.account_id for pull in ledger.pulls(AGENT, day)}
    both = frozenset(pull.account_id for pull in ledger.pulls(GLOBAL, day) if pull.account_id in by_agents)
    legs = _legs(ledger, day, both)
    calls = _joined(_calls(ledger, day, both), legs)
    is_settled = calls["at"].isna() | (calls["at"] <= now - YOUNG)

    def is_of_day(at: pd.Series) -> pd.Series:
        return at.isna() | ((at >= begin) & (at < end))

    def is_settled_with_links(report: ReportName) -> pd.Series:
        return is_settled & calls.index.get_level_values("account_id").isin(_with_links(ledger, report, day))

    began_on_day = is_of_day(calls["began"])
    calls["known"] = calls["connected"] | (calls["in_agent"] & (calls["in_global"] | began_on_day))
    calls["without_mono"] = calls["known"] & ~calls["mono"] & is_settled_with_links(GLOBAL)
    calls["unrecorded"] = calls["without_mono"] & ~calls["stereo"]
    calls["not_in_global"] = calls["in_agent"] & ~calls["in_global"] & began_on_day & is_settled
    calls["not_in_agent"] = calls["reached"] & ~calls["in_agent"] & is_of_day(calls["taken"]) & is_settled
    calls_with_stereo = calls.index[is_settled_with_links(AGENT)]
    legs["without_stereo"] = ~legs["stereo"] & legs.reset_index("session_id").index.isin(calls_with_stereo)
    return calls, legs, both


def _joined(calls: pd.DataFrame, legs: pd.DataFrame) -> pd.DataFrame:
    """Return the calls of both reports; `began` and `at`, which decide on them, are the UII's time if it has one."""
    agents = legs.groupby(_CALL).agg(stereo=("stereo", "any"), began=("began", "min")).assign(in_agent=True)
    joined = calls.join(agents, how="outer")
    flags = ["in_global", "connected", "reached", "mono", "in_agent", "stereo"]
    joined[flags] = joined[flags].eq(True)
    by_uii = _times(joined.index.get_level_values("uii").to_series(index=joined.index), uii_time)
    joined["began"] = by_uii.fillna(joined["began"])
    joined["at"] = by_uii.fillna(joined["taken"]).fillna(joined["began"])
    return joined


def empty_reports(
    ledger: Ledger, day: date, pulls: Pulls, settings: VerifySettings, *, now: datetime
) -> list[MissingReport]:
    """Return the reports without any row although the other one, or an End Call Event, has calls of `day`, apart from
    calls that began before it or in its last hour: the reports may date these on different sides of midnight.

    Agent Segment Metadata comes in two parts, inbound and outbound, of which one alone may be without rows.
    """
    begin, end = bounds = day_bounds(day, settings.zone)
    newest = {report: newest_by_account(of_report) for report, of_report in pulls.items()}
    accounts = settings.ringcx_account_ids or set().union(*newest.values())
    # The other source names every recording of a leg by itself.
    named = {pull.account_id for pull in pulls[INTERACTIONS] if pull.rows and covers(pull, bounds)}
    of_both = newest[AGENT].keys() & newest[GLOBAL].keys() & set(accounts)
    needs_legs = of_both - named
    needs_calls = of_both if settings.ringcx_source == "both" else needs_legs
    no_legs = {account for account in needs_legs if not newest[AGENT][account].rows}
    no_calls = {account for account in needs_calls if not newest[GLOBAL][account].rows}
    one_empty = sorted(no_legs ^ no_calls)
    parts_empty = {account for account in needs_legs - no_legs if newest[AGENT][account].empty_parts}
    if parts_empty:
        parts_empty &= _with_both_directions(ledger, day)
    lacking = _without_calls_of_events(ledger, day, newest, accounts, (begin, end - YOUNG))
    if settings.ringcx_source == "both":
        lacking += _without_calls_of_interactions(ledger, day, newest, accounts, (begin, end - YOUNG))
    if not one_empty and not parts_empty:
        return lacking
    calls, _, _ = _match_reports(ledger, day, zone=settings.zone, now=now)
    accounts_with_calls = set(calls.index.get_level_values("account_id"))
    began = calls["began"].fillna(calls["taken"])
    calls = calls[~((began < begin) | (began >= end - YOUNG))].reset_index("account_id")
    missing = calls.groupby("account_id")[["not_in_agent", "not_in_global"]].sum()
    for report, other, column in ((AGENT, GLOBAL, "not_in_agent"), (GLOBAL, AGENT, "not_in_global")):
        for account in one_empty:
            # Where no row of the other report names its call, each row may be one.
            of_other = newest[other][account].rows
            if account in accounts_with_calls:
                of_other = int(missing[column].get(account, 0))
            if of_other and not newest[report][account].rows:
                lacking.append(_empty(newest[report][account], ", although the other report has", of_other))
    by_part = calls.groupby(["account_id", "direction"])[["in_agent", "not_in_agent"]].sum()
    for (account, direction), in_agent, not_in_agent in by_part.itertuples():
        if account in parts_empty and not_in_agent and not in_agent:
            others = f" for {direction} calls, although the other report has"
            lacking.append(_empty(newest[AGENT][account], others, not_in_agent))
    return lacking


def _with_both_directions(ledger: Ledger, day: date) -> set[str]:
    """Return the accounts with inbound and outbound calls; the part for an unused direction is always empty."""
    calls = ledger.all_rows(GLOBAL, day, columns=["account_id", "source_type"]).to_pandas().drop_duplicates()
    directions = calls["source_type"].str.lower().map(DIRECTIONS).groupby(calls["account_id"]).nunique()
    return {*directions.index[directions > 1]}


def _without_calls_of_events(
    ledger: Ledger,
    day: date,
    newest: Mapping[ReportName, Mapping[str, PullRecord]],
    accounts: Iterable[str],
    period: tuple[datetime, datetime],
) -> list[MissingReport]:
    """Return the reports of accounts without a row in any report, although events show recorded calls in the period."""
    empty: dict[str, list[PullRecord]] = {}
    for account in accounts:
        made = [pulls[account] for pulls in newest.values() if account in pulls]
        if made and not any(pull.rows for pull in made):
            empty[account] = made
    if not empty:
        return []
    events = _rows(ledger, EVENTS, day, ["call_start_dts"], empty.keys())
    began = _times(events["call_start_dts"], parse_report_time)
    events = events[(period[0] <= began) & (began < period[1]) & events["link"].map(links_in).astype(bool)]
    if events.empty:
        return []
    named = {  # by an earlier pull, or on the other side of midnight
        uii.lower()
        for report, other in product(REPORTS, near({day}))
        for uii in ledger.all_rows(report, other, columns=[UII_COLUMN[report]])[UII_COLUMN[report]].to_pylist()
        if uii
    }
    calls = events[~events["uii"].isin(named)].groupby("account_id")["uii"].nunique()
    others = ", although End Call Events name"
    return [_empty(pull, others, count) for account, count in calls.items() for pull in empty[str(account)]]


def _without_calls_of_interactions(
    ledger: Ledger,
    day: date,
    newest: Mapping[ReportName, Mapping[str, PullRecord]],
    accounts: Iterable[str],
    period: tuple[datetime, datetime],
) -> list[MissingReport]:
    """Return the global reports that came empty, as the agents' did if pulled, although interactions were recorded."""
    no_legs = {account for account in accounts if account not in newest[AGENT] or not newest[AGENT][account].rows}
    empty = {account: pull for account, pull in newest[GLOBAL].items() if account in no_legs and not pull.rows}
    calls: Counter[str] = Counter()
    if any(newest[INTERACTIONS][account].with_link for account in empty.keys() & newest[INTERACTIONS].keys()):
        named = set()
        for row in ledger.all_rows(INTERACTIONS, day, columns=needed_columns(INTERACTIONS)).to_pylist():
            began = parse_moment(row["dialog_start_time_ms"]) or start_of(INTERACTIONS, row)
            if began and period[0] <= began < period[1] and any(links_of(INTERACTIONS, row)):
                named.add((row["account_id"], row["interaction_id"]))
        calls.update(account for account, _ in named)
    others = ", although interaction metadata has"
    return [_empty(pull, others, calls[account]) for account, pull in empty.items() if calls[account]]


def _empty(pull: PullRecord, others: str, calls: int) -> MissingReport:
    explanation = f"was empty{others} {number(calls, 'call')} of that day"
    return MissingReport(pull.report, pull.account_id, pull.period_end, explanation)


def _calls(ledger: Ledger, day: date, accounts: Collection[str]) -> pd.DataFrame:
    """Return the calls of a date in the Global Call Type Detail. `taken`: when an agent took the call."""
    names = ("connected_duration", "connected_dts", "connected_route", "call_start_dts", "source_type")
    rows = _rows(ledger, GLOBAL, day, names, accounts)
    rows["in_global"] = True
    rows["mono"] = rows["link"] != ""
    rows["connected"] = (rows["connected_dts"] != "") | rows["connected_duration"].map(parse_hms).gt(0)
    # A call may also be connected to a voicemail or an outside number, which is not an agent's leg.
    by_machine = rows["source_type"].str.contains("ivr|cloud|trac", case=False)
    to_agent = rows["connected_route"].str.contains("agent", case=False, regex=False)
    # Only a route that says so shows that an agent took a call of one direction: a campaign may play messages alone.
    rows["direction"] = rows["source_type"].str.lower().map(DIRECTIONS).where(rows["connected"] & to_agent)
    to_agent |= (rows["connected_route"] == "") & ~by_machine
    rows["reached"] = rows["connected"] & to_agent
    taken = _times(rows["connected_dts"], parse_report_time)
    rows["taken"] = taken.fillna(_times(rows["call_start_dts"], parse_report_time)).where(rows["reached"])
    any_of = {name: (name, "any") for name in ("in_global", "mono", "connected", "reached")}
    calls = rows.groupby(_CALL).agg(**any_of, taken=("taken", "min"))
    # A call that goes from a campaign to a queue has a leg in either part.
    directions = rows.dropna(subset="direction").groupby(_CALL)["direction"]
    return calls.assign(direction=directions.first().where(directions.nunique() == 1))


def _legs(ledger: Ledger, day: date, accounts: Collection[str]) -> pd.DataFrame:
    """Return each agent leg of a date: when it began, and whether any row of it had a link."""
    rows = _rows(ledger, AGENT, day, ("session_id", "start_dts"), accounts)
    rows["stereo"] = rows["link"] != ""
    rows["began"] = _times(rows["start_dts"], parse_report_time)
    return rows.groupby(_LEG).agg(stereo=("stereo", "any"), began=("began", "min"))


def _rows(
    ledger: Ledger, report: ReportName, day: date, names: Sequence[str], accounts: Collection[str]
) -> pd.DataFrame:
    """Return every row version of these accounts that has a UII, with its `link` and these columns; null is empty."""
    wanted = [*_CALL, LINK_COLUMN[report], *names]
    rows = ledger.all_rows(report, day, columns=wanted).to_pandas().fillna("")
    rows = rows.rename(columns={LINK_COLUMN[report]: "link"})
    for name in {"uii", "session_id"} & {*wanted}:  # reports may write one id in different letter case
        rows[name] = rows[name].str.lower()
    return rows[rows["account_id"].isin(accounts) & (rows["uii"] != "")]


def _times(texts: pd.Series, parse: Callable[[str], datetime | None]) -> pd.Series:
    """Parse texts as times, null if a text is none; each distinct text is parsed once."""
    return pd.to_datetime(texts.map({text: parse(text) for text in texts.unique()}), utc=True, errors="coerce")


def _with_links(ledger: Ledger, report: ReportName, day: date) -> set[str]:
    """Return the accounts that have recordings at all, by the pulls of `day`, the day before or a week before."""
    days = [day - timedelta(days=back) for back in (0, 1, 7)]
    return {pull.account_id for each in days for pull in ledger.pulls(report, each) if pull.with_link}


def mono_and_stereo_agree(ledger: Ledger, day: date, settings: VerifySettings, *, now: datetime) -> CheckResult:
    """Name connected calls without a mono recording, legs without a stereo one, and calls that one report lacks."""
    calls, legs, accounts = _match_reports(ledger, day, zone=settings.zone, now=now)
    counts = {
        "calls": int(calls["known"].sum()),
        "agent_legs": len(legs),
        "calls_without_mono": int(calls["without_mono"].sum()),
        "calls_without_any_recording": int(calls["unrecorded"].sum()),
        "legs_without_stereo": int(legs["without_stereo"].sum()),
        "calls_not_in_global_report": int(calls["not_in_global"].sum()),
        "calls_not_in_agent_report": int(calls["not_in_agent"].sum()),
        "accounts_not_compared": len(set(settings.ringcx_account_ids) - accounts),
    }
    kinds = [
        table[table[column]].reset_index().head(LISTED // 4).reindex(columns=_LEG, fill_value="").assign(condition=name)
        for table, column, name in (
            (calls, "not_in_global", "not_in_global_report"),
            (calls, "not_in_agent", "not_in_agent_report"),
            (calls, "without_mono", "without_mono"),
            (legs, "without_stereo", "without_stereo"),
        )
    ]
    sample = pd.concat(kinds)[["condition", *_LEG]].rename(columns={"account_id": "account", "session_id": "session"})
    if len(sample):
        sentence = (
            f"Of {number(counts['calls'], 'connected call')} on {day}, "
            f"{number(counts['calls_without_mono'], 'has', 'have')} no mono recording "
            f"({counts['calls_without_any_recording']} not recorded at all). "
            f"Of {number(counts['agent_legs'], 'agent leg')}, "
            f"{number(counts['legs_without_stereo'], 'has', 'have')} no stereo recording. "
            f"{number(counts['calls_not_in_global_report'], 'call is', 'calls are')} missing from Global Call Type "
            f"Detail, {counts['calls_not_in_agent_report']} from Agent Segment Metadata. This is normal where "
            "recording was off; otherwise run the date again, since rows and links arrive late."
        )
    else:
        sentence = (
            f"{number(counts['calls'], 'connected call')} and {number(counts['agent_legs'], 'agent leg')} of {day}: "
            "each has the recordings that its account makes, and both reports have the same calls."
        )
    if counts["accounts_not_compared"]:
        sentence += (
            f" {number(counts['accounts_not_compared'], 'account')} could not be compared: a report was not pulled."
        )
    return CheckResult(
        level=Level.warning if len(sample) or counts["accounts_not_compared"] else Level.ok,
        sentence=sentence,
        counts=counts,
        lists={"sample": sample},
    )
