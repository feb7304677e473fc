"""A body too large for one request is stored once, whole, and over nothing."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError
from urllib3 import HTTPHeaderDict

from pipelines.archive.bucket import PART, Bucket
from pipelines.archive.client import make_s3_client
from pipelines.archive.errors import Conflict, KeyExists, StorageError, StorageUnavailable
from pipelines.archive.keys import copy_key
from pipelines.archive.transfer import Upload, store
from tests.servers.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UploadOf = Callable[..., Upload]
SIZE = PART + 1000


@pytest.fixture
def large(tmp_path: Path) -> Iterator[BinaryIO]:
    """A body of two parts, most of it a hole."""
    with (tmp_path / "large").open("w+b") as file:
        file.write(b"RIFF" + os.urandom(1000))
        file.truncate(SIZE - 4)
        file.seek(0, os.SEEK_END)
        file.write(b"end.")
        yield file


def sha256_of(body: BinaryIO) -> str:
    body.seek(0)
    return hashlib.file_digest(body, "sha256").hexdigest()


def put(bucket: Bucket, key: str, body: BinaryIO) -> Any:
    return bucket.put_new(key, body, sha256=sha256_of(body), content_type="audio/wav", metadata={"uii": "7"})


def open_uploads(client: "S3Client", prefix: str) -> list[str]:
    return [
        upload["Key"] for upload in client.list_multipart_uploads(Bucket="archive", Prefix=prefix).get("Uploads", [])
    ]


def test_a_large_body_arrives_with_its_metadata_and_is_never_put_over_something(
    bucket: Bucket, large: BinaryIO
) -> None:
    key = f"{bucket.prefix}large.WAV"
    put(bucket, key, large)
    assert bucket.hash_object(key).sha256 == sha256_of(large)
    facts = bucket.head(key)
    assert facts is not None
    assert facts.size == SIZE
    large.seek(500)
    large.write(b"other bytes")
    with pytest.raises(KeyExists):
        put(bucket, key, large)
    assert bucket.hash_object(key).sha256 != sha256_of(large)
    assert open_uploads(bucket._client, bucket.prefix) == []


def test_a_large_recording_is_stored_once_and_other_bytes_are_kept_apart(
    moto_bucket: Bucket, upload_of: UploadOf, large: BinaryIO
) -> None:
    large.seek(0)
    upload = upload_of(large.read())
    assert not store(moto_bucket, upload, large).adopted
    assert store(moto_bucket, upload, large).adopted
    large.seek(500)
    large.write(b"other bytes")
    large.seek(0)
    other = upload_of(large.read())
    with pytest.raises(Conflict):
        store(moto_bucket, other, large)
    kept_as = copy_key("conflicts", moto_bucket.prefix, other.key, other.sha256)
    assert moto_bucket.hash_object(kept_as).sha256 == sha256_of(large)


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (
            ClientError(
                {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},
                "UploadPart",
            ),
            StorageError,
        ),
    ],
)
def test_an_upload_that_breaks_off_leaves_nothing_behind(
    moto_client: "S3Client", prefix: str, large: BinaryIO, failure: BaseException, seen: type[BaseException]
) -> None:
    client = make_s3_client(max_connections=1, endpoint_url=moto_client.meta.endpoint_url)

    def break_off(params: dict[str, Any], **_: Any) -> None:
        if params["query_string"]["partNumber"] == 2:
            raise failure

    client.meta.events.register("before-call.s3.UploadPart", break_off)
    with pytest.raises(seen):
        put(Bucket(client, "archive", prefix), f"{prefix}large.WAV", large)
    assert moto_client.list_objects_v2(Bucket="archive", Prefix=f"{prefix}large").get("Contents", []) == []
    assert open_uploads(moto_client, prefix) == []


def like(client: "S3Client", hook: Callable[..., Any], operation: str) -> "S3Client":
    """A client of the same server that behaves otherwise."""
    made = make_s3_client(max_connections=1, endpoint_url=client.meta.endpoint_url)
    made.meta.events.register(f"before-send.s3.{operation}", hook)
    return made


def answer(request: AWSPreparedRequest, status: int, code: str) -> AWSResponse:
    raw = urllib3.HTTPResponse(io.BytesIO(f"<Error><Code>{code}</Code></Error>".encode()), preload_content=False)
    return AWSResponse(request.url, status, HTTPHeaderDict(), raw)


def test_a_store_that_ignores_the_condition_for_uploads_in_parts_overwrites_nothing(
    moto_client: "S3Client", prefix: str, large: BinaryIO
) -> None:
    def ignore(request: AWSPreparedRequest, **_: Any) -> None:
        del request.headers["If-None-Match"]

    client = like(moto_client, ignore, "CompleteMultipartUpload")
    bucket = Bucket(client, "archive", prefix)
    assert bucket.capabilities.create_only
    put(bucket, f"{prefix}large.WAV", large)
    before = bucket.hash_object(f"{prefix}large.WAV")
    large.seek(500)
    large.write(b"other bytes")
    with pytest.raises(KeyExists):
        put(bucket, f"{prefix}large.WAV", large)
    assert bucket.hash_object(f"{prefix}large.WAV") == before
    assert open_uploads(client, prefix) == []


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart"])
def test_a_store_that_does_not_know_the_checksum_of_a_part_is_sent_the_whole(
    moto_client: "S3Client", prefix: str, large: BinaryIO, operation: str
) -> None:
    def refuse(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        known = "checksum" not in " ".join(request.headers.keys()).lower()
        return None if known else answer(request, 501, "NotImplemented")

    bucket = Bucket(like(moto_client, refuse, operation), "archive", prefix)
    assert put(bucket, f"{prefix}a.WAV", large).proven
    assert bucket.hash_object(f"{prefix}a.WAV").sha256 == sha256_of(large)
    assert open_uploads(moto_client, prefix) == []


@pytest.mark.parametrize("status", [400, 405, 501])
def test_a_store_without_uploads_in_parts_is_sent_the_whole_and_overwrites_nothing(
    moto_client: "S3Client", prefix: str, large: BinaryIO, status: int
) -> None:
    def refuse(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        return answer(request, status, "")

    client = like(moto_client, refuse, "CreateMultipartUpload")
    bucket = Bucket(client, "archive", prefix)
    assert put(bucket, f"{prefix}large.WAV", large).proven
    before = bucket.hash_object(f"{prefix}large.WAV")
    assert before.sha256 == sha256_of(large)
    large.seek(500)
    large.write(b"other bytes")
    with pytest.raises(KeyExists):
        put(bucket, f"{prefix}large.WAV", large)
    assert bucket.hash_object(f"{prefix}large.WAV") == before


def test_an_error_in_the_body_of_a_completion_is_no_success(
    moto_client: "S3Client", prefix: str, large: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    asked: list[str] = []

    def fail(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        asked.append(request.url)
        return answer(request, 200, "InternalError")

    bucket = Bucket(like(moto_client, fail, "CompleteMultipartUpload"), "archive", prefix)
    with pytest.raises(StorageUnavailable, match="InternalError"):
        put(bucket, f"{prefix}large.WAV", large)
    assert len(asked) == 5
    assert bucket.head(f"{prefix}large.WAV") is None
    assert open_uploads(moto_client, prefix) == []


def test_a_large_recording_whose_answer_was_lost_is_found_to_be_stored(
    proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf, large: BinaryIO
) -> None:
    large.seek(0)
    upload = upload_of(large.read())
    proxy.orders["POST"] = [None, "lose"]
    assert store(proxied, upload, large).sha256 == upload.sha256
    assert proxied.hash_object(upload.key).sha256 == upload.sha256


def test_parts_of_an_upload_that_somebody_aborted_are_no_object_that_is_stored(
    moto_client: "S3Client", large: BinaryIO
) -> None:
    def refuse(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        return answer(request, 404, "NoSuchUpload")

    with pytest.raises(StorageUnavailable, match="was aborted before it was complete"):
        put(Bucket(like(moto_client, refuse, "UploadPart"), "archive", ""), "aborted.WAV", large)


def test_a_body_that_cannot_be_read_breaks_off_as_what_it_is(moto_bucket: Bucket) -> None:
    class Unreadable(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises((OSError, StorageError)):
        moto_bucket.put_new(f"{moto_bucket.prefix}a", Unreadable(b"x" * 100), sha256="0" * 64, content_type="audio/wav")
    assert moto_bucket.head(f"{moto_bucket.prefix}a") is None
