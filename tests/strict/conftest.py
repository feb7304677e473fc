"""The strict S3, plain boto3 clients of it, and an environment without anything of Amazon's in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from sandbox.strict_s3 import StrictS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


REGION = "eu-central-1"


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictS3]:
    with StrictS3(tmp_path_factory.mktemp("strict"), region=REGION) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_of_amazons(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def _orders_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "strict" in request.fixturenames:
        request.getfixturevalue("strict").obey()


@pytest.fixture
def client(strict: StrictS3) -> Callable[..., S3Client]:
    """`client(region="us-east-1", retries=0, key=…)`: plain boto3, through the proxy, under Amazon's names."""

    def make(region: str = REGION, *, retries: int = 0, key: Any = None, s3: Any = None, **config: Any) -> S3Client:
        used = key or strict.keys.forever
        arguments = {"endpoint_url": config.pop("endpoint_url", None), "verify": str(strict.authority.file)}
        return boto3.client(
            "s3",
            region_name=region,
            aws_access_key_id=used.id,
            aws_secret_access_key=used.secret,
            aws_session_token=used.token,
            config=Config(
                proxies={} if arguments["endpoint_url"] else {"https": strict.proxy_url, "http": strict.proxy_url},
                retries={"total_max_attempts": retries + 1, "mode": "standard"},
                s3=s3 or {},
                **config,
            ),
            **arguments,
        )

    return make


@pytest.fixture
def bucket(strict: StrictS3) -> str:
    """A new bucket outside us-east-1."""
    return strict.make_bucket(f"archive-{uuid.uuid4().hex[:12]}", region=REGION).name
