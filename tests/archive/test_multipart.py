import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from botocore.exceptions import ClientError

from pipelines.archive.bucket import Bucket, make_s3_client
from pipelines.archive.errors import KeyExists, StorageError
from pipelines.archive.multipart import PART
from pipelines.archive.transfer import Conflict, Upload, store

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
    return [one["Key"] for one in client.list_multipart_uploads(Bucket="archive", Prefix=prefix).get("Uploads", [])]


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
    with pytest.raises(Conflict) as caught:
        store(moto_bucket, upload_of(large.read()), large)
    assert moto_bucket.hash_object(caught.value.kept_as).sha256 == sha256_of(large)


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (
            ClientError(
                {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
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


def test_a_body_that_cannot_be_read_breaks_off_as_what_it_is(moto_bucket: Bucket) -> None:
    class Unreadable(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises((OSError, StorageError)):
        moto_bucket.put_new(f"{moto_bucket.prefix}a", Unreadable(b"x" * 100), sha256="0" * 64, content_type="audio/wav")
    assert moto_bucket.head(f"{moto_bucket.prefix}a") is None
