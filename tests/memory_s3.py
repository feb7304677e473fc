"""An S3 client over dictionaries, for tests of what is stored and not of how S3 is spoken to.

A request through boto3 costs 3 ms of CPU here, and a run makes two hundred. It answers as Amazon does what the product
and its tests ask (tests/strict/test_memory.py compares them): `IfNoneMatch` and checksums count, lists come in pages.
"""

# ruff: noqa: ARG002, N803 - boto3's names, of which not all matter here

from __future__ import annotations

import base64
import hashlib
import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from pipelines.archive import client as archive_client

PAGE = 1000


@dataclass(frozen=True)
class Stored:
    """An object. S3 knows the second of its arrival, no less."""

    body: bytes
    metadata: dict[str, str]
    etag: str
    sha256: str | None
    modified: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def facts(self) -> dict[str, Any]:
        checksum = {"ChecksumSHA256": self.sha256} if self.sha256 else {}
        return {"ETag": self.etag, "LastModified": self.modified, "Metadata": dict(self.metadata), **checksum}


class MemoryS3:
    """What `make_s3_client` returns, as far as it is used. Safe to share between threads."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, Stored]] = {}
        self._uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = {}
        self._lock = Lock()
        # Its own name: clients are cached by their variables.
        url = f"http://memory-{uuid.uuid4().hex}.invalid"
        ignored = lambda *_, **__: None  # noqa: E731
        events = SimpleNamespace(register=ignored, register_first=ignored, register_last=ignored)
        self.meta = SimpleNamespace(endpoint_url=url, region_name="us-east-1", events=events)

    def environment(self) -> dict[str, str]:
        """Variables that lead nowhere but here: what does not use this client fails at once."""
        return {
            "AWS_ACCESS_KEY_ID": "MEMORYACCESSKEY00001",
            "AWS_SECRET_ACCESS_KEY": "memory-secret-access-key-000000000000001",
            "AWS_ENDPOINT_URL_S3": self.meta.endpoint_url,
            "AWS_REGION": "us-east-1",
        }

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let whatever makes an S3 client in this process get this one."""
        session = SimpleNamespace(client=lambda *_, **__: self)
        monkeypatch.setattr(archive_client, "boto3_session", lambda: session)

    def copy_bucket(self, name: str, new: str) -> None:
        with self._lock:
            self._buckets[new] = dict(self._buckets[name])

    def close(self) -> None:
        """Have nothing to close."""

    def create_bucket(self, *, Bucket: str) -> None:
        self._buckets.setdefault(Bucket, {})

    def get_bucket_versioning(self, *, Bucket: str) -> dict[str, Any]:
        self._objects(Bucket, "GetBucketVersioning")
        return {}

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes | BinaryIO = b"",
        ContentType: str = "",
        Metadata: dict[str, str] | None = None,
        StorageClass: str = "",
        IfNoneMatch: str = "",
        ContentMD5: str = "",
        ChecksumAlgorithm: str = "",
        ChecksumSHA256: str = "",
    ) -> dict[str, Any]:
        body = bytes(Body) if isinstance(Body, bytes | bytearray | memoryview) else Body.read()
        md5, sha256 = hashlib.md5(body, usedforsecurity=False), _base64(hashlib.sha256(body).digest())
        if (ContentMD5 and ContentMD5 != _base64(md5.digest())) or (ChecksumSHA256 and ChecksumSHA256 != sha256):
            _refuse(400, "BadDigest", "PutObject")
        stored = Stored(body, dict(Metadata or {}), f'"{md5.hexdigest()}"', sha256 if ChecksumSHA256 else None)
        return self._store(Bucket, Key, stored, IfNoneMatch, "PutObject")

    def head_object(self, *, Bucket: str, Key: str, ChecksumMode: str = "") -> dict[str, Any]:
        if (found := self._objects(Bucket, "HeadObject").get(Key)) is None:
            _refuse(404, "404", "HeadObject")
        facts = found.facts() | {"ContentLength": len(found.body)}
        if not ChecksumMode:
            facts.pop("ChecksumSHA256", None)
        return facts

    def get_object(self, *, Bucket: str, Key: str, Range: str = "") -> dict[str, Any]:
        if (found := self._objects(Bucket, "GetObject").get(Key)) is None:
            _refuse(404, "NoSuchKey", "GetObject")
        body, facts = found.body, found.facts()
        facts.pop("ChecksumSHA256", None)
        if Range:
            start, _, last = Range.removeprefix("bytes=").partition("-")
            if int(start) >= len(found.body):
                _refuse(416, "InvalidRange", "GetObject")
            body = found.body[int(start) : int(last) + 1]
            facts["ContentRange"] = f"bytes {start}-{int(start) + len(body) - 1}/{len(found.body)}"
        return facts | {"Body": StreamingBody(io.BytesIO(body), len(body)), "ContentLength": len(body)}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        self._objects(Bucket, "DeleteObject").pop(Key, None)
        return {}

    def list_objects_v2(
        self,
        *,
        Bucket: str,
        Prefix: str = "",
        Delimiter: str = "",
        StartAfter: str = "",
        MaxKeys: int = PAGE,
        ContinuationToken: str = "",
    ) -> dict[str, Any]:
        objects = self._objects(Bucket, "ListObjectsV2")
        after = max(StartAfter, ContinuationToken)
        items: list[dict[str, Any]] = []
        folders: list[dict[str, str]] = []
        with self._lock:
            keys = sorted(key for key in objects if key.startswith(Prefix) and key > after)
        last = ""
        for key in keys:
            rest = key[len(Prefix) :]
            folder = Prefix + rest[: rest.index(Delimiter) + 1] if Delimiter and Delimiter in rest else ""
            if folder and ((folders and folders[-1]["Prefix"] == folder) or after.startswith(folder)):
                last = key
                continue
            if len(items) + len(folders) == MaxKeys:
                break
            last = key
            if folder:
                folders.append({"Prefix": folder})
            else:
                found = objects[key]
                facts = {"Size": len(found.body), "ETag": found.etag, "LastModified": found.modified}
                items.append({"Key": key, **facts})
        page: dict[str, Any] = {"KeyCount": len(items) + len(folders), "IsTruncated": bool(keys) and last != keys[-1]}
        page |= {"Contents": items} if items else {}
        page |= {"CommonPrefixes": folders} if folders else {}
        return page | ({"NextContinuationToken": last} if page["IsTruncated"] else {})

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_objects_v2"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, *, PaginationConfig: dict[str, int] | None = None, **query: Any) -> Iterator[dict[str, Any]]:
        query["MaxKeys"] = (PaginationConfig or {}).get("PageSize", PAGE)
        while True:
            page = self.list_objects_v2(**query)
            yield page
            if not page["IsTruncated"]:
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def create_multipart_upload(
        self,
        *,
        Bucket: str,
        Key: str,
        ContentType: str = "",
        Metadata: dict[str, str] | None = None,
        StorageClass: str = "",
        ChecksumAlgorithm: str = "",
    ) -> dict[str, Any]:
        self._objects(Bucket, "CreateMultipartUpload")
        name = uuid.uuid4().hex
        self._uploads[name] = dict(Metadata or {}), {}
        return {"UploadId": name}

    def upload_part(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        Body: bytes,
        ContentMD5: str = "",
        ChecksumAlgorithm: str = "",
        ChecksumSHA256: str = "",
    ) -> dict[str, Any]:
        md5, sha256 = hashlib.md5(Body, usedforsecurity=False), _base64(hashlib.sha256(Body).digest())
        if (ContentMD5 and ContentMD5 != _base64(md5.digest())) or (ChecksumSHA256 and ChecksumSHA256 != sha256):
            _refuse(400, "BadDigest", "UploadPart")
        self._uploads[UploadId][1][PartNumber] = Body
        return {"ETag": f'"{md5.hexdigest()}"'}

    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> dict[str, Any]:
        self._uploads.pop(UploadId, None)
        return {}

    def complete_multipart_upload(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        MultipartUpload: dict[str, Any],
        IfNoneMatch: str = "",
    ) -> dict[str, Any]:
        if UploadId not in self._uploads:
            _refuse(404, "NoSuchUpload", "CompleteMultipartUpload")
        metadata, parts = self._uploads[UploadId]
        blocks = [parts[part["PartNumber"]] for part in MultipartUpload["Parts"]]
        md5 = hashlib.md5(b"".join(hashlib.md5(block).digest() for block in blocks), usedforsecurity=False)
        digest = _base64(hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).digest())
        named = f"{digest}-{len(blocks)}" if "ChecksumSHA256" in MultipartUpload["Parts"][0] else None
        stored = Stored(b"".join(blocks), metadata, f'"{md5.hexdigest()}-{len(blocks)}"', named)
        answer = self._store(Bucket, Key, stored, IfNoneMatch, "CompleteMultipartUpload")
        del self._uploads[UploadId]
        return answer

    def _objects(self, bucket: str, operation: str) -> dict[str, Stored]:
        if bucket not in self._buckets:  # the answer to a HEAD has no body that says more
            _refuse(404, "404" if operation == "HeadObject" else "NoSuchBucket", operation)
        return self._buckets[bucket]

    def _store(self, bucket: str, key: str, stored: Stored, condition: str, operation: str) -> dict[str, Any]:
        objects = self._objects(bucket, operation)
        with self._lock:
            if condition and key in objects:
                _refuse(412, "PreconditionFailed", operation)
            objects[key] = stored
        return {"ETag": stored.etag} | ({"ChecksumSHA256": stored.sha256} if stored.sha256 else {})


def _refuse(status: int, code: str, operation: str) -> NoReturn:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    raise ClientError(answer, operation)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
