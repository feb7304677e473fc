"""The real thing: `dagster dev` (webserver, daemon, code server) over a sandbox RingCX and a local S3.

One instance for the session; each test works on dates of its own. Tests speak to it as the UI does, over GraphQL, and
read the archive past our own code.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import httpx
import pytest

from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults, Where
from sandbox.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, LocalS3
from sandbox.server import RunningSandbox
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).parents[2]
OURS = (
    "RINGCX_",
    "RINGCENTRAL_",
    "ARCHIVE_",
    "LEDGER_",
    "RATE_LIMIT_",
    "DATA_DIR",
    "AWS_",
    "DAGSTER_",
    "SANDBOX_",
    "DEMO_",
)
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "ringcx_archive"}
START_S = 240.0  # on a machine that does other things as well
T = TypeVar("T")


class UntimelyError(AssertionError):
    """What a test waited for did not happen in time."""


def until(what: str, look: Callable[[], T], *, seconds: float, every: float = 0.5) -> T:
    """The first true answer of `look`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise UntimelyError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return found


def clean_environment() -> dict[str, str]:
    """This process's environment without any variable that the product or the sandbox reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


@contextmanager
def in_its_own_session(command: Sequence[str], log: Path, **arguments: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is interrupted at the end, and killed with all its descendants' session where that is not enough.

    Where the tests run in the background SIGINT is ignored, and children would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **arguments
            )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@dataclass
class Dagster:
    """A running Dagster, the sandbox it asks and the S3 it writes to."""

    url: str
    home: Path
    sandbox: RunningSandbox
    s3: LocalS3
    variables: dict[str, str]
    at_start: dict[str, str] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    @cached_property
    def bucket(self) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=self.s3.url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            region_name=REGION,
        )

    def ask(self, query: str, **variables: Any) -> Any:
        """The one field that `query` asks for; an error that Dagster answers with fails the test."""
        answer = self.http.post(f"{self.url}/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        assert not (isinstance(value, dict) and value.get("__typename", "").endswith("Error")), value
        return value

    def launch(self, day: date) -> str:
        """Launch the job `archive_day`, as the launchpad does; the id of the run."""
        launched = self.ask(
            "mutation ($of: ExecutionParams!) { launchRun(executionParams: $of) {"
            " __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }",
            of={
                "selector": {**REPOSITORY, "jobName": "archive_day"},
                "mode": "default",
                "runConfigData": {},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": f"{day}"}]},
            },
        )
        run_id: str = launched["run"]["runId"]
        return run_id

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs with these tags (`__` stands for `/`), oldest first."""
        found = self.ask(
            "query ($of: RunsFilter!) { runsOrError(filter: $of) { __typename ... on Runs { results {"
            " runId status startTime endTime rootRunId tags { key value }"
            " assetSelection { path } } } ... on Error { message } } }",
            of={"tags": [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]},
        )
        oldest_first: list[dict[str, Any]] = found["results"][::-1]
        for run in oldest_first:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
        return oldest_first

    def runs_of(self, day: date) -> list[dict[str, Any]]:
        return self.runs(dagster__partition=day.isoformat())

    def status(self, run_id: str) -> str:
        found = self.ask(
            "query ($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } ... on Error { message } } }",
            id=run_id,
        )
        status: str = found["status"]
        return status

    def ended(self, run_id: str, *, seconds: float = 120) -> str:
        """The status with which the run ends."""
        until(f"the end of run {run_id}", lambda: self.status(run_id) in ENDED, seconds=seconds)
        return self.status(run_id)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """What the run's page shows."""
        found = self.ask(
            "query ($id: ID!) { logsForRun(runId: $id, limit: 1000) { __typename ... on EventConnection { events {"
            " __typename ... on MessageEvent { message stepKey }"
            " ... on ErrorEvent { error { message stack } } } } ... on Error { message } } }",
            id=run_id,
        )
        events: list[dict[str, Any]] = found["events"]
        return events

    def errors(self, run_id: str) -> list[str]:
        """The errors on the run's page, with their traces."""
        found = [event["error"] for event in self.events(run_id) if event.get("error")]
        return ["".join([error["message"], *error["stack"]]) for error in found]

    def switch(self, name: str, *, on: bool) -> None:
        """Turn a sensor or a schedule on or off, as the switch on its page does."""
        known = self.automation()[name]
        kind = known["kind"]
        if on:
            start = f"start{kind}({kind.lower()}Selector: $of) {{ __typename ... on Error {{ message }} }}"
            selector = {**REPOSITORY, f"{kind.lower()}Name": name}
            self.ask(f"mutation ($of: {kind}Selector!) {{ {start} }}", of=selector)
        else:
            stop = {"Sensor": "stopSensor", "Schedule": "stopRunningSchedule"}[kind]
            self.ask(
                f"mutation ($id: String!) {{ {stop}(id: $id) {{ __typename ... on Error {{ message }} }} }}",
                id=known["id"],
            )

    def automation(self) -> dict[str, dict[str, str]]:
        """Sensors and schedules by name: kind, id, status."""
        found = self.ask(
            "{ repositoriesOrError { __typename ... on RepositoryConnection { nodes {"
            " schedules { name scheduleState { id status } } sensors { name sensorState { id status } } } } } }"
        )
        (node,) = found["nodes"]
        return {
            schedule["name"]: {"kind": "Schedule", **schedule["scheduleState"]} for schedule in node["schedules"]
        } | {sensor["name"]: {"kind": "Sensor", **sensor["sensorState"]} for sensor in node["sensors"]}

    def truth(self, day: date) -> dict[str, str]:
        """File name -> SHA-256 of the recordings that start on `day`, as the sandbox lists them."""
        return {
            recording["file"].rpartition("/")[2]: recording["sha256"]
            for recording in self.sandbox.truth(day.isoformat())
        }

    def held(self, day: date) -> dict[str, str]:
        """File name -> SHA-256 of the bytes in S3 under `day`; a name that is there twice fails the test."""
        found: dict[str, str] = {}
        for page in self.bucket.get_paginator("list_objects_v2").paginate(
            Bucket=self.s3.bucket, Prefix=f"recordings/date={day}/"
        ):
            for item in page.get("Contents", []):
                name = item["Key"].rpartition("/")[2]
                assert name not in found, f"{name} is there twice"
                body = self.bucket.get_object(Bucket=self.s3.bucket, Key=item["Key"])["Body"].read()
                found[name] = hashlib.sha256(body).hexdigest()
        return found

    def fetched(self, day: date) -> dict[str, int]:
        """File name -> how often the sandbox sent it whole, of the recordings that start on `day`."""
        names = self.truth(day)
        sent = self.sandbox.counters()["media_complete_by_path"]
        return {name: n for path, n in sent.items() if (name := path.rpartition("/")[2]) in names}


