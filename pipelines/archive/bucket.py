"""The bucket: the few S3 calls that the archive makes, with errors that people can act on.

A put counts when the server is known to check the SHA-256 that it was given (`capabilities`), or when the bytes had
that SHA-256 as they were sent and the returned ETag is their MD5; otherwise the object is read again and hashed.
Servers differ (docs/storage.md): some echo the checksum that was sent, others lose metadata but keep the bytes.
"""

import hashlib
import io
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain, pairwise, takewhile
from typing import Any, BinaryIO, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipelines.archive.capabilities import AMAZON, Capabilities, Probes
from pipelines.archive.client import is_amazon
from pipelines.archive.errors import KeyExists, KeyMissing, StorageError, StorageRefused, StoreDamaged, storage_errors
from pipelines.archive.keys import day_prefix
from pipelines.aws import S3Client, as_base64, md5_of

PART: Final = 8 << 20
"""The size of a part in bytes; a larger body is uploaded in parts."""

_BLOCK: Final = 1 << 20
_LOCKS: Final = 1024
_LISTERS: Final = 16
_IN_FLIGHT: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
# The statuses of a store that supports no multipart uploads, or not with these parameters.
_NO_PARTS: Final = frozenset({400, 405, 501})
_PARTS_ACTION: Final = "s3:PutObject (and s3:AbortMultipartUpload)"


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The store's facts about an object; `sha256` (hex) and `recording_id` (`metadata_text`) are its own metadata."""

    size: int
    etag: str
    version_id: str | None
    sha256: str | None
    recording_id: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing. `etag` has no quotes; `modified` is aware."""

    size: int
    etag: str
    modified: datetime | None = None


class Hashed(NamedTuple):
    """The size of what was read, in bytes, and its SHA-256 in hex."""

    size: int
    sha256: str


class Put(NamedTuple):
    """The store's answer to a put. `proven`: the response shows that the store holds the bytes that were sent."""

    etag: str
    version_id: str | None
    proven: bool


