"""The bucket: the few calls the archive makes, typed, with errors people can act on.

What is stored and whether it may be believed is decided in `transfer`; here are the calls, and what servers differ in:

* What a server checks of a put is found out once (`capabilities`). Where it does not honour `IfNoneMatch='*'`, a
  create-only put looks first, one put per key at a time in this process; two processes can still overtake each other on
  such a server. An upload in parts always looks first, since some honour the condition for single puts alone.
* Where the server does not check the SHA-256, the bytes are hashed again as they are sent and compared with what was
  received; an MD5 is sent too, and compared with the ETag.
* Metadata keys come back in another case from some, and ETags without their quotes in listings.
* A checksum in an answer may be an echo of what was sent, never computed (`rclone serve s3`, `moto_server`): it proves
  nothing there.
* Object metadata can be lost while the bytes stay (`rclone serve s3` keeps it in memory only).
"""

import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipelines.archive.capabilities import AMAZON, Capabilities, find_out
from pipelines.archive.client import is_amazon
from pipelines.archive.errors import KeyExists, KeyMissing, StorageError, StorageRefused, storage_errors
from pipelines.archive.keys import day_prefix, metadata_text
from pipelines.archive.listing import Listed, list_in_parallel
from pipelines.archive.multipart import PART, changed_here, put_in_parts
from pipelines.aws import as_base64, md5_of

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

