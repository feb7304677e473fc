"""Each way to credentials that boto3 knows, with a fake of the right shape; what expires is renewed by the client."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import SSOProvider
from botocore.exceptions import CredentialRetrievalError, UnauthorizedSSOTokenError

from sandbox.strict_s3 import StrictS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


WAYS = {
    "role": "sts",
    "web identity": "web identity",
    "sso": "sso",
    "imds": "imds",
    "ecs": "ecs",
    "process": "process",
}


@pytest.fixture
def led(strict: StrictS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., S3Client]:
    """`led("imds")`: a plain client that finds its credentials that way."""

    def make(way: str, **variables: str) -> S3Client:
        strict.identity.issued.clear()
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", str(way != "imds").lower())
        found = strict.identity.environment(way, tmp_path / "aws") | variables
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        # botocore reads the home folder when it is imported.
        cache = os.path.expanduser("~/.aws/sso/cache")  # noqa: PTH111 - as botocore does
        monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", cache)
        return boto3.Session().client(
            "s3",
            region_name="eu-central-1",
            verify=str(strict.authority.file),
            config=Config(proxies={"https": strict.proxy_url}, retries={"total_max_attempts": 1}),
        )

    return make


def test_a_profile_of_the_shared_file_is_enough(led: Callable[..., S3Client], bucket: str) -> None:
    led("profile").put_object(Bucket=bucket, Key="k", Body=b"x")


@pytest.mark.parametrize("way", list(WAYS))
def test_what_is_handed_out_is_known_to_s3_and_is_renewed_before_it_expires(
    led: Callable[..., S3Client], bucket: str, strict: StrictS3, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = led(way)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    first = strict.answered[-1].headers
    assert "x-amz-security-token" in first

    def later() -> datetime:  # five minutes before the end of the hour that they are good for
        return datetime.now(UTC) + timedelta(minutes=55)

    monkeypatch.setattr("botocore.credentials._local_now", later)
    s3._request_signer._credentials._time_fetcher = later  # type: ignore[attr-defined]  # no public clock
    s3.put_object(Bucket=bucket, Key="b", Body=b"x")
    assert strict.answered[-1].headers["x-amz-security-token"] != first["x-amz-security-token"]
    assert strict.identity.issued[WAYS[way]] >= 2


def test_a_token_that_is_not_known_gives_nothing(
    led: Callable[..., S3Client], bucket: str, strict: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialRetrievalError):
        led("ecs", AWS_CONTAINER_AUTHORIZATION_TOKEN="wrong").put_object(Bucket=bucket, Key="k", Body=b"x")
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    s3 = led("sso")
    monkeypatch.setattr(strict.identity, "sso_token", "another")
    with pytest.raises(UnauthorizedSSOTokenError):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
