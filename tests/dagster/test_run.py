"""`ringcx-archive run` next to a Dagster UI and daemon: the same history, Ctrl-C, Terminate."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from sandbox.faults import Faults, Where
from sandbox.server import RunningSandbox
from tests.dagster.conftest import (
    Dagster,
    assert_without_a_trace_of_its_work,
    back,
    in_its_own_session,
    slow,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def run(dagster: Dagster, log: Path, *days: date) -> Iterator[subprocess.Popen[bytes]]:
    """The command for these dates, where the UI's history is."""
    command = [sys.executable, "-m", "pipelines.cli.main", "run", *map(str, days)]
    with in_its_own_session(command, log, cwd=dagster.home, env=dagster.variables) as process:
        yield process


def test_a_run_is_one_of_the_ui_and_ends_with_the_verdict_of_its_date(
    dagster: Dagster, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    day = back(30)
    with run(dagster, tmp_path / "log", day) as process:
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    output = (tmp_path / "log").read_text()
    (recorded,) = dagster.runs_of(day)
    assert recorded["status"] == "SUCCESS"
    assert recorded["tags"]["dagster/code_location"] == "ringcx_archive"
    assert recorded in dagster.runs(**{".dagster__repository": "__repository__@ringcx_archive"})
    assert dagster.held(day) == dagster.truth(day)
    assert re.search(rf"^{day}  recordings  +\d+ archived now, 0 pending, ", output, re.MULTILINE)
    assert re.search(rf"^{day}  complete: All \d+ recordings expected for {day} are archived\.$", output, re.MULTILINE)
    assert "\033" not in output


def test_a_run_that_fails_says_why_and_the_sensor_comes_back_for_it_as_for_one_of_the_ui(
    dagster: Dagster, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    day = back(34)
    sandbox.set_faults(Faults(report_html_200=Where(paths=("global_call_type_detail",))))
    with run(dagster, tmp_path / "log", day) as process:
        assert process.wait(300) == 1
    output = (tmp_path / "log").read_text()
    assert re.search(rf"^{day}  global_call_type_detail  FAILED: .*is not the whole report", output, re.MULTILINE)
    assert re.search(rf"^{day}  the run FAILED; see its page in the Dagster UI, or .*$", output, re.MULTILINE)
    assert re.search(rf"^{day}  unknown: ", output.splitlines()[-1])
    assert "Traceback" not in output
    dagster.switch("archive_despite_failed_report", on=True)  # now: it looks at once, and then every 30 s
    try:
        until("the sensor's run", lambda: dagster.runs_of(day)[1:], seconds=150)
        assert dagster.ended(dagster.runs_of(day)[1]["runId"]) == "SUCCESS"
        assert dagster.held(day)
    finally:
        dagster.switch("archive_despite_failed_report", on=False)


def test_ctrl_c_and_terminate_cancel_the_run_and_lose_nothing(
    dagster: Dagster, sandbox: RunningSandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    day, sensor = back(32), "pending_recordings"
    dagster.switch(sensor, on=False)  # it would go on with the date
    request.addfinalizer(partial(dagster.switch, sensor, on=True))
    for how in ("ctrl_c", "terminate"):
        sandbox.set_faults(slow(dagster, day))
        before = len(dagster.held(day))
        with run(dagster, tmp_path / how, day) as process:
            until("a recording in S3", lambda before=before: len(dagster.held(day)) > before, seconds=300)
            run_id = dagster.runs_of(day)[-1]["runId"]
            if how == "ctrl_c":
                process.send_signal(signal.SIGINT)
            else:
                ask = "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on Error { message } } }"
                dagster.ask(ask, id=run_id)
            assert process.wait(60) == 130
        assert dagster.status(run_id) == "CANCELED"
        assert_without_a_trace_of_its_work(dagster.errors(run_id))
        output = (tmp_path / how).read_text()
        last = rf"Stopped after the run of {day} had stored \d+ recordings?; nothing is lost. Continue with: "
        assert re.fullmatch(f"{last}ringcx-archive run {day}", output.splitlines()[-1])
        assert "Traceback" not in output
    sandbox.set_faults(Faults())
    kept = dagster.held(day)
    with run(dagster, tmp_path / "log", day) as process:
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
    assert dagster.held(day) == dagster.truth(day)
    sent = dagster.fetched(day)
    assert {name: sent[name] for name in kept} == dict.fromkeys(kept, 1)
