"""Do the two reports of a date tell of the same calls, and does each call have the recordings it should have?

Calls are matched by account and UII over every row ever seen. The one report names the mono recording of a call, the
other the stereo recording of each agent leg: what only one of them knows was left out by the other. Reads report rows
only; whether a recording is held is `completeness.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.calendar import day_bounds
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import LINK_COLUMN
from pipelines.ringcx.reports import ReportName
from pipelines.ringcx.times import parse_hms, parse_report_time, uii_time
from pipelines.steps.coverage import newest_by_account
from pipelines.steps.findings import SAMPLE, Finding, Level, Row, Table, number
from pipelines.steps.rows import AGENT, GLOBAL

# A row may come before its link: 10 to 15 minutes by the vendor's pages. Younger calls are not judged.
YOUNG = timedelta(hours=1)

Call = tuple[str, str]
"""Account and UII."""
Leg = tuple[str, str, str]
"""Account, UII and session id."""


@dataclass(slots=True)
class _Calls:
    """The calls of a date as the Global Call Type Detail has them. `reached`: those an agent took, and when."""

    all: set[Call] = field(default_factory=set)
    connected: set[Call] = field(default_factory=set)
    reached: dict[Call, datetime | None] = field(default_factory=dict)
    with_mono: set[Call] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two reports of one date, side by side. Calls that began or were taken on another date are left to that one."""

    calls: int
    legs: int
    agent_calls: Mapping[str, int]
    """Account -> calls that the agent report knows."""
    reached: Mapping[str, int]
    """Account -> calls that the global report says an agent took."""
    without_mono: tuple[Call, ...]
    legs_without_stereo: tuple[Leg, ...]
    not_in_global: tuple[Call, ...]
    not_in_agent: tuple[Call, ...]
    unrecorded: int
    """Calls among `without_mono` of which no leg has a recording either."""
    accounts: frozenset[str]
    """The accounts of which both reports were pulled: no other is judged."""


def compare(ledger: Ledger, day: date, *, zone: ZoneInfo, now: datetime) -> Compared:
    """Match the rows of `day` by account and UII."""
    bounds = day_bounds(day, zone)
    pulls = {report: newest_by_account(ledger.pulls(report, day)) for report in (AGENT, GLOBAL)}
    both = frozenset(pulls[AGENT].keys() & pulls[GLOBAL].keys())
    calls, legs = _calls(ledger, day, both), _legs(ledger, day, both)
    began = {(account, uii): uii_time(uii) or at for (account, uii, _), (at, _) in legs.items()}

    def ours(at: datetime | None) -> bool:
        return at is None or bounds[0] <= at < bounds[1]

    def settled(call: Call) -> bool:
        at = uii_time(call[1]) or calls.reached.get(call) or began.get(call)
        return at is None or at <= now - YOUNG

    known = calls.connected | {call for call, at in began.items() if call in calls.all or ours(at)}
    heard = {leg[:2] for leg, (_, recorded) in legs.items() if recorded}
    mono_accounts = _with_links(ledger, GLOBAL, day, pulls[GLOBAL], both)
    stereo_accounts = _with_links(ledger, AGENT, day, pulls[AGENT], both)
    without_mono = sorted(call for call in known - calls.with_mono if call[0] in mono_accounts and settled(call))
    return Compared(
        calls=len(known),
        legs=len(legs),
        agent_calls=Counter(account for account, _ in began),
        reached=Counter(account for account, _ in calls.reached),
        without_mono=tuple(without_mono),
        legs_without_stereo=tuple(
            sorted(
                leg
                for leg, (_, recorded) in legs.items()
                if not recorded and leg[0] in stereo_accounts and settled(leg[:2])
            )
        ),
        not_in_global=tuple(sorted(call for call in began.keys() - calls.all if ours(began[call]) and settled(call))),
        not_in_agent=tuple(
            sorted(call for call, at in calls.reached.items() if call not in began and ours(at) and settled(call))
        ),
        unrecorded=sum(call not in heard for call in without_mono),
        accounts=both,
    )


def _calls(ledger: Ledger, day: date, accounts: Collection[str]) -> _Calls:
    found = _Calls()
    names = ("connected_duration", "connected_dts", "connected_route", "call_start_dts")
    for account, uii, link, lasted, at, route, began in _rows(ledger, GLOBAL, day, names, accounts):
        call = (account, uii)
        found.all.add(call)
        if link:
            found.with_mono.add(call)
        if at or parse_hms(lasted):
            found.connected.add(call)
            # A call may also be connected to a voicemail or an outside number, which is no agent's leg.
            if not route or "agent" in route.casefold():
                found.reached[call] = parse_report_time(at) or parse_report_time(began)
    return found


