"""The two reports of a date, call by call: the same answers as a plain walk over their rows gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import AGENT, EVENTS, GLOBAL, INTERACTIONS, ReportName
from pipelines.ringcx.reports.times import uii_time
from pipelines.settings import VerifySettings
from pipelines.steps.check.report_agreement import mono_and_stereo_agree
from pipelines.steps.check.result import Level
from pipelines.steps.check.verdict import Verdict, judge_date
from tests.pulls import NO_ROWS

DAY = date(2026, 11, 18)
BEGIN = datetime(2026, 11, 18, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=30)
ACCOUNTS = ("15300002", "15300003")
# Of this date, of the one before, too young to be judged, and one that no time can be read from.
UIIS = ("20261118050000000001", "20261117000000000002", "20261119003000000003", "none")

GLOBAL_ROW = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(ACCOUNTS),
        "uii": st.sampled_from([*UIIS, None]),
        "recording_url": st.sampled_from(["https://a/b.WAV", None]),
        "connected_duration": st.sampled_from(["00:00:00", "00:01:00", "soon", None]),
        "connected_dts": st.sampled_from(["11/18/2026 05:00:00", "11/20/2026 00:00:00", None]),
        "connected_route": st.sampled_from(["AGENT", "Agent group", "VOICEMAIL", None]),
        "call_start_dts": st.sampled_from(["2026-11-18 04:59:00", "2026-11-17T04:00:00Z", None]),
    }
)
AGENT_ROW = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(ACCOUNTS),
        "uii": st.sampled_from([*UIIS, None]),
        "segment_recording_url": st.sampled_from(["https://a/c.WAV", None]),
        "session_id": st.sampled_from(["2", "3", None]),
        "start_dts": st.sampled_from(["11/18/2026 05:00:00", "11/17/2026 05:00:00", "?", None]),
    }
)
Line = Mapping[str, str | None]


def settings_of(accounts: Sequence[str], **changed: Any) -> VerifySettings:
    return VerifySettings(archive_bucket="archive", ringcx_account_ids=tuple(accounts), **changed)


def a_pull(report: ReportName) -> PullRecord:
    return PullRecord(
        report=report,
        day=DAY,
        account_id=ACCOUNTS[0],
        period_start=BEGIN,
        period_end=BEGIN + timedelta(days=1),
        pulled_at=NOW,
        run_id="test",
        sha256="",
        **NO_ROWS,
    )


def stored(folder: Path, rows: Mapping[ReportName, Sequence[Line]], pulled: Mapping[ReportName, set[str]]) -> Ledger:
    ledger = Ledger(LocalFiles(folder), clock=lambda: NOW)
    for report, lines in rows.items():
        for account in pulled[report]:
            own = [row for row in lines if row["account_id"] == account]
            table = pa.Table.from_pylist(
                [{**line, "row_key": str(index), "row_hash": "h"} for index, line in enumerate(own)],
                schema=pa.schema([(name, pa.string()) for name in ("row_key", "row_hash", *(own[0] if own else ()))]),
            ).drop_columns(["account_id"] if own else [])
            ledger.append_rows(report, DAY, table, account_id=account, pulled_at=NOW, run_id="test")
            counts = dict.fromkeys(("size", "new", "changed", "unchanged", "vanished"), 0)
            ledger.append_pull(
                PullRecord(
                    report=report,
                    day=DAY,
                    account_id=account,
                    period_start=BEGIN,
                    period_end=BEGIN + timedelta(days=1),
                    pulled_at=NOW,
                    run_id="test",
                    sha256="",
                    rows=len(own),
                    with_link=sum(any("https" in (value or "") for value in row.values()) for row in own),
                    **counts,
                )
            )
    return ledger


TIMES = {
    "11/18/2026 05:00:00": BEGIN + timedelta(hours=5),
    "11/17/2026 05:00:00": BEGIN - timedelta(hours=19),
    "11/20/2026 00:00:00": BEGIN + timedelta(days=2),
    "2026-11-18 04:59:00": BEGIN + timedelta(hours=4, minutes=59),
    "2026-11-17T04:00:00Z": BEGIN - timedelta(hours=20),
    # US/Eastern, five hours behind UTC.
    UIIS[0]: BEGIN + timedelta(hours=10),
    UIIS[1]: BEGIN - timedelta(hours=19),
    UIIS[2]: BEGIN + timedelta(hours=29, minutes=30),
}


def walked(rows: Mapping[ReportName, Sequence[Line]], pulled: Mapping[ReportName, set[str]]) -> dict[str, int]:
    """The counts of the check, by a walk over the rows in plain Python."""
    both = pulled[AGENT] & pulled[GLOBAL]
    known_calls, mono, connected = set(), set(), set()
    stereo_of: dict[tuple[str | None, str | None], bool] = defaultdict(bool)
    reached, began = defaultdict(list), defaultdict(list)
    links = {
        report: {row["account_id"] for row in rows[report] if any("https" in (v or "") for v in row.values())}
        for report in rows
    }
    for row in rows[GLOBAL]:
        call = (row["account_id"], row["uii"])
        if row["account_id"] not in both or not row["uii"]:
            continue
        known_calls.add(call)
        if row["recording_url"]:
            mono.add(call)
        if row["connected_dts"] or row["connected_duration"] == "00:01:00":
            connected.add(call)
            if row["connected_route"] != "VOICEMAIL":
                reached[call].append(TIMES.get(row["connected_dts"] or "") or TIMES.get(row["call_start_dts"] or ""))
    for row in rows[AGENT]:
        if row["account_id"] in both and row["uii"]:
            leg = (row["account_id"], row["uii"], row["session_id"] or "")
            stereo_of[leg] |= bool(row["segment_recording_url"])
            began[leg[:2]].append(TIMES.get(row["start_dts"] or ""))

    def first(times: Sequence[datetime | None]) -> datetime | None:
        return min((at for at in times if at), default=None)

    def began_at(call: tuple[str, str]) -> datetime | None:
        return TIMES.get(call[1]) or first(began[call])

    def is_of_day(at: datetime | None) -> bool:
        return at is None or BEGIN <= at < BEGIN + timedelta(days=1)

    def settled(call: tuple[str, str]) -> bool:
        at = TIMES.get(call[1]) or first(reached.get(call, ())) or first(began.get(call, ()))
        return at is None or at <= NOW - timedelta(hours=1)

    legs = {leg[:2] for leg in stereo_of}
    known = connected | {call for call in legs if call in known_calls or is_of_day(began_at(call))}
    without_mono = {call for call in known - mono if call[0] in links[GLOBAL] and settled(call)}
    heard = {leg[:2] for leg, recorded in stereo_of.items() if recorded}
    return {
        "calls": len(known),
        "agent_legs": len(stereo_of),
        "calls_without_mono": len(without_mono),
        "calls_without_any_recording": len(without_mono - heard),
        "legs_without_stereo": sum(
            not recorded and leg[0] in links[AGENT] and settled(leg[:2]) for leg, recorded in stereo_of.items()
        ),
        "calls_not_in_global_report": sum(is_of_day(began_at(call)) and settled(call) for call in legs - known_calls),
        "calls_not_in_agent_report": sum(
            is_of_day(first(times)) and settled(call) for call, times in reached.items() if call not in legs
        ),
        "accounts_not_compared": len(set(ACCOUNTS) - both),
    }


@settings(deadline=None, max_examples=60, phases=[Phase.generate])
@given(
    calls=st.lists(GLOBAL_ROW, max_size=12),
    legs=st.lists(AGENT_ROW, max_size=12),
    lacking=st.sampled_from([(), (AGENT, ACCOUNTS[1]), (GLOBAL, ACCOUNTS[0])]),
)
def test_the_counts_are_those_of_a_walk_over_the_rows(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Line], legs: list[Line], lacking: tuple[ReportName, str]
) -> None:
    pulled = {AGENT: set(ACCOUNTS), GLOBAL: set(ACCOUNTS)}
    if lacking:
        pulled[lacking[0]].discard(lacking[1])
    rows = {AGENT: legs, GLOBAL: calls}
    ledger = stored(tmp_path_factory.mktemp("ledger"), rows, pulled)
    found = mono_and_stereo_agree(ledger, DAY, settings_of(ACCOUNTS), now=NOW)
    assert dict(found.counts) == walked(rows, pulled)
    missing = sum(value for name, value in found.counts.items() if "_not_in_" in name or "without" in name)
    assert bool(len(found.lists["sample"])) == bool(missing)


def test_one_call_whose_uii_the_reports_write_in_different_letter_case_is_one_call(tmp_path: Path) -> None:
    uii = "20261118050000000000ABCDEF01"
    call = {"account_id": ACCOUNTS[0], "recording_url": "https://a/b.WAV", "connected_dts": "11/18/2026 05:00:00"}
    leg = {"account_id": ACCOUNTS[0], "segment_recording_url": "https://a/c.WAV", "session_id": "2"}
    rows = {
        AGENT: [{**leg, "uii": uii, "start_dts": "11/18/2026 05:00:00"}],
        GLOBAL: [{**call, "uii": uii.lower(), "connected_duration": "00:01:00", "call_start_dts": None}],
    }
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    found = mono_and_stereo_agree(ledger, DAY, settings_of(ACCOUNTS[:1]), now=NOW)
    assert (found.level, found.counts["calls"]) == (Level.ok, 1)


EMPTY_DAY = ["20261118050000000001", "20261118060000000002"]


def full(report: ReportName, uiis: Sequence[str]) -> list[Line]:
    if report == AGENT:
        return [
            {
                "account_id": ACCOUNTS[0],
                "uii": uii,
                "segment_recording_url": "https://a/c.WAV",
                "session_id": "2",
                "start_dts": None,
            }
            for uii in uiis
        ]
    return [
        {
            "account_id": ACCOUNTS[0],
            "uii": uii,
            "recording_url": "https://a/b.WAV",
            "connected_duration": "00:01:00",
            "connected_dts": None,
            "connected_route": "AGENT",
            "call_start_dts": None,
        }
        for uii in uiis
    ]


@pytest.mark.parametrize(("whole", "empty"), [(AGENT, GLOBAL), (GLOBAL, AGENT)])
def test_a_report_that_comes_empty_while_the_other_has_calls_leaves_the_date_unknown(
    tmp_path: Path, whole: ReportName, empty: ReportName
) -> None:
    rows = {whole: full(whole, EMPTY_DAY), empty: []}
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    found = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW)
    assert (found.verdict, found.expected) == (Verdict.unknown, None)
    assert found.sentence.startswith(
        f"It is unknown what 2026-11-18 should hold: {empty} of account {ACCOUNTS[0]} was empty, although "
        "the other report has 2 calls of that day. Run the date."
    )


@pytest.mark.parametrize(("whole", "empty"), [(AGENT, GLOBAL), (GLOBAL, AGENT)])
def test_a_report_that_names_no_call_does_not_hide_that_the_other_came_empty(
    tmp_path: Path, whole: ReportName, empty: ReportName
) -> None:
    rows = {whole: [{**row, "uii": None} for row in full(whole, EMPTY_DAY)], empty: []}
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    assert judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).verdict is Verdict.unknown


def with_events(ledger: Ledger, uiis: Sequence[str], link: str | None = "https://a/b.WAV") -> None:
    lines = [
        {
            "row_key": uii,
            "row_hash": "h",
            "uii": uii,
            "recording_url": link,
            "call_start_dts": str(uii_time(uii)),
        }
        for uii in uiis
    ]
    schema = pa.schema([(name, pa.string()) for name in lines[0]])
    rows = pa.Table.from_pylist(lines, schema=schema)
    ledger.append_rows(EVENTS, DAY, rows, account_id=ACCOUNTS[0], pulled_at=NOW, run_id="test")


@pytest.mark.parametrize("reports", [(AGENT, GLOBAL), (INTERACTIONS,), (AGENT, GLOBAL, INTERACTIONS)])
def test_a_date_of_which_every_report_came_empty_is_unknown_while_events_name_recorded_calls(
    tmp_path: Path, reports: Sequence[ReportName]
) -> None:
    ledger = stored(tmp_path, dict.fromkeys(reports, ()), {report: {ACCOUNTS[0]} for report in reports})
    with_events(ledger, EMPTY_DAY)
    found = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW)
    assert (found.verdict, found.expected) == (Verdict.unknown, None)
    assert [gap.report for gap in found.not_pulled] == list(reports)
    assert (
        f"{reports[0]} of account {ACCOUNTS[0]} was empty, although End Call Events name 2 calls of that day"
    ) in found.sentence


def test_events_without_a_recording_around_midnight_or_named_before_leave_no_empty_date_unknown(
    tmp_path: Path,
) -> None:
    pulled = {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}}
    ledger = stored(tmp_path, {AGENT: full(AGENT, EMPTY_DAY), GLOBAL: full(GLOBAL, EMPTY_DAY)}, pulled)
    stored(tmp_path, {AGENT: [], GLOBAL: []}, pulled)  # the newest pull
    with_events(ledger, EMPTY_DAY)
    for link in (None, "null", " ", ""):
        with_events(ledger, ["20261118050000000006"], link=link)
    with_events(ledger, ["20261117000000000003", "20261118183000000004"])
    assert not judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).not_pulled


@pytest.mark.parametrize(
    ("source", "route", "is_known"), [("IVR", None, True), ("GATE", None, False), ("IVR", "AGENT", False)]
)
def test_an_account_whose_calls_only_machines_take_needs_no_report_of_agents(
    tmp_path: Path, source: str, route: str | None, is_known: bool
) -> None:
    calls = [{**row, "connected_route": route, "source_type": source} for row in full(GLOBAL, EMPTY_DAY)]
    ledger = stored(tmp_path, {AGENT: [], GLOBAL: calls}, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    assert (not judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).not_pulled) is is_known


def directed(calls: Mapping[str, str], route: str = "AGENT") -> list[Line]:
    """Rows of calls (UII -> the source's type) in the Global Call Type Detail."""
    rows = full(GLOBAL, list(calls))
    return [{**row, "connected_route": route, "source_type": calls[row["uii"] or ""]} for row in rows]


@pytest.mark.parametrize(
    ("types", "route", "empty_parts", "is_known"),
    [
        (("GATE", "CAMPAIGN"), "AGENT", 1, False),
        (("GATE", "CAMPAIGN"), "AGENT", 0, True),
        (("GATE", "GATE"), "AGENT", 1, True),  # the part that came empty is the other direction's
        (("GATE", "IVR"), "AGENT", 1, True),
        (("GATE", "CAMPAIGN"), "", 1, True),  # as of a campaign that plays messages
    ],
)
def test_a_report_of_agents_that_came_empty_for_one_direction_alone_leaves_the_date_unknown(
    tmp_path: Path, types: tuple[str, str], route: str, empty_parts: int, is_known: bool
) -> None:
    rows = {AGENT: full(AGENT, EMPTY_DAY[:1]), GLOBAL: directed(dict(zip(EMPTY_DAY, types, strict=True)), route)}
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    ledger.append_pull(replace(a_pull(AGENT), pulled_at=NOW + timedelta(minutes=1), rows=1, empty_parts=empty_parts))
    gaps = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW + timedelta(hours=1)).not_pulled
    sentence = "was empty for outbound calls, although the other report has 1 call of that day"
    assert [str(gap) for gap in gaps] == ([] if is_known else [f"{AGENT} of account {ACCOUNTS[0]} {sentence}"])


