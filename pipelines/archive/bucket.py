"""The bucket: the few calls the archive makes, typed, with errors people can act on.

What is stored and whether it may be believed is decided in `transfer`; here are the calls, and what servers differ in:

* What a server checks of a put is found out once, by `manners`. Where it does not honour `IfNoneMatch='*'`, a
  create-only put looks first, one put per key at a time in this process; two processes can still overtake each other on
  such a server. Where it does not check the SHA-256, an MD5 is sent too, and compared with the ETag.
* Some refuse `IfNoneMatch` with 501; from then on it is left out, and the look alone must do.
* Metadata keys come back in another case from some, and ETags without their quotes in listings.
* A checksum in an answer may be an echo of what was sent, never computed (`rclone serve s3`, `moto_server`): it proves
  nothing there.
* Object metadata can be lost while the bytes stay (`rclone serve s3` keeps it in memory only).
"""

import base64
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from pipelines.archive.errors import KeyExists, KeyMissing, StorageError, storage_errors
from pipelines.archive.keys import day_prefix, metadata_text
from pipelines.archive.listing import PAGE_EVENT, Listed, list_side_by_side, read_page
from pipelines.archive.manners import Manners, find_out
from pipelines.archive.multipart import LARGE, put_in_parts
from pipelines.archive.sender import Answer, Part, Sender, SignedSender
from pipelines.archive.tries import Tries

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Bucket", "Hashed", "Listed", "ObjectFacts", "ObjectReader", "Put", "make_s3_client"]