def slow(dagster: Dagster, day: date) -> Faults:
    """The recordings of `day`, and no others, take many seconds each."""
    return Faults(slow=Where(paths=tuple(f"*/{name}" for name in dagster.truth(day))), slow_bytes_per_s=6_000)


def assert_without_a_trace_of_its_work(errors: list[str]) -> None:
    """A terminated run says in a sentence that nothing is lost, not where in the fetch it was."""
    assert any("The run was stopped. What it stored is kept, and the next run of the date" in error for error in errors)
    assert not [error for error in errors if "fetcher.py" in error or "During handling" in error]


def back(days: int) -> date:
    """A date that is over."""
    return datetime.now(UTC).date() - timedelta(days=days)


@pytest.fixture(scope="session")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    """Dagster as `make ui` runs it, in a folder of its own: dagster.yaml's data/ is beneath the working folder."""
    home = tmp_path_factory.mktemp("dagster")
    as_shipped = (ROOT / "dagster.yaml").read_text()
    # How soon the daemon notices that a run's process is gone.
    (home / "dagster.yaml").write_text(as_shipped.replace("poll_interval_seconds: 30", "poll_interval_seconds: 5"))
    port = free_port()
    config = SandboxConfig(
        same_around=back(0),
        calls_per_day=(6, 8),
        talk_seconds=(1, 3),
        limits=Limits(reports="none", exchange="none"),
        crossing_zones=(),
    )
    with LocalS3(home / "s3") as s3, RunningSandbox(config, own_process=True) as sandbox:
        environment = {
            **clean_environment(),
            **sandbox.environment(),
            **s3.environment(),
            "ARCHIVE_BUCKET": s3.bucket,
            "ARCHIVE_START_DATE": "2020-01-01",
            "ARCHIVE_RETRY_MINUTES": "0",
            "ARCHIVE_GIVE_UP_DAYS": "365",
            "RINGCX_LIMIT_REPORTS": "none",
            "RINGCX_LIMIT_AUTH": "none",
            "DAGSTER_HOME": str(home),
        }
        command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(ROOT / "workspace.yaml")]
        with in_its_own_session(
            [*command, "--host", "127.0.0.1", "--port", str(port)], home / "log", cwd=home, env=environment
        ) as server:
            dagster = Dagster(f"http://127.0.0.1:{port}", home, sandbox, s3, environment)
            until("the code location", lambda: _is_loaded(dagster, server), seconds=START_S)
            dagster.at_start = {name: automation["status"] for name, automation in dagster.automation().items()}
            # Each test turns on what it is about: else a sensor's run mixes with that of another test.
            for name, status in dagster.at_start.items():
                if status == "RUNNING":
                    until(f"{name} switched off", partial(_is_off, dagster, name), seconds=30)
            yield dagster
            dagster.http.close()


def _is_off(dagster: Dagster, name: str) -> bool:
    """Switch it off; not yet, where the daemon's first look at it wrote its row at the same moment."""
    try:
        dagster.switch(name, on=False)
    except AssertionError as error:
        if "already present in storage" not in str(error):
            raise
    return dagster.automation()[name]["status"] == "STOPPED"


def _is_loaded(dagster: Dagster, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, (dagster.home / "log").read_text()[-3000:]
    try:
        found = dagster.ask(
            "{ workspaceOrError { __typename ... on Workspace { locationEntries { loadStatus"
            " locationOrLoadError { __typename ... on Error { message } } } } } }"
        )
    except httpx.TransportError:
        return False
    (location,) = found["locationEntries"]
    assert location["locationOrLoadError"] is None or "message" not in location["locationOrLoadError"], location
    return bool(location["loadStatus"] == "LOADED")


@pytest.fixture
def sandbox(dagster: Dagster) -> Iterator[RunningSandbox]:
    """The sandbox, without faults before and after."""
    dagster.sandbox.set_faults(Faults())
    yield dagster.sandbox
    dagster.sandbox.set_faults(Faults())