def test_a_call_from_a_campaign_to_a_queue_does_not_hide_that_a_direction_came_empty(tmp_path: Path) -> None:
    calls = directed(dict(zip(EMPTY_DAY, ("GATE", "CAMPAIGN"), strict=True)))
    calls += directed({EMPTY_DAY[0]: "CAMPAIGN"})
    rows = {AGENT: full(AGENT, EMPTY_DAY[:1]), GLOBAL: calls}
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    ledger.append_pull(replace(a_pull(AGENT), pulled_at=NOW + timedelta(minutes=1), rows=1, empty_parts=1))
    gaps = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW + timedelta(hours=1)).not_pulled
    assert ["outbound calls" in str(gap) for gap in gaps] == [True]


@pytest.mark.parametrize(("minutes", "verdict"), [(6, Verdict.unknown), (59, Verdict.unknown), (60, Verdict.complete)])
def test_reports_pulled_before_the_last_calls_of_the_day_are_in_them_leave_the_date_unknown(
    tmp_path: Path, minutes: int, verdict: Verdict
) -> None:
    ledger = stored(tmp_path, {AGENT: [], GLOBAL: []}, {AGENT: set(), GLOBAL: set()})
    for report in (AGENT, GLOBAL):
        ledger.append_pull(replace(a_pull(report), pulled_at=BEGIN + timedelta(days=1, minutes=minutes)))
    found = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW)
    assert found.verdict is verdict
    if minutes == 6:
        assert "was last pulled at 2026-11-19 00:06 UTC, possibly before the day's last calls" in found.sentence
        early = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=BEGIN + timedelta(days=1, minutes=6))
        assert not early.is_over
        assert "Run the date" not in early.sentence