_BLOCK = 1 << 20
_STRIPES = 1024


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the store says about an object; `sha256` (hex) and `recording_id` are our own metadata, None when they are
    not there.

    `recording_id` is in the form of `keys.metadata_text`: compare with `is_recording`.
    """

    size: int
    etag: str
    version_id: str | None
    sha256: str | None
    recording_id: str | None
    checksum_sha256: str | None

    def is_recording(self, recording_id: str) -> bool:
        """Whether the object says that it is this recording."""
        return self.recording_id == metadata_text(recording_id)


@dataclass(frozen=True, slots=True)
class Put:
    """The store's answer to a put. `proven`: the store is known to hold the bytes that were sent; else they must be
    read again.
    """

    etag: str
    version_id: str | None
    proven: bool


@dataclass(frozen=True, slots=True)
class Hashed:
    """What was really read: bytes and SHA-256 (hex)."""

    size: int
    sha256: str


class ObjectReader:
    """An object's bytes as they arrive: `read(n)`, `facts`; close it, or use it in a `with`."""

    def __init__(self, bucket: str, key: str, response: Mapping[str, Any]) -> None:
        self._bucket, self._key, self._body = bucket, key, response["Body"]
        self.facts = _facts(response)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; all that is left for -1; empty at the end.

        Raises:
            StorageUnavailable: the stream broke off before the object's length.
        """
        with storage_errors(self._bucket, "s3:GetObject", self._key):
            data: bytes = self._body.read(None if size < 0 else size)
            return data

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Bucket:
    """One bucket and the prefix of everything in it that is ours. Safe to share between threads.

    Args:
        client: a boto3 S3 client, as `make_s3_client` builds it.
        name: ARCHIVE_BUCKET.
        prefix: ARCHIVE_PREFIX, with its last slash, or empty.
        sender: sends what is put; for tests.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        client: "S3Client",
        name: str,
        prefix: str,
        *,
        sender: Sender | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._client = client
        self._sender = sender
        self._tries = Tries(sleep)
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._finding_out = threading.Lock()
        self._manners: Manners | None = None
        self.is_amazon = _is_amazon(client.meta.endpoint_url)

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, prefix={self.prefix!r})"

    def list_day(self, day: date, expected: Iterable[str] = ()) -> dict[str, Listed]:
        """All recordings stored for a day, by key. Many are listed sooner when the `expected` keys are given."""
        return list_side_by_side(self.list_keys, day_prefix(self.prefix, day), expected)

    def list_keys(self, start: str, after: str = "") -> Iterator[tuple[str, Listed]]:
        """Every object whose key begins with `start` (the whole key, prefix included) and comes behind `after`, in the
        store's order.
        """
        with storage_errors(self.name, "s3:ListBucket", start):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=start, StartAfter=after
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"], Listed(item["Size"], item.get("ETag", "").strip('"'))

    def list_folders(self, start: str) -> Iterator[str]:
        """What lies directly under `start` (which ends in a slash, or is empty): folders with their last slash, and
        keys.
        """
        with storage_errors(self.name, "s3:ListBucket", start):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=start, Delimiter="/"
            )
            for page in pages:
                yield from (folder["Prefix"] for folder in page.get("CommonPrefixes", []))
                yield from (item["Key"] for item in page.get("Contents", []))

    def head(self, key: str) -> ObjectFacts | None:
        """What the store says about an object, None when there is none."""
        try:
            with storage_errors(self.name, "s3:GetObject (and s3:ListBucket)", key):
                return _facts(self._client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED"))
        except KeyMissing:
            return None

    def open(self, key: str) -> ObjectReader:
        """Start to read an object.

        Raises:
            KeyMissing: there is none.
        """
        with storage_errors(self.name, "s3:GetObject", key):
            return ObjectReader(self.name, key, self._client.get_object(Bucket=self.name, Key=key))

    def get_bytes(self, key: str) -> bytes:
        """A small object, whole.

        Raises:
            KeyMissing: there is none.
        """
        with self.open(key) as reader:
            return reader.read()

    def hash_object(self, key: str, into: BinaryIO | None = None) -> Hashed:
        """Read an object through and hash it: the only proof that needs nobody's word. The bytes go to `into` too when
        it is given.

        Raises:
            KeyMissing: there is none.
        """
        digest, size = hashlib.sha256(), 0
        with self.open(key) as reader:
            while block := reader.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if into is not None:
                    into.write(block)
        return Hashed(size, digest.hexdigest())

    @property
    def manners(self) -> Manners:
        """What the server checks of a put; found out when it is first asked for.

        Raises:
            StorageUnavailable: it does not answer.
        """
        with self._finding_out:
            if self._manners is None:
                amazon = Manners(conditions=True, checksums=True)
                self._manners = amazon if self.is_amazon else find_out(self._send, self.head, self.prefix)
            return self._manners

    def put_new(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> Put:
        """Store an object where there is none. Whether the answer is proof enough is for the caller to judge.

        Args:
            key: the whole key.
            body: the bytes, or a seekable stream that holds nothing else, which is never in memory as a whole. From
                `multipart.LARGE` bytes on it goes out in parts.
            sha256: of the body, hex. Sent as the object's checksum, and signed as the body's.
            content_type: media type.
            metadata: ASCII values.

        Raises:
            KeyExists: something lies there.
            StoreDamaged: the bytes arrived otherwise than they were sent, and the store refused them.
        """
        put = partial(self._put_new, key, body, sha256, content_type, metadata or {})
        if self.manners.conditions:
            try:
                return put()
            except StorageError as error:
                if error.code != "NotImplemented" or self.is_amazon:
                    raise
                self._manners = Manners(conditions=False, checksums=self.manners.checksums)
        with self._locks[zlib.crc32(key.encode()) % _STRIPES]:
            if self.head(key) is not None:
                raise KeyExists(key)
            return put()

    def put(self, key: str, body: bytes, *, content_type: str) -> Put:
        """Store an object in place of what is there: only for what can be derived again."""
        return self._put(key, body, hashlib.sha256(body).hexdigest(), {"content-type": content_type})

    def _put_new(
        self, key: str, body: bytes | BinaryIO, sha256: str, content_type: str, metadata: Mapping[str, str]
    ) -> Put:
        conditions = self.manners.conditions
        size = len(body) if isinstance(body, bytes) else body.seek(0, os.SEEK_END)
        if not isinstance(body, bytes) and size >= LARGE:
            with storage_errors(self.name, "s3:PutObject (and s3:AbortMultipartUpload)", key):
                put = put_in_parts(
                    self._client, self._send, self.name, key, body, size,
                    content_type=content_type, metadata=metadata, create_only=conditions,
                )  # fmt: skip
            return Put(put.etag, put.version_id, proven=put.composite_agrees and self.manners.checksums)
        headers = {"content-type": content_type}
        headers |= {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        if conditions:
            headers["if-none-match"] = "*"
        return self._put(key, body if isinstance(body, bytes) else Part(body, 0, size), sha256, headers)

    def _put(self, key: str, body: bytes | Part, sha256: str, headers: Mapping[str, str]) -> Put:
        strict = self.manners.checksums
        md5 = None if strict else _md5(body)
        checksum = _base64(bytes.fromhex(sha256))
        sent = {
            **headers,
            "x-amz-content-sha256": sha256,
            "x-amz-checksum-sha256": checksum,
            # S3 takes the checksum alone; moto_server keeps it only when the algorithm is named too.
            "x-amz-sdk-checksum-algorithm": "SHA256",
        }
        if md5 is not None:
            sent["content-md5"] = _base64(md5)
        answer = self._send(key, body, sent)
        etag = answer.headers.get("etag", "").strip('"')
        if strict:
            proven = answer.headers.get("x-amz-checksum-sha256", checksum) == checksum
        else:
            proven = md5 is not None and etag == md5.hex() and not _encrypted(answer.headers)
        return Put(etag, answer.headers.get("x-amz-version-id"), proven=proven)

    def _send(
        self, key: str, body: bytes | Part, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Answer:
        if self._sender is None:
            self._sender = SignedSender(self._client, self.name)
        sender = self._sender

        def once() -> Answer:
            with storage_errors(self.name, "s3:PutObject", key):
                return sender.put(key, body, headers, query)

        return self._tries(once)


def make_s3_client(*, max_connections: int, endpoint_url: str | None = None) -> "S3Client":
    """One client for the whole process, shared by its threads (building one costs 0.25 s of CPU).

    Region, credentials and, without `endpoint_url`, `AWS_ENDPOINT_URL_S3` are found by boto3's own rules.

    Args:
        max_connections: at least the number of threads that use it.
        endpoint_url: an S3 that is not Amazon's.
    """
    session = boto3.Session()

    def build(style: Literal["auto", "path"]) -> "S3Client":
        client = session.client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                max_pool_connections=max_connections,
                tcp_keepalive=True,
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": style},
            ),
        )
        client.meta.events.register(PAGE_EVENT, read_page)
        return client

    # bucket.localhost does not resolve: a server that is not Amazon's gets the bucket in the path, which all of them
    # understand.
    if endpoint_url is not None and not _is_amazon(endpoint_url):
        return build("path")
    client = build("auto")
    return client if _is_amazon(client.meta.endpoint_url) else build("path")


def _is_amazon(endpoint_url: str) -> bool:
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _md5(body: bytes | Part) -> bytes:
    """For servers that check nothing else: 4.4 ms of CPU for 2.9 MB, more than all the rest of a put."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
        return digest.digest()
    body.stream.seek(body.start)
    left = body.size
    while left and (block := body.stream.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _encrypted(headers: Mapping[str, str]) -> bool:
    """Whether the object is encrypted with a key of KMS or the customer, so that its ETag is no MD5."""
    return (
        headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
        or "x-amz-server-side-encryption-customer-algorithm" in headers
    )


def _facts(response: Mapping[str, Any]) -> ObjectFacts:
    metadata = {key.lower(): value for key, value in response.get("Metadata", {}).items()}
    return ObjectFacts(
        size=response["ContentLength"],
        etag=response.get("ETag", "").strip('"'),
        version_id=response.get("VersionId"),
        sha256=metadata.get("sha256"),
        recording_id=metadata.get("recording-id"),
        checksum_sha256=response.get("ChecksumSHA256"),
    )