_BLOCK = 1 << 20
_STRIPES = 1024
_IN_FLIGHT: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})


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
    """An object's bytes as they arrive."""

    def __init__(self, bucket: str, key: str, body: "StreamingBody") -> None:
        self._bucket, self._key, self._body = bucket, key, body

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; all that is left for -1; empty at the end.

        Raises:
            StorageUnavailable: the stream broke off before the object's length.
        """
        with storage_errors(self._bucket, "s3:GetObject", self._key):
            return self._body.read(None if size < 0 else size)


class Bucket:
    """One bucket and the prefix of everything in it that is ours. Safe to share between threads.

    Args:
        client: as `make_s3_client` builds it.
        name: ARCHIVE_BUCKET.
        prefix: ARCHIVE_PREFIX, with its last slash, or empty.
        storage_class: of recordings; None leaves it to the bucket.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        client: "S3Client",
        name: str,
        prefix: str,
        *,
        storage_class: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.storage_class = storage_class
        self.is_amazon = is_amazon(client)
        self._client = client
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._finding_out = threading.Lock()
        self._capabilities = AMAZON if self.is_amazon else None
        self._part_checksums = True
        # While another create-only put of the same key is in flight S3 says 409, which botocore does not retry; once
        # that one has ended it says 412. Waits of 0.2, 0.4 … 6.4 s.
        self._when_free = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, StorageError) and error.code in _IN_FLIGHT),
            wait=wait_exponential(multiplier=0.2),
            stop=stop_after_attempt(7),
            sleep=sleep,
            reraise=True,
        )

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, prefix={self.prefix!r})"

    def list_day(self, day: date, expected: Iterable[str] = ()) -> dict[str, Listed]:
        """Return all recordings stored for a day, by key; many are listed sooner when the `expected` keys are given."""
        if self.name.endswith("--x-s3"):  # S3 Express lists in no order, and not from a key on
            expected = ()
        return list_in_parallel(self.list_keys, day_prefix(self.prefix, day), expected)

    def list_keys(self, start: str, after: str = "") -> Iterator[tuple[str, Listed]]:
        """Yield every object whose key begins with `start` (the whole key, prefix included) and comes after `after`, in
        the store's order.
        """
        query: Any = {"StartAfter": after} if after else {}
        with storage_errors(self.name, "s3:ListBucket", start):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start, **query)
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"], Listed(item["Size"], item.get("ETag", "").strip('"'))

    def list_folders(self, start: str) -> Iterator[str]:
        """Yield what is directly under `start` (which ends in a slash, or is empty): folders with their last slash, and
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

    @contextmanager
    def open(self, key: str) -> Iterator[ObjectReader]:
        """Read an object for the length of a `with`.

        Raises:
            KeyMissing: there is none.
        """
        with storage_errors(self.name, "s3:GetObject", key):
            body = self._client.get_object(Bucket=self.name, Key=key)["Body"]
        with closing(body):
            yield ObjectReader(self.name, key, body)

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
    def capabilities(self) -> Capabilities:
        """What the server checks of a put; found out when it is first asked for.

        Raises:
            StorageUnavailable: it does not answer.
        """
        with self._finding_out:
            if self._capabilities is None:
                self._capabilities = find_out(self._client, self.name, self.prefix)
            return self._capabilities

    def put_new(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        storage_class: str | None = None,
    ) -> Put:
        """Store an object where there is none. Whether the answer is proof enough is for the caller to judge.

        `key` is the whole key, `body` the bytes or a seekable stream that holds nothing else, of which at most
        `multipart.PART` bytes are in memory at a time, and `sha256` that of what was received, in hex.

        Raises:
            KeyExists: an object is stored there.
            StoreDamaged: the bytes are not those of `sha256`, here or where they arrived, and were not stored.
        """
        fields: dict[str, Any] = {"ContentType": content_type, "Metadata": dict(metadata or {})}
        if storage_class:
            fields["StorageClass"] = storage_class
        size = len(body) if isinstance(body, bytes) else body.seek(0, os.SEEK_END)
        if not isinstance(body, bytes) and size > PART:
            with self._locks[zlib.crc32(key.encode()) % _STRIPES]:
                if self.head(key) is not None:
                    raise KeyExists(key)
                return self._when_free(self._put_in_parts, key, body, size, sha256, fields)
        if not isinstance(body, bytes):
            body.seek(0)
            body = body.read(size)
        if self.capabilities.create_only:
            return self._when_free(self._put, key, body, sha256, fields | {"IfNoneMatch": "*"})
        with self._locks[zlib.crc32(key.encode()) % _STRIPES]:
            if self.head(key) is not None:
                raise KeyExists(key)
            return self._put(key, body, sha256, fields)

    def put(self, key: str, body: bytes, *, content_type: str) -> Put:
        """Store an object in place of what is there: only for what can be derived again."""
        return self._put(key, body, hashlib.sha256(body).hexdigest(), {"ContentType": content_type})

    def _put(self, key: str, body: bytes, sha256: str, fields: dict[str, Any]) -> Put:
        checksums, md5 = self.capabilities.checksums, None
        if checksums != "refused":
            # S3 takes the checksum alone; moto_server keeps it only when the algorithm is named too.
            fields |= {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": as_base64(bytes.fromhex(sha256))}
        if checksums != "checked":
            if hashlib.sha256(body).hexdigest() != sha256:
                raise changed_here(key)
            md5 = md5_of(body)
            fields |= {"ContentMD5": as_base64(md5)}
        with storage_errors(self.name, "s3:PutObject", key):
            answer = self._client.put_object(Bucket=self.name, Key=key, Body=body, **fields)
        etag = answer.get("ETag", "").strip('"')
        if md5 is None:
            proven = answer.get("ChecksumSHA256", fields["ChecksumSHA256"]) == fields["ChecksumSHA256"]
        else:
            proven = etag == md5.hex() and not _encrypted(answer)
        return Put(etag, answer.get("VersionId"), proven=proven)

    def _put_in_parts(self, key: str, body: BinaryIO, size: int, sha256: str, fields: Mapping[str, Any]) -> Put:
        known = self.capabilities
        checksums = self._part_checksums and known.checksums != "refused"
        try:
            put = put_in_parts(
                self._client, self.name, key, body,
                size=size, sha256=sha256, checksums=checksums, create_only=known.create_only, fields=fields,
            )  # fmt: skip
        except StorageRefused as error:
            if self.is_amazon or error.status not in {400, 405, 501}:
                raise
            if not checksums:  # some know no uploads in parts
                body.seek(0)
                condition = {"IfNoneMatch": "*"} if known.create_only else {}
                return self._put(key, body.read(size), sha256, {**fields, **condition})
            self._part_checksums = False  # some know the checksum of a whole object, and not that of a part
            return self._put_in_parts(key, body, size, sha256, fields)
        is_checked = checksums and known.checksums == "checked"
        return Put(put.etag, put.version_id, proven=put.checksum_agrees if is_checked else put.etag_agrees)


def _encrypted(answer: Mapping[str, Any]) -> bool:
    """Whether the object is encrypted with a key of KMS or the customer, so that its ETag is no MD5."""
    return answer.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in answer


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