@pytest.mark.parametrize("report", [AGENT, GLOBAL, INTERACTIONS])
def test_a_date_whose_rows_are_gone_from_the_ledger_is_unknown_and_says_so(tmp_path: Path, report: ReportName) -> None:
    rows = {report: full(AGENT if report == AGENT else GLOBAL, EMPTY_DAY)}
    ledger = stored(tmp_path, rows, {report: {ACCOUNTS[0]}})
    for new, changed in ((2, 0), (0, 2)):  # the parts of the second pull, with the same rows, are gone
        ledger.append_pull(replace(a_pull(report), rows=2, new=new, changed=changed))
    if report == INTERACTIONS:  # of which a pull counts what an earlier one took, too
        assert judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).verdict is not Verdict.unknown
        ledger.append_pull(replace(a_pull(report), rows=4, new=2, changed=2))
    found = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW)
    assert (found.verdict, found.expected) == (Verdict.unknown, None)
    assert f"the ledger has 2 of at least 4 lines that the pulls of {report} appended for {DAY}" in found.sentence


def test_a_date_is_known_again_once_its_report_was_pulled_after_a_part_was_taken_out_of_the_ledger(
    tmp_path: Path,
) -> None:
    calls = {AGENT: full(AGENT, EMPTY_DAY), GLOBAL: full(GLOBAL, EMPTY_DAY)}
    pulled = {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}}
    ledger = stored(tmp_path, calls, pulled)

    def pull_again(new: int, unchanged: int) -> Verdict:
        for report in (AGENT, GLOBAL):
            ledger.append_pull(replace(a_pull(report), rows=2, new=new, unchanged=unchanged))
        return judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).verdict

    assert pull_again(new=2, unchanged=0) is not Verdict.unknown
    for part in tmp_path.glob("report_rows/**/*.parquet"):
        part.unlink()
    assert pull_again(new=0, unchanged=2) is Verdict.unknown, "the pull was made before the parts were gone"
    stored(tmp_path, calls, pulled)
    assert pull_again(new=2, unchanged=0) is not Verdict.unknown


