"""A whole archiver for each test: sandbox RingCX, local S3, ledger in the bucket, runs through Dagster."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import pytest
from dagster import AssetKey, DagsterEventType, DagsterInstance, EventLogEntry, ExecuteInProcessResult, JobDefinition
from dagster._core.execution.context.data_version_cache import DataVersionCache
from dagster._core.storage.event_log import in_memory as event_log_in_memory
from dagster._core.storage.runs import in_memory as runs_in_memory
from sqlalchemy import Connection

from pipelines.archive.client import make_s3_client
from pipelines.aws import S3Client
from pipelines.definitions import build_defs
from pipelines.ledger.states import RecordingState
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar, load
from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults
from sandbox.server import RunningSandbox
from sandbox.strict_s3 import StrictS3
from tests.memory_s3 import MemoryS3
from tests.pipeline.nursery import assets_alone
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.rclone import Rclone
from tests.services import Services

# Tries of one request follow each other within tens of milliseconds; how long they wait is for tests/ringcx to show.
BACKOFF_S = 0.02
UP_TO_RECORDINGS = ["agent_segment_metadata", "global_call_type_detail", "recording_links", "recordings"]
# What Dagster notes about itself; test_secrecy.py, which reads all that is kept, has it kept.
UNREAD = {
    DagsterEventType.ENGINE_EVENT,
    DagsterEventType.RESOURCE_INIT_STARTED,
    DagsterEventType.RESOURCE_INIT_SUCCESS,
    DagsterEventType.LOGS_CAPTURED,
    DagsterEventType.STEP_INPUT,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.LOADED_INPUT,
    DagsterEventType.HANDLED_OUTPUT,
}
OURS = (
    "RINGCX_",
    "RINGCENTRAL_",
    "ARCHIVE_",
    "ALERT_",
    "EVENTS_",
    "LEDGER_",
    "RATE_LIMIT_",
    "DATA_DIR",
    "AWS_",
    "DAGSTER_",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # no .env of the developer's, and data/ in a folder of the test's own


@pytest.fixture(scope="session", autouse=True)
def _instances_in_memory_cost_little() -> Iterator[None]:
    """Leave out what Dagster does only for instances that last, a new connection for each event, and events that nobody
    reads: a quarter of a run.

    * An instance in memory is new; to write its revision down, Dagster would read each migration there ever was.
    * The connection that keeps its tables alive serves its own thread too.
    * Nobody asks which version of its inputs an asset was made from.
    """
    with pytest.MonkeyPatch.context() as patch:
        for storage in (event_log_in_memory, runs_in_memory):
            patch.setattr(storage, "stamp_alembic_rev", lambda *_: None)
        for kind, name in (
            (event_log_in_memory.InMemoryEventLogStorage, "_connect"),
            (runs_in_memory.InMemoryRunStorage, "connect"),
        ):
            patch.setattr(kind, name, _with_the_kept_connection(getattr(kind, name)))
        memory = event_log_in_memory.InMemoryEventLogStorage
        patch.setattr(memory, "store_event", _unless_unread(memory.store_event))
        of_no_version = lambda cache, keys: cache.input_asset_version_info.update(dict.fromkeys(keys))  # noqa: E731
        patch.setattr(DataVersionCache, "_fetch_input_asset_version_info", of_no_version)
        yield


def _unless_unread(store_event: Callable[[Any, EventLogEntry], None]) -> Callable[[Any, EventLogEntry], None]:
    def store(storage: Any, entry: EventLogEntry) -> None:
        if entry.dagster_event_type not in UNREAD:
            store_event(storage, entry)

    return store


def _with_the_kept_connection(connect: Callable[[Any], AbstractContextManager[Connection]]) -> Callable[[Any], Any]:
    threads: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    @contextmanager
    def connected(storage: Any) -> Iterator[Connection]:
        kept: Connection = storage._held_conn
        own = threads.setdefault(storage, threading.get_ident()) == threading.get_ident()
        if own and not kept.in_transaction():
            with getattr(storage, "_db_lock", nullcontext()), kept.begin():
                yield kept
        else:
            with connect(storage) as made:
                yield made

    return connected


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("s3")) as server:
        yield server


@dataclass(frozen=True)
class Store:
    """An S3: its variables, and one client for all tests, since building it takes a quarter of a second of CPU.

    With `own_client` runs build theirs, as outside of tests.
    """

    environment: dict[str, str]
    client: S3Client
    own_client: bool = False
    serve: Callable[[pytest.MonkeyPatch], None] | None = None
    """Puts the client in place of the product's own, where no server answers."""

    @classmethod
    def from_environment(cls, environment: dict[str, str]) -> Store:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return cls(environment, make_s3_client(max_connections=32))


