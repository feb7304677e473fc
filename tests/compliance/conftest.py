"""An S3 server, and a bucket of its own for each test."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from tests.archive.conftest import KEY_ID, NAME, SECRET, Server, free_port

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="session", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).parents[1] / "atomic_moto.py"), "-H", "127.0.0.1", "-p", str(port)]
    server = Server(command, port, tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3(s3_server: Server) -> S3Client:
    client = make_s3_client(max_connections=16, endpoint_url=s3_server.url)
    client.create_bucket(Bucket=NAME)
    return client


@pytest.fixture
def bucket(s3: S3Client) -> Bucket:
    return Bucket(s3, NAME, f"t-{uuid.uuid4().hex}/")
