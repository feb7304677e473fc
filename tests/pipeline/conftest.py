"""A whole archiver for each test: sandbox RingCX, local S3, ledger in the bucket, runs through Dagster."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from pipelines.archive.bucket import make_s3_client
from pipelines.definitions import build_defs
from pipelines.ledger.states import RecordingState
from pipelines.resources import Services
from pipelines.settings import Settings, load
from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox

OURS = ("RINGCX_", "RINGCENTRAL_", "ARCHIVE_", "LEDGER_", "RATE_LIMIT_", "DATA_DIR", "AWS_", "DAGSTER_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # no .env of the developer's, and data/ in a folder of the test's own


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@dataclass
class World:
    """A sandbox, an archive and Dagster around them."""

    sandbox: RunningSandbox
    bucket: str
    folder: Path
    instance: DagsterInstance
    variables: dict[str, str]
    runs: list[ExecuteInProcessResult] = field(default_factory=list)

    def run(self, day: date, *, select: list[str] | None = None) -> ExecuteInProcessResult:
        """One run of one date in this process; its events are kept in `instance`."""
        job = build_defs().resolve_job_def("archive_day")
        result = job.execute_in_process(
            partition_key=day.isoformat(),
            instance=self.instance,
            asset_selection=[AssetKey(name) for name in select] if select else None,
            raise_on_error=False,
        )
        self.runs.append(result)
        return result

    def services(self) -> Services:
        return Services(lambda: load(Settings))

    def states(self, *days: date) -> dict[str, RecordingState]:
        return self.services().ledger.states(days)

    def metadata(self, result: ExecuteInProcessResult, asset: str) -> dict[str, Any]:
        (event,) = result.asset_materializations_for_node(asset)
        return {name: value.value for name, value in event.metadata.items()}

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
        """Key -> SHA-256 of the bytes as they lie in S3 now, read past our own code."""
        client = self.client()
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
                found[item["Key"]] = hashlib.sha256(body).hexdigest()
        return found

    def client(self) -> Any:
        return make_s3_client(max_connections=4)

    def truth(self, *days: date, timezone: str = "UTC") -> list[dict[str, Any]]:
        """The recordings that exist and start on `days`, by the sandbox's own word."""
        return [
            one
            for day in days
            for account in self.sandbox.config.accounts
            for one in self.sandbox.truth(day.isoformat(), account=account, timezone=timezone)
        ]


@pytest.fixture
def world(s3: LocalS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world: `world(faults=…, sandbox={…}, ARCHIVE_TIMEZONE="Europe/Berlin")`."""
    opened: list[RunningSandbox] = []
    with DagsterInstance.ephemeral() as instance:

        def make(*, faults: Faults | None = None, sandbox: dict[str, Any] | None = None, **variables: str) -> World:
            config = SandboxConfig(
                **{
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
            bucket = f"archive-{uuid.uuid4().hex[:12]}"
            s3.make_bucket(bucket)
            environment = {
                **source.environment(),
                **s3.environment(),
                "ARCHIVE_BUCKET": bucket,
                "ARCHIVE_RETRY_MINUTES": "0",
                "RINGCX_LIMIT_REPORTS": "none",
                "RINGCX_LIMIT_AUTH": "none",
                "DATA_DIR": str(tmp_path / "data"),
                **variables,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            return World(source, bucket, s3.folder / bucket, instance, environment)

        yield make
        for source in opened:
            source.__exit__(None, None, None)


@pytest.fixture
def recent() -> list[date]:
    """Three dates that are over and young enough that a recording may still come."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=back) for back in (4, 3, 2)]
