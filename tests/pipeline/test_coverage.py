"""Which reports of a date were pulled for the whole day: what the checks, the plan and `verify` build on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ledger.schema import PullRecord
from pipelines.ringcx.reports.columns import FULL_SOURCES, REPORTS, ReportName
from pipelines.settings import VerifySettings
from pipelines.steps.pull.coverage import Unpulled, unpulled

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
        size=0,
        sha256="",
        rows=0,
        new=0,
        changed=0,
        unchanged=0,
        vanished=0,
        with_link=0,
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
    for account in ACCOUNTS:
        own = [pull for pull in pulls if pull.account_id == account]
        whole = {one.report for one in own if one.period_start <= BOUNDS[0] and one.period_end >= BOUNDS[1]}
        if any(whole >= set(full) for full in FULL_SOURCES):
            continue
        for report in wanted.reports:
            if report not in whole:
                ends = [pull.period_end for pull in own if pull.report == report]
                expected.append(Unpulled(report, account, max(ends, default=None)))
    by_report = {name: [pull for pull in pulls if pull.report == name] for name in REPORTS}
    assert unpulled(by_report, DAY, wanted) == expected


def test_a_gap_says_how_far_the_report_was_pulled() -> None:
    pulls = {REPORTS[0]: [a_pull(REPORTS[0], ACCOUNTS[0], 0, 12)]}
    said = [str(gap) for gap in unpulled(pulls, DAY, settings_of("legacy", ACCOUNTS[:1]))]
    assert said == [
        "agent_segment_metadata of account 15300002 was pulled only up to 2026-11-18 12:00 UTC",
        "global_call_type_detail of account 15300002 was never pulled",
    ]
