"""Runs of one date in processes of their own, to be killed, interrupted or set side by side.

Importing Dagster and the assets takes some seconds of CPU. This process has imported them, has made the job, has no
threads, and forks a run for each line that it reads: a JSON object with

* `day`, `environment` (all variables of the run), `folder` (where `stdout`, `stderr` and `outcome.json` go)
* `go_at`: seconds since the epoch at which the run begins, so that several begin together
* `speed`: the run's clock starts ten minutes ago and runs so many times as fast, to see what a long run does

and answers with the child's process id. A run that was killed leaves no outcome.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from dagster import AssetKey, DagsterInstance, JobDefinition

from pipelines.definitions import build_defs
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar, load

BACKOFF_S = 0.02

# botocore parses its description of S3 for each session, in 0.14 s.
botocore.session.create_loader = cache(botocore.session.create_loader)


def hurried_clock(speed: float) -> Callable[[], datetime]:
    begin, since = datetime.now(UTC) - timedelta(hours=2), time.monotonic()
    return lambda: begin + speed * timedelta(seconds=time.monotonic() - since)


def assets_alone(job: JobDefinition, names: Sequence[str] | None = None) -> JobDefinition:
    """The job of a date with these assets, or all, and without their checks."""
    keys = {AssetKey(name) for name in names} if names else set(job.asset_layer.selected_asset_keys)
    return job.get_subset(asset_selection=keys, asset_check_selection=set())


@cache
def job_of_date(calendar: Calendar) -> JobDefinition:
    return assets_alone(build_defs(calendar=calendar).resolve_job_def("archive_day"))


def run(task: dict[str, Any]) -> dict[str, Any]:
    os.environ.clear()
    os.environ.update(task["environment"])
    folder = Path(task["folder"])
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    clock = {"clock": hurried_clock(task["speed"])} if task.get("speed") else {}
    resources = all_resources(Environment(backoff_s=BACKOFF_S, **clock))
    job = job_of_date(load(Calendar))
    with DagsterInstance.ephemeral() as instance:
        time.sleep(max(0.0, task.get("go_at", 0.0) - time.time()))
        result = job.execute_in_process(
            partition_key=task["day"], instance=instance, raise_on_error=False, resources=resources
        )
    failed = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return {
        "success": result.success,
        "errors": [error.to_string() for error in failed if error],
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
    }


def child(task: dict[str, Any]) -> None:
    outcome = Path(task["folder"], "outcome.json")
    code = 1
    try:
        ended = run(task)
        outcome.with_suffix(".part").write_text(json.dumps(ended))
        outcome.with_suffix(".part").rename(outcome)
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def say(answer: object) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def prepare() -> None:
    """Do once what else each run would do at its start."""
    job_of_date(Calendar())
    boto3.client("s3", region_name="us-east-1").close()
    with DagsterInstance.ephemeral() as instance:
        instance.get_runs_count()
    assert threading.active_count() == 1, "a fork would lose them"


def main() -> None:
    prepare()
    say("ready")
    for line in sys.stdin:
        task = json.loads(line)
        if "wait" in task:
            _, status = os.waitpid(task["wait"], 0)
            say(os.waitstatus_to_exitcode(status))
        elif pid := os.fork():
            say(pid)
        else:
            child(task)


if __name__ == "__main__":
    main()