def _legs(ledger: Ledger, day: date, accounts: Collection[str]) -> dict[Leg, tuple[datetime | None, bool]]:
    """Each agent leg: when it began, and whether any row of it had a link."""
    found: dict[Leg, tuple[datetime | None, bool]] = {}
    for account, uii, link, session, start in _rows(ledger, AGENT, day, ("session_id", "start_dts"), accounts):
        leg = (account, uii, session)
        found[leg] = (parse_report_time(start), bool(link) or found.get(leg, (None, False))[1])
    return found


def _rows(
    ledger: Ledger, report: ReportName, day: date, names: tuple[str, ...], accounts: Collection[str]
) -> Iterator[list[str]]:
    """Account, UII, link and the named columns of every row version that has a UII; null is empty."""
    wanted = ["account_id", "uii", LINK_COLUMN[report], *names]
    table = ledger.all_rows(report, day, columns=wanted)
    for line in zip(*(table[name].to_pylist() for name in wanted), strict=True):
        if line[0] in accounts and line[1]:
            yield [value or "" for value in line]


def _with_links(
    ledger: Ledger, report: ReportName, day: date, newest: Mapping[str, PullRecord], accounts: Collection[str]
) -> set[str]:
    """The accounts that have such recordings at all: by the `newest` pulls of `day`, or else the day or week before."""
    found = {account for account, pull in newest.items() if pull.with_link}
    for back in (1, 7):
        if found >= set(accounts):
            break
        before = newest_by_account(ledger.pulls(report, day - timedelta(days=back)))
        found |= {account for account, pull in before.items() if pull.with_link}
    return found & set(accounts)


def mono_and_stereo_agree(
    ledger: Ledger, day: date, *, accounts: Collection[str], zone: ZoneInfo, now: datetime
) -> Finding:
    """Connected calls without a mono recording, agent legs without a stereo one, calls that only one report knows."""
    seen = compare(ledger, day, zone=zone, now=now)
    counts = {
        "calls": seen.calls,
        "agent_legs": seen.legs,
        "calls_without_mono": len(seen.without_mono),
        "calls_without_any_recording": seen.unrecorded,
        "legs_without_stereo": len(seen.legs_without_stereo),
        "calls_not_in_global_report": len(seen.not_in_global),
        "calls_not_in_agent_report": len(seen.not_in_agent),
        "accounts_not_compared": len(set(accounts) - seen.accounts),
    }
    rows = list(_sample(seen))
    if rows:
        sentence = (
            f"On {day} {number(len(seen.without_mono), 'connected call')} of {seen.calls} without a mono recording "
            f"({seen.unrecorded} not recorded at all), {number(len(seen.legs_without_stereo), 'agent leg')} of "
            f"{seen.legs} without a stereo one. Known to one report only: {number(len(seen.not_in_global), 'call')} "
            f"missing from Global Call Type Detail, {len(seen.not_in_agent)} from Agent Segment Metadata. Where "
            "recording was not switched on this is right; else run the date again, for rows and links come late."
        )
    else:
        sentence = f"{number(seen.calls, 'connected call')} and {number(seen.legs, 'agent leg')} of {day}: each has "
        sentence += "the recordings that the account has, and both reports know the same calls."
    if counts["accounts_not_compared"]:
        sentence += (
            f" {number(counts['accounts_not_compared'], 'account')} could not be compared: a report was not pulled."
        )
    doubtful = bool(rows) or counts["accounts_not_compared"] > 0
    return Finding(
        level=Level.doubtful if doubtful else Level.good,
        sentence=sentence,
        counts=counts,
        tables={"sample": Table(("matter", "account", "uii", "session"), rows)} if rows else {},
    )


def _sample(seen: Compared) -> Iterator[Row]:
    """Up to `SAMPLE` examples, those of the rarer kinds first in line so that none is crowded out."""
    kinds: list[list[Row]] = [
        [("not_in_global_report", *call, "") for call in seen.not_in_global[:SAMPLE]],
        [("not_in_agent_report", *call, "") for call in seen.not_in_agent[:SAMPLE]],
        [("without_mono", *call, "") for call in seen.without_mono[:SAMPLE]],
        [("without_stereo", *leg) for leg in seen.legs_without_stereo[:SAMPLE]],
    ]
    shown = 0
    for place in range(SAMPLE):
        for rows in kinds:
            if place < len(rows) and shown < SAMPLE:
                shown += 1
                yield rows[place]