class Bucket:
    """One bucket, and the `prefix` (ending in a slash, or empty) under which the archive keeps everything.

    Safe to share between threads. `storage_class` is for recordings; None leaves it to the bucket. Every method raises
    StorageUnavailable (retry later) or StorageRefused (fix the settings).
    """

    def __init__(self, client: S3Client, name: str, prefix: str, *, storage_class: str | None = None) -> None:
        self.name = name
        self.prefix = prefix
        self.storage_class = storage_class
        self.is_amazon = is_amazon(client)
        self._client = client
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._probe_lock = threading.Lock()
        self._capabilities = AMAZON if self.is_amazon else None
        # While another create-only put of the same key is in flight S3 answers 409, which botocore does not retry;
        # once that put has ended it answers 412. Waits of 0.2, 0.4 … 6.4 s.
        self._when_free = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, StorageError) and error.code in _IN_FLIGHT),
            wait=wait_exponential(multiplier=0.2),
            stop=stop_after_attempt(7),
            reraise=True,
        )

    def list_day(self, day: date, expected: Iterable[str] = (), *, least: int = 2000) -> dict[str, Listed]:
        """Return all recordings stored for a day, by key. The `expected` keys divide the listing into parallel parts,
        each with at least `least` of them: 100,000 take one second instead of eight.
        """
        start = day_prefix(self.prefix, day)
        inside = sorted(key for key in expected if key.startswith(start))
        step = max(least, -(-len(inside) // _LISTERS))
        # S3 Express lists in no order, and cannot start after a key.
        if (cuts := inside[step::step]) and not self.name.endswith("--x-s3"):

            def list_part(ends: tuple[str, str | None]) -> list[tuple[str, Listed]]:
                after, last = ends
                return list(takewhile(lambda item: last is None or item[0] <= last, self.list_keys(start, after)))

            with ThreadPoolExecutor(_LISTERS, thread_name_prefix="listing") as pool:
                found = dict(chain.from_iterable(pool.map(list_part, pairwise(["", *cuts, None]))))
            # Other stores may not either: then one sequential listing is made.
            if found.keys() >= set(inside):
                return found
        return dict(self.list_keys(start))

    def list_keys(self, start: str, after: str = "") -> Iterator[tuple[str, Listed]]:
        """Yield each object whose key begins with `start` and sorts after `after`, in the store's order."""
        for page in self._pages(start, {"StartAfter": after} if after else {}):
            for item in page.get("Contents", []):
                yield item["Key"], Listed(item["Size"], item.get("ETag", "").strip('"'), item.get("LastModified"))

    def list_folders(self, start: str) -> Iterator[str]:
        """Yield the folders (ending in a slash) and the keys directly under `start`, a folder or empty."""
        for page in self._pages(start, {"Delimiter": "/"}):
            yield from (folder["Prefix"] for folder in page.get("CommonPrefixes", []))
            yield from (item["Key"] for item in page.get("Contents", []))

    def _pages(self, start: str, options: dict[str, Any]) -> Iterator[Any]:
        with storage_errors(self.name, "s3:ListBucket", start):
            yield from self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=start, **options)

    def head(self, key: str) -> ObjectFacts | None:
        """Return the store's facts about an object, or None if no object is stored under the key."""
        try:
            with storage_errors(self.name, "s3:GetObject (and s3:ListBucket)", key):
                answer = self._client.head_object(Bucket=self.name, Key=key)
        except KeyMissing:
            return None
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return ObjectFacts(
            size=answer["ContentLength"],
            etag=answer.get("ETag", "").strip('"'),
            version_id=answer.get("VersionId"),
            sha256=metadata.get("sha256"),
            recording_id=metadata.get("recording-id"),
        )

    def blocks(self, key: str, size: int | None = _BLOCK) -> Iterator[bytes]:
        """Yield an object's bytes in blocks of `size` at most, or in one block (None); raise KeyMissing if absent."""
        with (
            storage_errors(self.name, "s3:GetObject", key),
            closing(self._client.get_object(Bucket=self.name, Key=key)["Body"]) as body,
        ):
            while block := body.read(size):
                yield block

    def read_range(self, key: str, start: int, end: int, size: int) -> bytes:
        """Return the bytes from `start` up to `end` (exclusive) of an object that must be `size` bytes long; raise
        KeyMissing if nothing is stored there, and StoreDamaged if it has another size or another range was sent.
        """
        with storage_errors(self.name, "s3:GetObject", key):
            answer = self._client.get_object(Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}")
            with closing(answer["Body"]) as body:
                if answer.get("ContentRange") == f"bytes {start}-{end - 1}/{size}":
                    return body.read()
        raise StoreDamaged(
            f"The object under {key} in the bucket {self.name} does not have the sealed {size:,} bytes, or the store "
            "does not serve ranges; verify its date"
        )

    def get_bytes(self, key: str) -> bytes:
        """Return a small object as a whole; raise KeyMissing if nothing is stored there."""
        return next(self.blocks(key, None), b"")

    def hash_object(self, key: str, into: BinaryIO | None = None) -> Hashed:
        """Hash a whole object, the only proof that does not rely on the store; write the bytes to `into` if given."""
        digest, size = hashlib.sha256(), 0
        for block in self.blocks(key):
            digest.update(block)
            size += len(block)
            if into is not None:
                into.write(block)
        return Hashed(size, digest.hexdigest())

    def sha256_of(self, key: str) -> str | None:
        """Return the SHA-256 of an object's bytes, in hex, or None if nothing is stored there."""
        try:
            return self.hash_object(key).sha256
        except KeyMissing:
            return None

    @property
    def capabilities(self) -> Capabilities:
        """What the server checks on a put, probed on first use."""
        with self._probe_lock:
            if self._capabilities is None:
                self._capabilities = Probes(self._client, self.name, self.prefix).capabilities()
            return self._capabilities

    def put_new(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        content_type: str,
        sha256: str = "",
        metadata: Mapping[str, str] | None = None,
        storage_class: str | None = None,
    ) -> Put:
        """Store an object where there is none, and prove that its bytes arrived.

        `body`: bytes, or a seekable stream that holds nothing else and keeps at most `PART` bytes in memory. `sha256`:
        of the bytes as they were received, in hex; not needed for bytes made here. Raises KeyExists if an object is
        stored there, and StoreDamaged if the bytes are not those of `sha256`, here or where they arrived.
        """
        fields: dict[str, Any] = {"ContentType": content_type, "Metadata": dict(metadata or {})}
        if storage_class:
            fields["StorageClass"] = storage_class
        if isinstance(body, bytes):
            sha256 = sha256 or hashlib.sha256(body).hexdigest()
        elif body.seek(0, os.SEEK_END) <= PART:
            body.seek(0)
            body = body.read()
        return self._proven(key, self._put_new(key, body, sha256, fields), sha256)

    def put(self, key: str, body: bytes, *, content_type: str) -> Put:
        """Store an object, replacing any under the key, and prove its arrival. Only for what can be derived again."""
        sha256 = hashlib.sha256(body).hexdigest()
        return self._proven(key, self._put(key, body, sha256, {"ContentType": content_type}), sha256)

    def _proven(self, key: str, put: Put, sha256: str) -> Put:
        if not put.proven and self.hash_object(key).sha256 != sha256:
            raise StoreDamaged(
                f"The bucket {self.name} holds different bytes under {key} from those sent; delete that object, check "
                "what is between this machine and S3, and run the date again"
            )
        return put

    def _put_new(self, key: str, body: bytes | BinaryIO, sha256: str, fields: dict[str, Any]) -> Put:
        if isinstance(body, bytes) and self.capabilities.create_only:
            return self._when_free(self._put, key, body, sha256, fields | {"IfNoneMatch": "*"})
        with self._locks[zlib.crc32(key.encode()) % _LOCKS]:
            if self.head(key) is not None:
                raise KeyExists(key)
            if isinstance(body, bytes):
                return self._put(key, body, sha256, fields)
            return self._when_free(self._put_in_parts, key, body, sha256, fields)

    def _put(self, key: str, body: bytes, sha256: str, fields: dict[str, Any]) -> Put:
        md5 = None
        if self.capabilities.checks_sha256:
            # S3 takes the checksum alone; moto_server keeps it only when the algorithm is named too.
            fields |= {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": as_base64(bytes.fromhex(sha256))}
        else:
            if hashlib.sha256(body).hexdigest() != sha256:
                raise _changed_in_memory(key)
            md5 = md5_of(body)
            fields |= {"ContentMD5": as_base64(md5)}
        with storage_errors(self.name, "s3:PutObject", key):
            answer = self._client.put_object(Bucket=self.name, Key=key, Body=body, **fields)
        etag = answer.get("ETag", "").strip('"')
        proven = answer.get("ChecksumSHA256") == fields["ChecksumSHA256"] if md5 is None else etag == md5.hex()
        return Put(etag, answer.get("VersionId"), proven)

    def _put_in_parts(self, key: str, body: BinaryIO, sha256: str, fields: dict[str, Any]) -> Put:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if self.capabilities.create_only else {}
        try:
            return self._upload(key, body, sha256, fields, condition)
        except StorageRefused as error:
            if self.is_amazon or error.status not in _NO_PARTS:
                raise
            body.seek(0)
            return self._put(key, body.read(), sha256, fields | condition)

    def _upload(self, key: str, body: BinaryIO, sha256: str, fields: dict[str, Any], condition: dict[str, Any]) -> Put:
        """Read, hash and send each part of a body once, so that only one is in memory.

        s3transfer cannot do this create-only; the server checks the condition when it joins the parts. An upload that
        fails is aborted; one whose process was killed stays invisible in the bucket until a lifecycle rule removes it
        (docs/storage.md).
        """
        checksums = self.capabilities.checks_sha256
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checksums else {}
        target: dict[str, Any] = {"Bucket": self.name, "Key": key}
        with storage_errors(self.name, _PARTS_ACTION, key):
            target["UploadId"] = self._client.create_multipart_upload(**target, **algorithm, **fields)["UploadId"]
        whole = hashlib.sha256()
        digests = b""
        parts: list[Any] = []
        try:
            body.seek(0)
            while block := body.read(PART):
                whole.update(block)
                part: dict[str, Any] = {"PartNumber": len(parts) + 1}
                if checksums:
                    digest = hashlib.sha256(block).digest()
                    part["ChecksumSHA256"] = as_base64(digest)
                    proof = algorithm
                else:
                    digest = md5_of(block)
                    proof = {"ContentMD5": as_base64(digest)}
                digests += digest
                with storage_errors(self.name, _PARTS_ACTION, key):
                    sent = self._client.upload_part(**target, **part, **proof, Body=block)
                parts.append(part | {"ETag": sent.get("ETag", "")})
            if whole.hexdigest() != sha256:
                raise _changed_in_memory(key)  # noqa: TRY301 - so that the upload is aborted here, too
            with storage_errors(self.name, _PARTS_ACTION, key):
                done = self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:  # an interrupt too: its parts would cost money until somebody finds them
            # Should the abort fail, the bucket's lifecycle rule does it, and the first error matters more.
            with suppress(BotoCoreError, ClientError):
                self._client.abort_multipart_upload(**target)
            raise
        etag = done.get("ETag", "").strip('"')
        if checksums:
            proven = done.get("ChecksumSHA256") == f"{as_base64(hashlib.sha256(digests).digest())}-{len(parts)}"
        else:
            proven = etag == f"{md5_of(digests).hex()}-{len(parts)}"
        return Put(etag, done.get("VersionId"), proven)


def _changed_in_memory(key: str) -> StoreDamaged:
    return StoreDamaged(
        f"The bytes for {key} changed on this machine after they were received, so they were not stored; check the "
        "machine's memory and temporary folder; the next run fetches them again"
    )


class ObjectReader(io.RawIOBase):
    """An object of known size as a seekable stream; each read is a request (`Bucket.read_range`)."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key, self._size, self._at = bucket, key, size, 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, into: Any) -> int:  # noqa: ANN401 - any buffer
        """Read as many bytes as the buffer takes or the object still has; return their number."""
        end = min(self._at + len(into), self._size)
        if self._at >= end:
            return 0
        into[: end - self._at] = self._bucket.read_range(self._key, self._at, end, self._size)
        read, self._at = end - self._at, end
        return read
