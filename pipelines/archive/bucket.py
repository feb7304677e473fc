"""The bucket: the few calls the archive makes, typed, with errors people can act on.

What is stored and whether it may be believed is decided in `transfer`; here are the calls, and what servers differ in:

* `IfNoneMatch='*'` is honoured by S3 and most others, and silently ignored by some (`rclone serve s3`). So anywhere
  but at Amazon a create-only put looks first, one put per key at a time in this process. Two processes can still
  overtake each other on such a server.
* Some refuse `IfNoneMatch` with 501; from then on it is left out, and the look alone must do.
* Metadata keys come back in another case from some, and ETags without their quotes in listings.
* A checksum in an answer may be an echo of what was sent, never computed (`rclone serve s3`, `moto_server`): it proves
  nothing there.
* Object metadata can be lost while the bytes stay (`rclone serve s3` keeps it in memory only).
"""

import base64
import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from pipelines.archive.errors import KeyExists, KeyMissing, StorageError, storage_errors
from pipelines.archive.keys import day_prefix, metadata_text

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Bucket", "Hashed", "Listed", "ObjectFacts", "ObjectReader", "Put", "make_s3_client"]

_BLOCK = 1 << 20
_STRIPES = 1024
_CLASHES = 6  # waits of 0.2, 0.4 … 6.4 s: another put of the same key is in flight


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing. `etag` is without quotes."""

    size: int
    etag: str


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
    etag_is_opaque: bool

    def is_recording(self, recording_id: str) -> bool:
        """Whether the object says that it is this recording."""
        return self.recording_id == metadata_text(recording_id)


@dataclass(frozen=True, slots=True)
class Put:
    """The store's answer to a put. `etag_is_opaque`: encrypted with a key of KMS or the customer, so no MD5 of the
    bytes.
    """

    etag: str
    version_id: str | None
    checksum_sha256: str | None
    etag_is_opaque: bool


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
        sleep: waits so many seconds.
    """

    def __init__(
        self, client: "S3Client", name: str, prefix: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._client = client
        self._sleep = sleep
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._conditions = True  # until the server says that it does not know them
        self.is_amazon = _is_amazon(client.meta.endpoint_url)

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, prefix={self.prefix!r})"

    def list_day(self, day: date) -> dict[str, Listed]:
        """All recordings stored for a day, by key."""
        return dict(self.list_keys(day_prefix(self.prefix, day)))

    def list_keys(self, start: str) -> Iterator[tuple[str, Listed]]:
        """Every object whose key begins with `start` (the whole key, prefix included), in the store's order."""
        with storage_errors(self.name, "s3:ListBucket", start):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start):
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

    def put_new(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        md5: str,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> Put:
        """Store an object where there is none. What the answer proves is for the caller to judge.

        Args:
            key: the whole key.
            body: the bytes, or a seekable stream that holds nothing else.
            md5: of the body, hex. Sent as Content-MD5, which every server checks that checks anything.
            sha256: of the body, hex. Sent as the object's checksum.
            content_type: media type.
            metadata: ASCII values.

        Raises:
            KeyExists: something lies there.
            StoreDamaged: the bytes arrived otherwise than they were sent, and the store refused them.
        """
        send = partial(self._put, key, body, md5=md5, sha256=sha256, content_type=content_type, metadata=metadata or {})
        if self.is_amazon:
            return send()
        with self._locks[zlib.crc32(key.encode()) % _STRIPES]:
            if self.head(key) is not None:
                raise KeyExists(key)
            return send()

    def put(self, key: str, body: bytes, *, content_type: str) -> Put:
        """Store an object in place of what is there: only for what can be derived again."""
        md5, sha = hashlib.md5(body, usedforsecurity=False).digest(), hashlib.sha256(body).digest()
        with storage_errors(self.name, "s3:PutObject", key):
            return _put(
                self._client.put_object(
                    Bucket=self.name,
                    Key=key,
                    Body=body,
                    ContentType=content_type,
                    ContentMD5=_base64(md5),
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=_base64(sha),
                )
            )

    def _put(
        self, key: str, body: bytes | BinaryIO, *, md5: str, sha256: str, content_type: str, metadata: Mapping[str, str]
    ) -> Put:
        for clash in count():
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if self._conditions else {}
            if not isinstance(body, bytes):
                body.seek(0)
            try:
                with storage_errors(self.name, "s3:PutObject", key):
                    return _put(
                        self._client.put_object(
                            Bucket=self.name,
                            Key=key,
                            Body=body,
                            ContentType=content_type,
                            Metadata=metadata,
                            ContentMD5=_base64(bytes.fromhex(md5)),
                            # S3 takes the checksum alone; moto_server keeps it only when the algorithm is named too.
                            ChecksumAlgorithm="SHA256",
                            ChecksumSHA256=_base64(bytes.fromhex(sha256)),
                            **condition,
                        )
                    )
            except StorageError as error:
                if error.code == "ConditionalRequestConflict" and clash < _CLASHES:
                    # Another create-only put of the same key is in flight: S3 says 409, which botocore does not repeat,
                    # and 412 once the other one has landed.
                    self._sleep(0.2 * 2**clash)
                elif error.code == "NotImplemented" and condition and not self.is_amazon:
                    self._conditions = False
                else:
                    raise
        raise AssertionError("count() never ends")  # pragma: no cover


def make_s3_client(*, max_connections: int, endpoint_url: str | None = None) -> "S3Client":
    """One client for the whole process, shared by its threads (building one costs 0.25 s of CPU).

    Region, credentials and, without `endpoint_url`, `AWS_ENDPOINT_URL_S3` are found by boto3's own rules.

    Every put gives Content-MD5 and its checksum itself, and the client adds none. Because Content-MD5 is there,
    botocore leaves the body unsigned over TLS (one pass over the bytes less) and signs it over plain HTTP, where
    nothing else would protect it.

    Args:
        max_connections: at least the number of threads that use it.
        endpoint_url: an S3 that is not Amazon's.
    """
    session = boto3.Session()

    def build(style: Literal["auto", "path"]) -> "S3Client":
        return session.client(
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


def _opaque(response: Mapping[str, Any]) -> bool:
    return str(response.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in response


def _put(response: Mapping[str, Any]) -> Put:
    return Put(
        response.get("ETag", "").strip('"'),
        response.get("VersionId"),
        response.get("ChecksumSHA256"),
        _opaque(response),
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
        etag_is_opaque=_opaque(response),
    )