@pytest.mark.parametrize(("left", "brought"), [(0, 3), (3, 4), (3, 3), (7, 7), (3, 0)])
def test_a_pull_that_does_not_bring_back_all_rows_that_are_gone_leaves_the_date_unknown_and_a_full_one_does_not(
    tmp_path: Path, left: int, brought: int
) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOW)
    uiis = [f"2026111705000000000{index}" for index in range(8)]

    def append(uiis: Sequence[str]) -> None:
        for report in (AGENT, GLOBAL):
            lines = [{"row_key": uii, "row_hash": "h", "uii": uii} for uii in uiis]
            schema = pa.schema([(name, pa.string()) for name in ("row_key", "row_hash", "uii")])
            rows = pa.Table.from_pylist(lines, schema=schema)
            ledger.append_rows(report, DAY, rows, account_id=ACCOUNTS[0], pulled_at=NOW, run_id="test")

    def pull(number: int, **counts: int) -> Verdict:
        for report in (AGENT, GLOBAL):
            ledger.append_pull(replace(a_pull(report), pulled_at=NOW + timedelta(minutes=number), **counts))
        return judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW + timedelta(hours=1)).verdict

    append(uiis)
    assert pull(0, rows=8, new=8) is not Verdict.unknown
    for part in tmp_path.glob("report_rows/**/*.parquet"):
        part.unlink()
    append(uiis[:left])
    append(uiis[left:brought])
    there = max(left, brought)
    counts = {"unchanged": min(left, brought), "vanished": max(0, left - brought), "new": there - left}
    assert pull(1, rows=brought, **counts) is Verdict.unknown
    assert pull(2, rows=brought, unchanged=brought, vanished=there - brought) is Verdict.unknown
    append(uiis[there:])
    assert pull(3, rows=8, unchanged=there, new=8 - there) is not Verdict.unknown
    assert pull(4, rows=8, unchanged=8) is not Verdict.unknown


