"""`make demo` and `make ui`, as processes: what they print, what they leave, how they stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.dagster.conftest import Dagster, back, clean_environment, in_its_own_session, until
from tests.servers.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(360)]
STATES = ("found", "pending", "archived", "missing", "rejected", "denied")


def environment(home: Path) -> dict[str, str]:
    """Its data in `home`, its servers on ports of its own."""
    return {
        **clean_environment(),
        "DEMO_HOME": str(home),
        "SANDBOX_PORT": str(free_port()),
        "SANDBOX_S3_PORT": str(free_port()),
        "UI_PORT": str(free_port()),
        "BROWSE_PORT": str(free_port()),
    }


def processes_of(session: int) -> dict[int, str]:
    """Process id -> command line of what is still there of the session, zombies aside."""
    shown = subprocess.run(["ps", "-eo", "sid=,pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(maxsplit=3) for line in shown.splitlines()]
    return {int(pid): args for sid, pid, stat, args in found if sid == str(session) and not stat.startswith("Z")}


def demo(home: Path, variables: dict[str, str]) -> str:
    """What one demo prints; it must end well and leave no process."""
    log = home.with_suffix(".log")
    log.unlink(missing_ok=True)
    with in_its_own_session([sys.executable, "-m", "pipelines.cli.main", "demo"], log, env=variables) as process:
        assert process.wait(150) == 0, log.read_text()[-3000:]
        assert processes_of(process.pid) == {}
    return log.read_text()


def summary(printed: str) -> dict[str, dict[str, int]]:
    """Date -> the counts of its line in the summary."""
    lines = re.findall(r"^(\d{4}-\d\d-\d\d) +([\d ]+?) +[\d.]+$", printed, re.MULTILINE)
    return {day: dict(zip(STATES, map(int, numbers.split()), strict=True)) for day, numbers in lines}


def test_the_demo_shows_two_dates_and_fetches_nothing_again_and_nothing_for_the_account_in_the_same_folder(
    tmp_path: Path,
) -> None:
    home = tmp_path / "demo"
    variables = environment(home)
    home.mkdir()
    (home / ".env").write_text("ARCHIVE_PREFIX=account/\nARCHIVE_BUCKET=of-the-account\nAWS_SESSION_TOKEN=another\n")
    first = demo(home, variables)
    assert "unknown: " not in first
    assert re.search(r"^ +\d+  pending   not_found: the source does not have it yet$", first, re.MULTILINE)
    counts = summary(first)
    bucket = home / "data" / "demo" / "s3" / "ringcx-archive" / "recordings"
    assert len(counts) == 2
    for count in counts.values():
        assert count["found"] == sum(count[state] for state in STATES[1:])
        assert count["archived"] > count["found"] / 2
    files = {file: file.stat().st_mtime_ns for file in bucket.rglob("*.WAV")}
    for day, count in counts.items():
        assert len([file for file in files if f"date={day}" in file.parts]) == count["archived"]

    second = demo(home, variables)
    assert re.findall(r" (\d+) archived now", second) == ["0", "0"]
    assert summary(second) == counts
    assert {file: file.stat().st_mtime_ns for file in bucket.rglob("*.WAV")} == files


def test_ctrl_c_ends_the_demo_with_what_was_stored_and_how_to_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "pipelines.cli.main", "demo"]
    with in_its_own_session(command, log, env=environment(tmp_path / "demo")) as process:
        until("the first recordings", lambda: "recordings done" in log.read_text(), seconds=150)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) == 130
        assert processes_of(process.pid) == {}
    sentence = r"Stopped after the run of \S+ had stored \d+ recordings?; nothing is lost. Continue with: make demo"
    assert re.fullmatch(sentence, log.read_text().splitlines()[-1])


@contextmanager
def ui(variables: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], Dagster]]:
    """The UI, once it answers."""
    command = [sys.executable, "-m", "pipelines.cli.main", "ui"]
    url = f"http://127.0.0.1:{variables['UI_PORT']}"
    with httpx.Client(trust_env=False, timeout=30) as http, in_its_own_session(command, log, env=variables) as process:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                return http.get(f"{url}/server_info").status_code == 200
            except httpx.TransportError:
                return False

        until("the UI", answers, seconds=90)
        assert "Find a call" in http.get(f"http://127.0.0.1:{variables['BROWSE_PORT']}/").text
        yield process, Dagster(url, Path(), None, None, variables, http=http)  # GraphQL alone


def test_a_ui_that_is_stopped_cancels_its_runs_says_what_they_stored_and_goes_on_with_them(tmp_path: Path) -> None:
    home, log = tmp_path / "ui", tmp_path / "log"
    variables = environment(home)
    day = back(4)
    bucket = home / "data" / "demo" / "s3" / "ringcx-archive" / "recordings"
    with ui(variables, log) as (process, dagster):
        run_id = dagster.launch(day)
        until("a recording in S3", lambda: list(bucket.rglob("*.WAV")), seconds=150)
        shown = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout
        (dagster_dev,) = (int(line.split()[0]) for line in shown.splitlines() if "dagster dev" in line)
        (page,) = (int(line.split()[0]) for line in shown.splitlines() if line.endswith(" browse"))
        assert processes_of(dagster_dev)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert processes_of(process.pid) == {}
        assert processes_of(dagster_dev) == {}
        assert processes_of(page) == {}
    _, ending = log.read_text().split("Stopping Dagster, which takes a few seconds.\n")
    stored = rf"the run of {day}, which had stored \d+ recordings?"
    how = r"start the UI again, and it runs their dates again"
    # rclone may have lines of its own before it, about the upload that was cut short.
    assert re.search(rf"^Stopped {stored}\. Nothing is lost: {how}\.\n\Z", ending, re.MULTILINE)
    assert "Traceback" not in ending

    with ui(variables, log) as (_, dagster):
        assert dagster.status(run_id) == "CANCELED"
        until("the run after it", lambda: dagster.runs_of(day)[1:], seconds=150)
        assert dagster.ended(dagster.runs_of(day)[1]["runId"]) == "SUCCESS"
