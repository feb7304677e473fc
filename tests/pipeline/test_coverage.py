"""Which reports of a date were pulled for the whole day: what the checks, the plan and `verify` build on."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import AGENT, GLOBAL, INTERACTIONS, REPORTS, ReportName
from pipelines.ringcx.reports.requests import Answer, Period
from pipelines.ringcx.reports.tables import parse_report
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import Verdict, judge_date
from pipelines.steps.pull.coverage import unpulled
from pipelines.steps.pull.reports import pull_report
from tests.pulls import NO_ROWS

DAY = date(2026, 11, 18)
BEGIN = datetime(2026, 11, 18, tzinfo=UTC)
BOUNDS = (BEGIN, BEGIN + timedelta(days=1))
ACCOUNTS = ("15300002", "15300003", "0015")


def a_pull(report: ReportName, account_id: str, start: int, end: int) -> PullRecord:
    return PullRecord(
        report=report,
        day=DAY,
        account_id=account_id,
        period_start=BEGIN + timedelta(hours=start),
        period_end=BEGIN + timedelta(hours=end),
        pulled_at=BEGIN + timedelta(days=2),
        run_id="test",
        sha256="",
        **NO_ROWS,
    )


def settings_of(source: str, accounts: tuple[str, ...] = ACCOUNTS) -> VerifySettings:
    return VerifySettings.model_validate(
        {"archive_bucket": "bucket", "ringcx_account_ids": accounts, "ringcx_source": source}
    )


PULLS = st.lists(
    st.builds(
        a_pull,
        st.sampled_from(REPORTS),
        st.sampled_from(ACCOUNTS[1:]),
        st.sampled_from([-1, 0, 1]),
        st.sampled_from([12, 23, 24, 25]),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(pulls=PULLS, source=st.sampled_from(["legacy", "current", "both"]))
def test_a_gap_is_a_report_that_no_single_pull_covers_unless_another_full_source_does(
    pulls: list[PullRecord], source: str
) -> None:
    expected, wanted = [], settings_of(source)
    # The current API names no mono recording, which the setting `both` expects.
    full_sources = {AGENT, GLOBAL}, {GLOBAL, INTERACTIONS} if source == "both" else {INTERACTIONS}
    for account in ACCOUNTS:
        own = [pull for pull in pulls if pull.account_id == account]
        whole = {row.report for row in own if row.period_start <= BOUNDS[0] and row.period_end >= BOUNDS[1]}
        if any(whole >= full for full in full_sources):
            continue
        for report in wanted.reports:
            if report not in whole:
                ends = [pull.period_end for pull in own if pull.report == report]
                expected.append((report, account, max(ends, default=None)))
    by_report = {name: [pull for pull in pulls if pull.report == name] for name in REPORTS}
    assert [(gap.report, gap.account_id, gap.pulled_until) for gap in unpulled(by_report, DAY, wanted)] == expected


def test_a_gap_says_how_far_the_report_was_pulled() -> None:
    pulls = {REPORTS[0]: [a_pull(REPORTS[0], ACCOUNTS[0], 0, 12)]}
    gaps = [str(gap) for gap in unpulled(pulls, DAY, settings_of("legacy", ACCOUNTS[:1]))]
    assert gaps == [
        "agent_segment_metadata of account 15300002 was pulled only up to 2026-11-18 12:00 UTC",
        "global_call_type_detail of account 15300002 was never pulled",
    ]


@pytest.mark.parametrize(
    ("days", "rows", "is_known"), [([91], 0, True), ([92], 0, False), ([92], 1, True), ([2, 92], 0, True)]
)
def test_empty_reports_of_a_day_that_the_source_may_have_purged_leave_it_unknown(
    days: list[int], rows: int, is_known: bool
) -> None:
    pulls = {
        report: [
            replace(a_pull(report, ACCOUNTS[0], 0, 24), rows=rows, pulled_at=BEGIN + timedelta(days=day))
            for day in days
        ]
        for report in (AGENT, GLOBAL)
    }
    gaps = unpulled({INTERACTIONS: [], **pulls}, DAY, settings_of("legacy", ACCOUNTS[:1]))
    reason = "was empty, but so late that the source may have purged it (RINGCX_RETENTION_DAYS is 90)"
    sentences = [f"{report} of account {ACCOUNTS[0]} {reason}" for report in (AGENT, GLOBAL)]
    assert [str(gap) for gap in gaps] == ([] if is_known else sentences)


def test_rows_pulled_before_the_day_was_over_do_not_make_up_for_what_the_source_may_have_purged_since() -> None:
    noon, late = BEGIN + timedelta(hours=12), BEGIN + timedelta(days=92)
    pulls = {
        report: [
            replace(a_pull(report, ACCOUNTS[0], 0, 12), pulled_at=noon, rows=5),
            replace(a_pull(report, ACCOUNTS[0], 0, 24), pulled_at=late),
        ]
        for report in REPORTS
    }
    for source in ("legacy", "current", "both"):
        wanted = settings_of(source, ACCOUNTS[:1])
        assert [gap.report for gap in unpulled(pulls, DAY, wanted)] == list(wanted.reports)


def calls_of(begin: datetime, number: int, *, minutes: int = 3) -> bytes:
    """A Global Call Type Detail report of calls that begin evenly over a day from `begin`."""
    starts = [begin + timedelta(days=1) * n / number for n in range(number)]
    rows = [
        {
            "uii": f"{start - timedelta(hours=5):%Y%m%d%H%M%S}0132{n:012}",
            "callStartDts": f"{start:%Y-%m-%dT%H:%M:%S}.000+0000",
            "callEndDts": f"{start + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}.000+0000",
            "recordingUrl": "",
        }
        for n, start in enumerate(starts)
    ]
    return json.dumps(rows).encode()


def pulled(ledger: Ledger, body: bytes) -> PullRecord:
    """Pull a date's report from a source that answers with `body`, whatever it is asked for."""
    answer = Answer(parse_report("global_call_type_detail", io.BytesIO(body)), len(body), "")
    return pulled_from(lambda *_: answer, ledger, "global_call_type_detail")


