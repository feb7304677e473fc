"""What a bucket and its server do and allow, found out with tiny objects under `probes/`, for runs and for `check`.

docs/storage.md says what is put there. If an answer is unclear, the weaker capability is assumed.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from pipelines.archive.errors import (
    KeyExists,
    KeyMissing,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    StoreDamaged,
    storage_errors,
)
from pipelines.archive.keys import probe_key
from pipelines.aws import S3Client, as_base64, md5_of
from pipelines.wording import number

_PROBE: Final = b"What this server checks is found out with this object; see docs/storage.md.\n"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server checks when an object is put."""

    create_only: bool  # it honours `If-None-Match: *`
    checks_sha256: bool  # it refuses a body that differs from its `x-amz-checksum-sha256`


AMAZON: Final = Capabilities(create_only=True, checks_sha256=True)


class Probes:
    """Requests that are sent to one bucket only to learn how its server behaves."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._create_only_key = probe_key(prefix, "create-only")
        self._checksum_key = probe_key(prefix, "checksum")

    def capabilities(self) -> Capabilities:
        """Find out what the server checks when an object is put; raise StorageUnavailable if it does not answer."""
        for sends_checksum, is_conditional in ((True, True), (False, True), (True, False), (False, False)):
            try:
                for _ in range(1 + is_conditional):
                    self._put(self._create_only_key, _PROBE if sends_checksum else None, create_only=is_conditional)
                create_only = False
            except KeyExists:
                create_only = True
            except StorageUnavailable:
                raise
            except StorageError as error:
                if error.status not in {400, 501}:
                    break  # no right to write there: nothing can be found out
                continue
            return Capabilities(create_only, sends_checksum and self._refuses_wrong_checksum())
        return Capabilities(create_only=False, checks_sha256=False)

    def remove(self, key: str) -> bool:
        """Remove an object; return False, and leave it there, if the credentials do not allow that."""
        try:
            with storage_errors(self._bucket, "s3:DeleteObject", key):
                self._client.delete_object(Bucket=self._bucket, Key=key)
        except StorageRefused:
            return False
        return True

    def versioning(self) -> bool | None:
        """Return whether the bucket keeps versions, or None if the credentials may not read that."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketVersioning", ""):
                return self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled"
        except StorageRefused:
            return None

    def locking(self) -> tuple[bool, str] | None:
        """Return whether Object Lock is on, and its default retention in words; None if the credentials may not ask."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketObjectLockConfiguration", ""):
                found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except StorageError as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                return False, ""
            if isinstance(error, StorageRefused):
                return None
            raise
        settings = found.get("ObjectLockConfiguration", {})
        kept = settings.get("Rule", {}).get("DefaultRetention", {})
        length = number(kept["Days"], "day") if "Days" in kept else number(kept.get("Years", 0), "year")
        default = f"{length}, {str(kept.get('Mode', '')).lower()}" if kept else ""
        return settings.get("ObjectLockEnabled") == "Enabled", default

    def _put(self, key: str, checksum_of: bytes | None, *, create_only: bool) -> None:
        """Put the tiny object with the SHA-256 of `checksum_of`, or with its own MD5 if that is None."""
        fields: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
        if checksum_of is None:
            fields["ContentMD5"] = as_base64(md5_of(_PROBE))
        else:
            checksum = as_base64(hashlib.sha256(checksum_of).digest())
            fields |= {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": checksum}
        with storage_errors(self._bucket, "s3:PutObject", key):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=_PROBE, ContentType="text/plain", **fields)

    def _refuses_wrong_checksum(self) -> bool:
        """Return whether the server refuses a SHA-256 that does not match the body, but accepts one that does."""
        try:
            try:
                with storage_errors(self._bucket, "s3:GetObject (and s3:ListBucket)", self._checksum_key):
                    self._client.head_object(Bucket=self._bucket, Key=self._checksum_key)
            except KeyMissing:
                self._put(self._checksum_key, b"other bytes", create_only=False)
        except StoreDamaged:
            return True
        except StorageRefused as error:
            return error.status == 400
        return False
