"""An archive made once by real runs and copied as often as tests need it, so that each test may tamper with its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from dagster import DagsterInstance, JobDefinition

from pipelines.definitions import build_defs
from sandbox.config import SandboxConfig
from sandbox.server import RunningSandbox
from tests.memory_s3 import MemoryS3
from tests.pipeline.nursery import assets_alone


@dataclass
class Copies:
    """Makes buckets with the same archive, one for each test, and has the variables with which it is found."""

    client: MemoryS3
    original: str
    variables: dict[str, str]

    def take(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Set the variables for another bucket and return its name."""
        bucket = f"copy-{uuid.uuid4().hex[:12]}"
        self.client.copy_bucket(self.original, bucket)
        self.client.serve(monkeypatch)
        for name, value in (self.variables | {"ARCHIVE_BUCKET": bucket}).items():
            monkeypatch.setenv(name, value)
        return bucket


@contextmanager
def copies_of_an_archive(
    temporary: pytest.TempPathFactory,
    config: SandboxConfig,
    archive: Callable[[JobDefinition, DagsterInstance], None],
    **settings: str,
) -> Iterator[Copies]:
    """Let `archive` run the job `archive_day`, without its checks, against a sandbox; keep the bucket to copy it."""
    original, client = "original", MemoryS3()
    client.create_bucket(Bucket=original)
    with (
        RunningSandbox(config) as source,
        pytest.MonkeyPatch.context() as patch,
        DagsterInstance.ephemeral() as instance,
    ):
        client.serve(patch)
        variables = {
            **source.environment(),
            **client.environment(),
            "ARCHIVE_BUCKET": original,
            "RINGCX_LIMIT_REPORTS": "none",
            "RINGCX_LIMIT_AUTH": "none",
            "DATA_DIR": str(temporary.mktemp("data")),
            **settings,
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(temporary.mktemp("cwd"))
        archive(assets_alone(build_defs().resolve_job_def("archive_day")), instance)
    yield Copies(client, original, variables)