@pytest.mark.parametrize(
    "rows",
    [
        {AGENT: [], GLOBAL: []},
        {AGENT: full(AGENT, EMPTY_DAY), GLOBAL: full(GLOBAL, EMPTY_DAY[:1])},
        # Of the date before, and of the last hour by UTC, which the other report may date on the next day
        {AGENT: full(AGENT, ["20261117000000000003", "20261118183000000004"]), GLOBAL: []},
        # Taken just after midnight: the agent's leg may have begun before it, with the call
        {GLOBAL: [{**full(GLOBAL, ["20261117185800000005"])[0], "connected_dts": "11/18/2026 00:00:05"}], AGENT: []},
    ],
)
def test_a_quiet_day_and_calls_around_midnight_leave_no_date_unknown(
    tmp_path: Path, rows: Mapping[ReportName, Sequence[Line]]
) -> None:
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    assert not judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).not_pulled


@pytest.mark.parametrize(
    ("rows", "hours", "verdict"), [(0, 24, Verdict.unknown), (5, 10, Verdict.unknown), (5, 24, Verdict.gaps)]
)
def test_an_empty_report_is_made_up_for_only_by_interactions_of_the_whole_day_that_came_with_rows(
    tmp_path: Path, rows: int, hours: int, verdict: Verdict
) -> None:
    ledger = stored(
        tmp_path, {AGENT: full(AGENT, EMPTY_DAY), GLOBAL: []}, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}}
    )
    interactions = pa.table({name: pa.array(map(str, range(rows)), pa.string()) for name in ("row_key", "row_hash")})
    ledger.append_rows(INTERACTIONS, DAY, interactions, account_id=ACCOUNTS[0], pulled_at=NOW, run_id="test")
    ledger.append_pull(replace(a_pull(INTERACTIONS), rows=rows, period_end=BEGIN + timedelta(hours=hours)))
    assert judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1]), now=NOW).verdict is verdict


