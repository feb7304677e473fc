"""What is stored: buckets, versions and uploads in parts, in memory. No HTTP."""

from __future__ import annotations

import hashlib
import secrets
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sandbox.strict_s3.demands import Demands
from sandbox.strict_s3.errors import S3Error

OWNER = "123456789012"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of an object, or a marker that it was deleted.

    Attributes:
        version_id: `null` where the bucket keeps none.
        headers: What was sent with it and is given back: type, metadata, encryption, storage class, lock.
        checksums: Algorithm -> base64; for an object of parts with `-<parts>` at the end.
        keep_until: No version is deleted before.
    """

    key: str
    version_id: str
    modified: datetime
    data: bytes = b""
    etag: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    marker: bool = False
    keep_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload."""

    data: bytes
    etag: str
    checksums: Mapping[str, str]
    modified: datetime


@dataclass(slots=True)
class Upload:
    """An upload in parts; `algorithm` is the checksum that was announced, empty for none."""

    key: str
    headers: Mapping[str, str]
    algorithm: str
    started: datetime
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retention:
    """The default lock of a bucket."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int


class Bucket:
    """One bucket. Each change is one step for all threads.

    Args:
        name: Its name.
        region: Where it is.
        locked: With Object Lock, hence with versions.
        demands: What its policy asks for.
        express: A directory bucket of S3 Express.
    """

    def __init__(self, name: str, region: str, *, locked: bool, demands: Demands, express: bool) -> None:
        self.name = name
        self.region = region
        self.locked = locked
        self.demands = demands
        self.express = express
        self.owner = OWNER
        self.versioning: Literal["", "Enabled", "Suspended"] = "Enabled" if locked else ""
        self.retention: Retention | None = None
        self.uploads: dict[str, Upload] = {}
        self._keys: list[str] = []
        self._versions: dict[str, list[Version]] = {}
        self._lock = threading.Lock()

    def keys(self, after: str = "") -> Iterator[str]:
        """Keys with any version, behind `after`, in the order of their UTF-8 bytes."""
        keys = list(self._keys)
        start = bisect_left(keys, after.encode(errors="surrogateescape"), key=_bytes)
        yield from (key for key in keys[start:] if key != after)

    def current(self, key: str) -> Version | None:
        """The newest version, a marker included."""
        versions = self._versions.get(key)
        return versions[-1] if versions else None

    def versions(self, key: str) -> tuple[Version, ...]:
        """All versions, the newest first."""
        return tuple(reversed(self._versions.get(key, [])))

    def get(self, key: str, version_id: str | None = None) -> Version:
        """The version to be read.

        Raises:
            S3Error: NoSuchKey, NoSuchVersion, or MethodNotAllowed for a marker asked for by its id.
        """
        if version_id is None:
            found = self.current(key)
            if found is None or found.marker:
                marker = {"x-amz-delete-marker": "true", "x-amz-version-id": found.version_id} if found else {}
                raise S3Error("NoSuchKey", Key=key, headers=marker)
            return found
        for version in self._versions.get(key, []):
            if version.version_id == version_id:
                if version.marker:
                    raise S3Error("MethodNotAllowed", headers={"x-amz-delete-marker": "true"})
                return version
        raise S3Error("NoSuchVersion", Key=key)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        etag: str,
        headers: Mapping[str, str],
        checksums: Mapping[str, str],
        condition: Mapping[str, str],
        now: datetime,
    ) -> Version:
        """Store a new version.

        Args:
            key: its key.
            data: its bytes.
            etag: without quotes.
            headers: given back with it.
            checksums: given back with it.
            condition: `if-none-match` or `if-match`, as sent.
            now: the time of the change.

        Raises:
            S3Error: PreconditionFailed, or NoSuchKey for an `if-match` on nothing.
        """
        with self._lock:
            self._require(key, condition)
            keep_until = now + timedelta(days=self.retention.days) if self.retention else None
            if self.retention and keep_until:
                lock = {
                    "x-amz-object-lock-mode": self.retention.mode,
                    "x-amz-object-lock-retain-until-date": keep_until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
                headers = {**headers, **lock}
            return self._add(
                Version(
                    key=key, version_id=self._new_id(), modified=now, data=data, etag=etag, headers=headers,
                    checksums=checksums, keep_until=keep_until,
                )
            )  # fmt: skip

    def delete(self, key: str, version_id: str | None, now: datetime) -> Version | None:
        """Delete a version, or leave a marker; returns the marker.

        Raises:
            S3Error: AccessDenied for a version that is locked.
        """
        with self._lock:
            if version_id is None and self.versioning:
                return self._add(Version(key=key, version_id=self._new_id(), modified=now, marker=True))
            kept = []
            for version in self._versions.get(key, []):
                if version_id is not None and version.version_id != version_id:
                    kept.append(version)
                elif version.keep_until and version.keep_until > now:
                    raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")
            if kept:
                self._versions[key] = kept
            elif self._versions.pop(key, None) is not None:
                self._keys.remove(key)
            return None

    def upload(self, upload_id: str, key: str) -> Upload:
        """An upload that is going on.

        Raises:
            S3Error: NoSuchUpload.
        """
        found = self.uploads.get(upload_id)
        if found is None or found.key != key:
            raise S3Error("NoSuchUpload", UploadId=upload_id)
        return found

    def etag(self, data: bytes, headers: Mapping[str, str]) -> str:
        """The ETag of these bytes: their MD5, and nothing to be computed under KMS or in S3 Express."""
        if self.express or headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
            return secrets.token_hex(16)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def _require(self, key: str, condition: Mapping[str, str]) -> None:
        found = self.current(key)
        there = found is not None and not found.marker
        unless, only = condition.get("if-none-match"), condition.get("if-match")
        if unless is not None and unless != "*":
            raise S3Error("NotImplemented", Header="If-None-Match")
        if unless and there:
            raise S3Error("PreconditionFailed", Condition="If-None-Match")
        if only is not None and not there:
            raise S3Error("NoSuchKey", Key=key)
        if only is not None and found and only.strip('"') not in {found.etag, "*"}:
            raise S3Error("PreconditionFailed", Condition="If-Match")

    def _new_id(self) -> str:
        return secrets.token_urlsafe(24) if self.versioning == "Enabled" else "null"

    def _add(self, version: Version) -> Version:
        if version.key not in self._versions:
            insort(self._keys, version.key, key=_bytes)
        kept = [other for other in self._versions.get(version.key, []) if other.version_id != version.version_id]
        self._versions[version.key] = [*kept, version]
        return version


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")
