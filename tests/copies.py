"""An archive made once by real runs and copied as often as tests need it, so that each test may tamper with its own."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from dagster import DagsterInstance, JobDefinition

from pipelines.archive.client import make_s3_client
from pipelines.definitions import build_defs
from sandbox.config import SandboxConfig
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox


@dataclass
class Copies:
    """Buckets with the same archive, one for each test, and the variables with which commands and runs find them."""

    client: Any
    buckets: Iterator[str]
    variables: dict[str, str]

    def take(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Set the variables for the next bucket and return its name."""
        bucket = next(self.buckets)
        for name, value in (self.variables | {"ARCHIVE_BUCKET": bucket}).items():
            monkeypatch.setenv(name, value)
        return bucket


@contextmanager
def copies_of_an_archive(
    s3: LocalS3,
    temporary: pytest.TempPathFactory,
    config: SandboxConfig,
    archive: Callable[[JobDefinition, DagsterInstance], None],
    *,
    number: int,
    **settings: str,
) -> Iterator[Copies]:
    """Let `archive` run the job `archive_day` against a sandbox, and copy its bucket `number` times."""
    original = f"sample-{uuid.uuid4().hex[:12]}"
    s3.make_bucket(original)
    with (
        RunningSandbox(config) as source,
        pytest.MonkeyPatch.context() as patch,
        DagsterInstance.ephemeral() as instance,
    ):
        variables = {
            **source.environment(),
            **s3.environment(),
            "ARCHIVE_BUCKET": original,
            "RINGCX_LIMIT_REPORTS": "none",
            "RINGCX_LIMIT_AUTH": "none",
            "DATA_DIR": str(temporary.mktemp("data")),
            **settings,
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(temporary.mktemp("cwd"))
        archive(build_defs().resolve_job_def("archive_day"), instance)
    # Copied on disk before the server that shows them starts: ten times as fast as through S3.
    folder = temporary.mktemp("copies")
    names = [f"copy-{count:02}" for count in range(number)]
    for name in names:
        shutil.copytree(s3.folder / original, folder / name)
    with LocalS3(folder, bucket="unused") as served, pytest.MonkeyPatch.context() as patch:
        for name, value in served.environment().items():
            patch.setenv(name, value)
        yield Copies(make_s3_client(max_connections=8), iter(names), variables | served.environment())
