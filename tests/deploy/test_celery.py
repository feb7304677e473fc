"""The date is the unit, over machines that share nothing but PostgreSQL, the broker and S3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.broker import HOW_TO_GET_IT, is_installed
from sandbox.cluster import BackfillPlan, run
from sandbox.postgres import LocalPostgres

pytestmark = pytest.mark.skipif(not is_installed() and not os.environ.get("CI"), reason=HOW_TO_GET_IT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backfill_that_loses_a_worker_ends_complete_and_once_and_within_the_limits_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        variable
        for variable in os.environ
        if variable.startswith(("RINGCX_", "ARCHIVE_", "LEDGER_", "AWS_", "RATE_LIMIT"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    notices: list[str] = []
    plan = BackfillPlan(dates=4, timeout_s=240)
    with LocalPostgres() as postgres:
        report = run(plan, tmp_path, postgres, notices.append)
    assert report.problems == []
    assert report.held == report.recordings > plan.dates
    assert sum(report.violations.values()) == 0
    # One run was lost with its machine, and its date was run again; every other date took one run.
    assert report.runs == {"success": plan.dates, "failure": 1}, notices
    assert all(report.by_machine.values()), f"one worker got nothing to do, so nothing was shown; {notices}"
    assert report.noticed_s < 120
    # Of the lost run, what was in flight may have been sent before, and what it held was adopted.
    assert report.fetched_twice <= 8
