"""The sandbox's S3 keeps its objects, and refuses wrong keys and a taken port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from sandbox import LocalS3


def client_of(s3: LocalS3, **change: str) -> Any:
    environment = s3.environment() | change
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )


def test_objects_are_written_read_listed_and_kept(tmp_path: Path) -> None:
    with LocalS3(tmp_path, bucket="calls") as s3:
        client = client_of(s3)
        client.put_object(Bucket="calls", Key="a/b.WAV", Body=b"sound", Metadata={"uii": "1"})
        assert client.get_object(Bucket="calls", Key="a/b.WAV")["Body"].read() == b"sound"
        assert [item["Key"] for item in client.list_objects_v2(Bucket="calls", Prefix="a/")["Contents"]] == ["a/b.WAV"]
        s3.make_bucket("other")
        assert {bucket["Name"] for bucket in client.list_buckets()["Buckets"]} == {"calls", "other"}
        assert s3.is_running()
    assert not s3.is_running()
    assert (tmp_path / "calls/a/b.WAV").read_bytes() == b"sound"
    with LocalS3(tmp_path, bucket="calls") as again:
        assert client_of(again).get_object(Bucket="calls", Key="a/b.WAV")["Body"].read() == b"sound"


def test_many_objects_in_fresh_folders_do_not_stop_it(tmp_path: Path) -> None:
    with LocalS3(tmp_path, bucket="calls") as s3:
        client = client_of(s3)
        for number in range(40):
            client.put_object(Bucket="calls", Key=f"a/date={number}/b.WAV", Body=b"sound")
            assert client.list_objects_v2(Bucket="calls", Prefix=f"a/date={number}/")["KeyCount"] == 1


def test_a_wrong_secret_is_refused(tmp_path: Path) -> None:
    with LocalS3(tmp_path) as s3, pytest.raises(ClientError):
        client_of(s3, AWS_SECRET_ACCESS_KEY="wrong").list_buckets()


def test_a_taken_port_is_reported(tmp_path: Path) -> None:
    with LocalS3(tmp_path / "a") as s3:
        other = LocalS3(tmp_path / "b", port=s3.port)
        with pytest.raises(RuntimeError, match=str(s3.port)), other:
            pass
        assert not other.is_running()
        assert s3.is_running()