@pytest.fixture
def memory() -> Store:
    """Where the store is not the subject: an S3 that is asked without HTTP, and only by this process."""
    client = MemoryS3()
    return Store(client.environment(), cast("S3Client", client), serve=client.serve)


@pytest.fixture(scope="session")
def rclone(s3: Rclone) -> Store:
    """Keeps its objects on disk, under `s3.folder`; ignores `IfNoneMatch`."""
    return Store.from_environment(s3.environment())


@pytest.fixture(scope="session")
def moto() -> Iterator[Store]:
    """Honours `IfNoneMatch` and keeps versions."""
    with AtomicMoto() as server:
        yield Store.from_environment(server.environment())


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictS3]:
    """Behaves like Amazon, under Amazon's names, behind a proxy with a log-in."""
    with StrictS3(tmp_path_factory.mktemp("strict"), proxy_log_in="someone:canary-proxy-password") as server:
        yield server


@cache
def job_of_date(calendar: Calendar, names: tuple[str, ...] = ()) -> JobDefinition:
    """The job of a date with these assets, or all, and their checks.

    Making it takes as long as half a run. It has no state, and each run has its own resources.
    """
    job = build_defs(calendar=calendar).resolve_job_def("archive_day")
    return job.get_subset(asset_selection={AssetKey(name) for name in names}) if names else job


@cache
def assets_of_date(calendar: Calendar, names: tuple[str, ...]) -> JobDefinition:
    """The same without the checks."""
    return assets_alone(job_of_date(calendar), names)


@dataclass
class World:
    """A sandbox, an archive and Dagster around them."""

    sandbox: RunningSandbox
    bucket: str
    instance: DagsterInstance
    s3: S3Client
    variables: dict[str, str]
    own_client: bool = False
    console_level: str = "CRITICAL"
    """Dagster's fifty lines a run for the console are a tenth of a test's time."""
    runs: list[ExecuteInProcessResult] = field(default_factory=list)
    passed: timedelta = timedelta(0)
    """How far the archiver's clock is ahead; the sandbox keeps its own."""

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.passed

    @property
    def environment(self) -> Environment:
        return Environment(clock=self.clock, backoff_s=BACKOFF_S, s3_client=None if self.own_client else self.s3)

    def run_until_final(self, *days: date) -> None:
        """Three runs of each date within 26 hours: what has one answer in each is final if it is old enough.

        They end with `recordings`, and seal nothing.
        """
        for assets in (UP_TO_RECORDINGS, ["recordings"], ["recordings"]):
            for day in days:
                self.run(day, select=assets)
            self.passed += timedelta(hours=13)

    def run(self, day: date, *, select: list[str] | None = None, checks: bool = False) -> ExecuteInProcessResult:
        """One run of one date in this process; its events are kept in `instance`.

        `checks` are half of a run's time, and stop and change nothing: they run where the test reads what they say.
        """
        job = (job_of_date if checks else assets_of_date)(load(Calendar), tuple(select or ()))
        result = job.execute_in_process(
            partition_key=day.isoformat(),
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": self.console_level}}}},
            raise_on_error=False,
            resources=all_resources(self.environment),
        )
        self.runs.append(result)
        return result

    def services(self) -> Services:
        return Services(self.environment)

    def states(self, *days: date) -> dict[str, RecordingState]:
        return self.services().ledger.states(days)

    def metadata(self, result: ExecuteInProcessResult, asset: str) -> dict[str, Any]:
        (event,) = result.asset_materializations_for_node(asset)
        return defaultdict(int, {name: value.value for name, value in event.metadata.items()})

    def failures(self, result: ExecuteInProcessResult) -> dict[str, str]:
        """Step -> the sentence it failed with."""
        return {
            event.step_key: (event.step_failure_data.user_failure_data.description or "")
            if event.step_failure_data.user_failure_data
            else (event.step_failure_data.error.message if event.step_failure_data.error else "")
            for event in result.all_events
            if event.is_step_failure and event.step_key
        }

    def objects(self, under: str = "recordings/") -> dict[str, str]:
        """Key -> SHA-256 of the bytes that S3 has now, read without the product's code."""
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under):
            for item in page.get("Contents", []):
                body = self.s3.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
                found[item["Key"]] = hashlib.sha256(body).hexdigest()
        return found

    def truth(self, *days: date, timezone: str = "UTC") -> list[dict[str, Any]]:
        """The recordings that exist and start on `days`, as the sandbox lists them."""
        return [
            recording
            for day in days
            for account in self.sandbox.config.accounts
            for recording in self.sandbox.truth(day.isoformat(), account=account, timezone=timezone)
        ]


