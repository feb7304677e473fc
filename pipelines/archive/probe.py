"""What a store does and allows, tried on tiny objects under `probes/`: rights, create-only puts, checksums, protection.

The archive's own calls are in `bucket`; those here are sent for their answers alone. Objects that may not be removed
stay, of some fifty bytes each.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from pipelines.archive.errors import KeyExists, StorageError, StorageRefused, StoreDamaged, storage_errors
from pipelines.archive.keys import probe_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Locking", "StoreProbe", "answered_at"]

_BODY = b"ringcx-archive: a connection check put this here\n"
_REFUSED_PUTS = frozenset({"InvalidRequest", "InvalidArgument", "XAmzContentChecksumMismatch"})

Twice = Literal["refused", "replaced", "not supported"]


@dataclass(frozen=True, slots=True)
class Locking:
    """Object Lock of a bucket: whether it is on, and its default retention in words, empty when there is none."""

    enabled: bool
    default: str


class StoreProbe:
    """Tries one bucket under one prefix.

    Every method raises StorageUnavailable or StorageRefused where it does not say otherwise.

    Args:
        client: a boto3 S3 client.
        bucket: ARCHIVE_BUCKET.
        prefix: ARCHIVE_PREFIX.
        name: unique; what the objects' names begin with.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str, name: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self.key = probe_key(prefix, name)
        self._altered = probe_key(prefix, f"{name}-altered")
        self.stored: list[str] = []

    def look(self) -> None:
        """List under the prefix."""
        with storage_errors(self._bucket, "s3:ListBucket", self._prefix or "the bucket's root"):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._prefix}probes/", MaxKeys=1)

    def put(self) -> str | None:
        """Put the object, create-only where the store knows that; returns the answer's `Date`."""
        try:
            answer = self._put(self.key, _BODY, IfNoneMatch="*")
        except StorageError as error:
            if error.code != "NotImplemented":
                raise
            answer = self._put(self.key, _BODY)
        self.stored.append(self.key)
        return _date(answer)

    def put_twice(self) -> Twice:
        """Put it create-only once more: a store that honours it refuses."""
        try:
            self._put(self.key, _BODY, IfNoneMatch="*")
        except KeyExists:
            return "refused"
        except StorageError as error:
            if error.code == "NotImplemented":
                return "not supported"
            raise
        return "replaced"

    def refuses_wrong(self, digest: Literal["ChecksumSHA256", "ContentMD5"]) -> bool:
        """Whether bytes that do not fit their announced digest are refused."""
        wrong = hashlib.sha256(b"other") if digest == "ChecksumSHA256" else hashlib.md5(b"other", usedforsecurity=False)
        try:
            with storage_errors(self._bucket, "s3:PutObject", self._altered):
                announced: dict[str, Any] = {digest: base64.b64encode(wrong.digest()).decode()}
                if digest == "ChecksumSHA256":
                    announced["ChecksumAlgorithm"] = "SHA256"  # as in every put of ours
                self._client.put_object(Bucket=self._bucket, Key=self._altered, Body=_BODY, **announced)
        except StoreDamaged:
            return True
        except StorageRefused as error:
            if error.code in _REFUSED_PUTS:
                return True
            raise
        if self._altered not in self.stored:
            self.stored.append(self._altered)
        return False

    def read(self) -> bool:
        """Read it back; whether it is what was put."""
        with storage_errors(self._bucket, "s3:GetObject", self.key):
            return self._client.get_object(Bucket=self._bucket, Key=self.key)["Body"].read() == _BODY

    def remove(self) -> bool:
        """Remove what was put; False where the credentials may not, and it stays."""
        for key in tuple(self.stored):
            try:
                with storage_errors(self._bucket, "s3:DeleteObject", key):
                    self._client.delete_object(Bucket=self._bucket, Key=key)
            except StorageRefused:
                return False
            self.stored.remove(key)
        return True

    def versioning(self) -> bool | None:
        """Whether the bucket keeps versions; None where that may not be read."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketVersioning", self._bucket):
                return self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled"
        except StorageRefused:
            return None

    def locking(self) -> Locking | None:
        """The bucket's Object Lock; None where that may not be read."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketObjectLockConfiguration", self._bucket):
                found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except StorageError as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                return Locking(enabled=False, default="")
            if isinstance(error, StorageRefused):
                return None
            raise
        settings = found.get("ObjectLockConfiguration", {})
        kept = settings.get("Rule", {}).get("DefaultRetention", {})
        length = f"{kept['Days']} days" if "Days" in kept else f"{kept.get('Years', 0)} years"
        default = f"{length}, {str(kept.get('Mode', '')).lower()}" if kept else ""
        return Locking(settings.get("ObjectLockEnabled") == "Enabled", default)

    def _put(self, key: str, body: bytes, **condition: Any) -> Mapping[str, Any]:  # noqa: ANN401 - boto's own
        with storage_errors(self._bucket, "s3:PutObject", key):
            return self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType="text/plain",
                ContentMD5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
                **condition,
            )


def answered_at(error: StorageError) -> str | None:
    """The `Date` of the answer that an error comes from, None where there was none."""
    cause = error.__cause__
    return _date(cause.response) if isinstance(cause, ClientError) else None


def _date(answer: Mapping[str, Any]) -> str | None:
    found: str | None = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return found
