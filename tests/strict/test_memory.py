"""The S3 client in memory answers the product as Amazon does, so that what tests show with it is true there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.memory_s3 import MemoryS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


BODY, OTHER = b"RIFF" + bytes(range(256)), b"other bytes"
ANSWERED = ("ETag", "ContentLength", "ContentRange", "Metadata", "ChecksumSHA256", "IsTruncated", "KeyCount")


def coded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


SHA256, MD5 = coded(hashlib.sha256(BODY).digest()), coded(hashlib.md5(BODY).digest())
NAMED: dict[str, Any] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": SHA256}


def tell(call: Callable[..., Any], **query: Any) -> Any:
    """What an answer says, or the code and the status with which it is refused."""
    try:
        answer = call(**query)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    facts = {name: answer[name] for name in ANSWERED if name in answer}
    if "Body" in answer:
        facts["Body"] = answer["Body"].read()
    facts["Contents"] = [(item["Key"], item["Size"], item["ETag"]) for item in answer.get("Contents", [])]
    facts["Folders"] = [folder["Prefix"] for folder in answer.get("CommonPrefixes", [])]
    return facts


def puts(s3: Any, bucket: str) -> Iterator[Any]:
    where: dict[str, Any] = {"Bucket": bucket, "Key": "a/1"}
    yield tell(s3.put_object, **where, Body=BODY, IfNoneMatch="*", Metadata={"sha256": "x"}, **NAMED)
    yield tell(s3.put_object, **where, Body=OTHER, IfNoneMatch="*")
    yield tell(s3.put_object, **where, Body=OTHER, **NAMED)
    yield tell(s3.put_object, **where, Body=OTHER, ContentMD5=MD5)
    yield tell(s3.get_object, **where)
    yield tell(s3.put_object, **where, Body=OTHER)
    yield tell(s3.get_object, **where)
    yield tell(s3.put_object, Bucket=f"no-{bucket}", Key="a", Body=BODY)


def reads(s3: Any, bucket: str) -> Iterator[Any]:
    where: dict[str, Any] = {"Bucket": bucket, "Key": "a b/ü.WAV"}
    s3.put_object(**where, Body=BODY, Metadata={"recording-id": "1"}, **NAMED)
    for query in ({}, {"Range": "bytes=4-7"}, {"Range": "bytes=250-999"}, {"Range": "bytes=999-1000"}):
        yield tell(s3.get_object, **where, **query)
    yield tell(s3.head_object, **where)
    yield tell(s3.head_object, **where, ChecksumMode="ENABLED")
    for call in (s3.get_object, s3.head_object):
        yield tell(call, Bucket=bucket, Key="none")
        yield tell(call, Bucket=f"no-{bucket}", Key="none")
    s3.delete_object(**where)
    yield tell(s3.get_object, **where)
    yield tell(s3.delete_object, **where)


def lists(s3: Any, bucket: str) -> Iterator[Any]:
    for key in ("a/1/x", "a/1/y", "a/2", "a/2/z", "b", "a/3/x"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    queries: list[dict[str, Any]] = [
        {},
        {"Prefix": "a/"},
        {"Prefix": "a/1"},
        {"Prefix": "none"},
        {"Prefix": "a/", "Delimiter": "/"},
        {"Delimiter": "/"},
        {"StartAfter": "a/1/y"},
        {"Prefix": "a/", "StartAfter": "a/2"},
        {"MaxKeys": 1},
        {"Prefix": "a/", "Delimiter": "/", "MaxKeys": 2},
    ]
    for query in queries:
        yield query, tell(s3.list_objects_v2, Bucket=bucket, **query)
        config = {"PaginationConfig": {"PageSize": query["MaxKeys"]}} if "MaxKeys" in query else {}
        without = {name: value for name, value in query.items() if name != "MaxKeys"}
        yield [
            (item.get("Key"), item.get("Prefix"))
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **without, **config)
            for item in (*page.get("CommonPrefixes", []), *page.get("Contents", []))
        ]
    yield tell(s3.list_objects_v2, Bucket=f"no-{bucket}")


def uploads(s3: Any, bucket: str) -> Iterator[Any]:
    blocks = [bytes(5 << 20), BODY]
    for checksums, condition in ((True, "*"), (False, ""), (True, "*")):
        where: dict[str, Any] = {"Bucket": bucket, "Key": "large"}
        algorithm = {"ChecksumAlgorithm": "SHA256"} if checksums else {}
        upload = where | {"UploadId": s3.create_multipart_upload(**where, **algorithm)["UploadId"]}
        parts = []
        for number, block in enumerate(blocks, start=1):
            digest = {"ChecksumSHA256": coded(hashlib.sha256(block).digest())} if checksums else {}
            sent = s3.upload_part(**upload, PartNumber=number, Body=block, **algorithm, **digest)
            parts.append({"PartNumber": number, "ETag": sent["ETag"], **digest})
        yield tell(s3.upload_part, **upload, PartNumber=2, Body=OTHER, ContentMD5=MD5)
        extra = {"IfNoneMatch": condition} if condition else {}
        yield tell(s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": parts}, **extra)
        yield tell(s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": parts})
    yield tell(s3.head_object, Bucket=bucket, Key="large")


@pytest.mark.parametrize("asked", [puts, reads, lists, uploads])
def test_what_is_put_read_listed_and_refused_is_the_same_in_memory(
    client: Callable[..., S3Client], bucket: str, asked: Callable[[Any, str], Iterator[Any]]
) -> None:
    memory = MemoryS3()
    memory.create_bucket(Bucket=bucket)
    amazon = client(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    for here, there in zip(asked(memory, bucket), asked(amazon, bucket), strict=True):
        assert here == there
