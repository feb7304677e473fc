"""Every promise, with everything going wrong at once. `benchmarks/chaos.py` plays it at full length."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.chaos import ChaosPlan, run
from sandbox.s3_faults import S3Faults


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_at_once_ends_complete_exact_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        variable for variable in os.environ if variable.startswith(("RINGCX_", "ARCHIVE_", "LEDGER_", "AWS_"))
    ]:
        monkeypatch.delenv(name)
    # Of S3's faults a hundredth each: boto3 waits half a second and more after a 503, in a run of hundreds of requests.
    s3 = S3Faults(slow_down=0.01, dropped=0.01, lost_answer=0.01)
    plan = ChaosPlan(seed=5, dates=2, calls_per_date=20, kills=2, server_error=0.1, cut_off=0.1, reset=0.1, s3=s3)
    notices: list[str] = []
    report = run(plan, tmp_path, notices.append)
    assert report.problems == []
    assert report.held == report.recordings > 50
    assert report.runs["killed"] == plan.kills
    assert report.ledger_reads > 20
    for fault in (
        "source: server_error",
        "source: reset",
        "source: cut_off",
        "source: expired token",
        "S3: 503 SlowDown",
        "S3: disk full",
    ):
        assert report.injected[fault], f"{fault} was never injected, so nothing was shown; {notices}"