def pulled_from(answer: Callable[..., Answer], ledger: Ledger, report: ReportName) -> PullRecord:
    source: Any = SimpleNamespace(pull=answer)
    return pull_report(
        ACCOUNTS[0],
        report=report,
        day=DAY,
        period=Period(*BOUNDS),
        source=source,
        ledger=ledger,
        run_id="test",
        clock=lambda: BEGIN + timedelta(days=2),
        log=logging.getLogger("test"),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(LocalFiles(tmp_path), clock=lambda: BEGIN + timedelta(days=2))
    found.append_pull(a_pull("agent_segment_metadata", ACCOUNTS[0], 0, 24))
    return found


@pytest.mark.parametrize("number", [1, 2, 7, 1000])
@pytest.mark.parametrize("days", [-30, -1, 1])
def test_a_report_with_the_calls_of_another_day_leaves_the_date_unknown_until_its_own_come(
    ledger: Ledger, number: int, days: int
) -> None:
    def judged() -> tuple[Verdict, str]:
        found = judge_date(ledger, None, DAY, settings_of("legacy", ACCOUNTS[:1]), now=BEGIN + timedelta(days=3))
        return found.verdict, found.sentence

    stale = calls_of(BEGIN + timedelta(days=days, hours=2 if days > 0 else 0), number)
    assert pulled(ledger, stale).of_another_time == number
    verdict, sentence = judged()
    assert verdict is Verdict.unknown
    assert f"had the calls of another day ({number:,} row" in sentence
    assert pulled(ledger, calls_of(BEGIN, number)).of_another_time == 0
    assert judged()[0] is Verdict.complete
    pulled(ledger, stale)
    assert judged()[0] is Verdict.complete  # what was pulled is kept


@pytest.mark.parametrize("day", [-1, 1])
def test_calls_about_midnight_do_not_make_another_days_report_this_days_own(ledger: Ledger, day: int) -> None:
    office = BEGIN + timedelta(days=day, hours=17)  # 09:00 to 17:00 in Los Angeles: the last hour is the next day's
    rows = [row for n in range(8) for row in json.loads(calls_of(office + timedelta(hours=n), 1))]
    assert pulled(ledger, json.dumps(rows).encode()).of_another_time == 8


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        calls_of(BEGIN, 40),
        calls_of(BEGIN - timedelta(minutes=30), 1, minutes=60),
        calls_of(BEGIN - timedelta(hours=9), 1, minutes=600),
        b'[{"uii": "no time", "callStartDts": "yesterday", "recordingUrl": ""}]',
        b'[{"uii": null, "callStartDts": "0001-01-01T00:00:00.000+0000", "recordingUrl": ""}]',
    ],
    ids=["none", "own", "over midnight", "long", "no time", "before all time"],
)
def test_an_answer_is_of_another_time_only_if_its_calls_say_so(ledger: Ledger, body: bytes) -> None:
    assert pulled(ledger, body).of_another_time == 0


@pytest.mark.parametrize(
    ("inbound", "outbound", "empty_parts"), [(2, 2, 0), (0, 2, 1), (2, 0, 1), (0, 0, 2), (3, 3, 1)]
)
def test_a_pull_says_how_many_parts_of_its_report_brought_no_rows_of_their_own(
    ledger: Ledger, inbound: int, outbound: int, empty_parts: int
) -> None:
    def answer(_account: str, _period: Period, part: str) -> Answer:
        number = inbound if part == "inbound" else outbound
        name = "both" if number == 3 else part  # a source that answers both requests alike
        body = "UII,Session ID,Segment Recording URL\n" + "".join(f"{name}{n},2,\n" for n in range(number))
        with tempfile.TemporaryFile() as file:
            file.write(body.encode())
            file.flush()
            rows = parse_report("agent_segment_metadata", file)
        return Answer(rows, len(body), hashlib.sha256(body.encode()).hexdigest())

    assert pulled_from(answer, ledger, "agent_segment_metadata").empty_parts == empty_parts
