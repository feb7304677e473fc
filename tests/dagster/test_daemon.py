"""What the daemon does with nobody looking: backfills, sensors, terminations, killed runs."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import pairwise
from typing import Any

import pytest

from sandbox.faults import Faults, Where
from sandbox.server import RunningSandbox
from tests.dagster.conftest import Dagster, assert_without_a_trace_of_its_work, back, slow, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(360)]  # the daemon's own rhythms are 5, 30 and 60 s
DAYS = [back(14), back(13), back(12)]


@pytest.fixture(scope="module")
def backfill(dagster: Dagster) -> tuple[str, str]:
    """A backfill of `DAYS`, and a run of its first date that somebody asks for at the same moment.

    The daemon looks for backfills every 30 s: it is asked for first, and looked at by the last test.
    """
    shown = dagster.ask("{ assetNodes { isMaterializable assetKey { path } } }")
    launched = dagster.ask(
        "mutation ($of: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $of) {"
        " __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }",
        of={
            "assetSelection": [node["assetKey"] for node in shown if node["isMaterializable"]],
            "partitionNames": [day.isoformat() for day in DAYS],
        },
    )
    return launched["backfillId"], dagster.launch(DAYS[0])


@pytest.mark.usefixtures("backfill")
def test_what_runs_by_itself_is_switched_on_from_the_start(dagster: Dagster) -> None:
    expected = {
        "daily_archive": "RUNNING",
        "intraday_archive": "STOPPED",
        "pending_recordings": "RUNNING",
        "archive_despite_failed_report": "RUNNING",
    }
    assert expected.items() <= dagster.at_start.items()


def test_a_terminated_run_ends_within_seconds_and_the_next_one_takes_up_the_rest(
    dagster: Dagster, sandbox: RunningSandbox
) -> None:
    day = back(18)
    sandbox.set_faults(slow(dagster, day))
    run_id = dagster.launch(day)
    until("a first recording in S3", lambda: dagster.held(day), seconds=120)
    asked_at = time.monotonic()
    dagster.ask(
        "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on Error { message } } }", id=run_id
    )
    assert dagster.ended(run_id) == "CANCELED"
    assert time.monotonic() - asked_at < 15
    assert_without_a_trace_of_its_work(dagster.errors(run_id))
    kept = dagster.held(day)
    assert 0 < len(kept) < len(dagster.truth(day))
    assert kept.items() <= dagster.truth(day).items()

    sandbox.set_faults(Faults())
    assert dagster.ended(dagster.launch(day)) == "SUCCESS"
    assert dagster.held(day) == dagster.truth(day)
    sent = dagster.fetched(day)
    assert {name: sent[name] for name in kept} == dict.fromkeys(kept, 1)


def test_a_run_whose_process_is_killed_is_run_again_and_ends_complete(
    dagster: Dagster, sandbox: RunningSandbox
) -> None:
    day = back(20)
    sandbox.set_faults(slow(dagster, day))
    run_id = dagster.launch(day)
    until("a first recording in S3", lambda: dagster.held(day), seconds=120)
    os.kill(worker(dagster, run_id), signal.SIGKILL)
    sandbox.set_faults(Faults())
    kept = dagster.held(day)
    assert dagster.ended(run_id) == "FAILURE"
    again = until("the run after it", lambda: dagster.runs_of(day)[1:], seconds=120)
    assert [run["rootRunId"] for run in again] == [run_id]
    assert dagster.ended(again[0]["runId"]) == "SUCCESS"
    assert dagster.held(day) == dagster.truth(day)
    sent = dagster.fetched(day)
    assert {name: sent[name] for name in kept} == dict.fromkeys(kept, 1)


def test_a_backfill_archives_each_date_in_a_run_of_its_own_and_nothing_twice(
    dagster: Dagster, sandbox: RunningSandbox, backfill: tuple[str, str]
) -> None:
    backfill_id, single_run = backfill

    def ended() -> list[dict[str, Any]]:
        runs = dagster.runs(dagster__backfill=backfill_id)
        return runs if len(runs) == len(DAYS) and all(run["endTime"] for run in runs) else []

    runs = until("the backfill's runs", ended, seconds=120)
    assert dagster.ended(single_run) == "SUCCESS"
    assert {run["status"] for run in runs} == {"SUCCESS"}
    assert sorted(run["tags"]["dagster/partition"] for run in runs) == [day.isoformat() for day in DAYS]
    for day in DAYS:
        spans = sorted((run["startTime"], run["endTime"]) for run in dagster.runs_of(day))
        assert len(spans) == (2 if day == DAYS[0] else 1)
        assert all(first[1] <= second[0] for first, second in pairwise(spans)), "two runs of one date at once"
        assert dagster.held(day) == dagster.truth(day)
        assert dagster.fetched(day) == dict.fromkeys(dagster.truth(day), 1)


def worker(dagster: Dagster, run_id: str) -> int:
    """The process id of the run's worker, as its page tells it."""
    messages = " ".join(event.get("message", "") for event in dagster.events(run_id))
    found = re.search(r"Started process for run \(pid: (\d+)\)", messages)
    assert found is not None, messages
    return int(found[1])


def test_sensors_come_back_for_what_was_not_ready_and_for_what_a_failed_report_left(
    dagster: Dagster, sandbox: RunningSandbox
) -> None:
    waiting, broken = back(22), back(24)
    sandbox.set_faults(Faults(not_found=Where(share=1.0)))
    assert dagster.ended(dagster.launch(waiting)) == "SUCCESS"
    assert dagster.held(waiting) == {}
    sandbox.set_faults(Faults(report_html_200=Where(paths=("global_call_type_detail",))))
    failed = dagster.launch(broken)
    assert dagster.ended(failed) == "FAILURE"
    assert dagster.held(broken) == {}

    sandbox.set_faults(Faults())
    for name in ("pending_recordings", "archive_despite_failed_report"):
        dagster.switch(name, on=True)
    try:
        until(
            "the recordings that were not ready", lambda: dagster.held(waiting) == dagster.truth(waiting), seconds=120
        )
        until("the recordings of the sound report", lambda: dagster.held(broken), seconds=120)
        started = {
            day: [run["tags"].get("dagster/sensor_name") for run in dagster.runs_of(day)] for day in (waiting, broken)
        }
        assert started == {
            waiting: [None, "pending_recordings"],
            broken: [None, "archive_despite_failed_report"],
        }
        second = dagster.runs_of(broken)[1]
        assert dagster.ended(second["runId"]) == "SUCCESS"
        stereo = {name: digest for name, digest in dagster.truth(broken).items() if name.endswith("-stereo.WAV")}
        assert dagster.held(broken) == stereo
    finally:
        for name in ("pending_recordings", "archive_despite_failed_report"):
            dagster.switch(name, on=False)