class MakeWorld(Protocol):
    """Make a world: `make_world(faults=…, sandbox={…}, ARCHIVE_TIMEZONE="Europe/Berlin")`.

    `sandbox` are fields of `SandboxConfig`; without `store` it is the one in memory, without `bucket` a new one.
    """

    def __call__(
        self,
        *,
        faults: Faults | None = None,
        sandbox: dict[str, Any] | None = None,
        store: Store = ...,
        bucket: str = "",
        **variables: str,
    ) -> World: ...


@pytest.fixture
def make_world(memory: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MakeWorld]:
    opened: list[RunningSandbox] = []
    with DagsterInstance.ephemeral() as instance:

        def make(
            *,
            faults: Faults | None = None,
            sandbox: dict[str, Any] | None = None,
            store: Store = memory,
            bucket: str = "",
            **variables: str,
        ) -> World:
            config = SandboxConfig(
                **{
                    "same_around": datetime.now(UTC).date(),
                    "calls_per_day": (6, 8),
                    "talk_seconds": (1, 3),
                    "limits": Limits(reports="none", exchange="none"),
                    "faults": faults or Faults(),
                    **(sandbox or {}),
                }
            )
            source = RunningSandbox(config)
            source.__enter__()
            opened.append(source)
            if not bucket:
                bucket = f"archive-{uuid.uuid4().hex[:12]}"
                store.client.create_bucket(Bucket=bucket)
            environment = {
                **source.environment(),
                **store.environment,
                "ARCHIVE_BUCKET": bucket,
                "ARCHIVE_START_DATE": "2020-01-01",
                "ARCHIVE_RETRY_MINUTES": "0",
                "RINGCX_LIMIT_REPORTS": "none",
                "RINGCX_LIMIT_AUTH": "none",
                "DATA_DIR": str(tmp_path / "data"),
                **variables,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            if store.serve:
                store.serve(monkeypatch)
            return World(source, bucket, instance, store.client, environment, store.own_client)

        yield make
        for source in opened:
            source.__exit__(None, None, None)


@dataclass
class Run:
    """A run of one date in a process of its own."""

    nursery: Nursery
    pid: int
    folder: Path

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, below zero for the signal that ended it."""
        return int(self.nursery.ask({"wait": self.pid}))

    def outcome(self) -> dict[str, Any]:
        """`success`, `errors`, `threads` still alive at the end; empty for one that was killed."""
        file = self.folder / "outcome.json"
        return json.loads(file.read_text()) if file.exists() else {}


class Nursery:
    """Starts runs in processes of their own, at once and side by side; see nursery.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, task: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(self, world: World, day: date, *, go_at: float = 0.0, speed: float = 0.0, **variables: str) -> Run:
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        basic = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        environment = {**basic, **world.variables, **variables}
        task = {"day": day.isoformat(), "folder": str(folder), "environment": environment, "go_at": go_at}
        return Run(self, int(self.ask({**task, "speed": speed})), folder)

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    opened = Nursery(tmp_path_factory.mktemp("nursery"))
    yield opened
    opened.close()


@pytest.fixture
def recent() -> list[date]:
    """Three dates that are over and young enough that a recording may still come."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=back) for back in (4, 3, 2)]


@pytest.fixture
def noon() -> str:
    """A zone in which it is about noon: its date is that of UTC, is not over, and has had calls."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