@pytest.mark.parametrize(
    ("source", "empty", "is_known"),
    [("both", GLOBAL, False), ("both", AGENT, True), ("current", GLOBAL, True), ("legacy", GLOBAL, True)],
)
def test_interactions_do_not_make_up_for_the_mono_recordings_that_an_empty_report_of_calls_would_name_to_both(
    tmp_path: Path, source: str, empty: ReportName, is_known: bool
) -> None:
    rows = {AGENT: full(AGENT, EMPTY_DAY), GLOBAL: full(GLOBAL, EMPTY_DAY), empty: []}
    ledger = stored(tmp_path, rows, {AGENT: {ACCOUNTS[0]}, GLOBAL: {ACCOUNTS[0]}})
    ledger.append_pull(replace(a_pull(INTERACTIONS), rows=5))
    found = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1], ringcx_source=source), now=NOW)
    assert (not found.not_pulled) is is_known


@pytest.mark.parametrize(
    ("source", "reports", "hour", "has_recording", "is_known"),
    [
        ("both", (AGENT, GLOBAL), 5, "true", False),
        ("both", (GLOBAL,), 5, "true", False),  # the report of agents was refused
        ("both", (AGENT, GLOBAL), 5, "false", True),
        ("both", (AGENT, GLOBAL), -1, "true", True),  # the reports may date these calls otherwise
        ("both", (AGENT, GLOBAL), 23, "true", True),
        ("current", (AGENT, GLOBAL), 5, "true", True),
    ],
)
def test_legacy_reports_without_any_row_are_no_quiet_day_to_both_if_interactions_have_recorded_calls(
    tmp_path: Path, *, source: str, reports: Sequence[ReportName], hour: int, has_recording: str, is_known: bool
) -> None:
    row = {"account_id": ACCOUNTS[0], "interaction_id": "a", "has_recording": has_recording}
    row |= {"dialog_id": "d", "segment_id": "s", "segment_start_time_ms": str(BEGIN + timedelta(hours=hour))}
    rows: dict[ReportName, Sequence[Line]] = {INTERACTIONS: [row], **dict.fromkeys(reports, ())}
    ledger = stored(tmp_path, rows, {report: {ACCOUNTS[0]} for report in rows})
    ledger.append_pull(replace(a_pull(INTERACTIONS), pulled_at=NOW + timedelta(minutes=1), rows=1, with_link=1))
    gaps = judge_date(ledger, None, DAY, settings_of(ACCOUNTS[:1], ringcx_source=source), now=NOW).not_pulled
    sentence = "was empty, although interaction metadata has 1 call of that day"
    assert [str(gap) for gap in gaps] == ([] if is_known else [f"{GLOBAL} of account {ACCOUNTS[0]} {sentence}"])
