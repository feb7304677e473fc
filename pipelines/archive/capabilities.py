"""What a bucket and its server do and allow, found out with tiny objects under `probes/`: for runs and for the check.

`{prefix}probes/create-only` is put twice on the condition that nothing is stored there: the second put must be refused.
`{prefix}probes/checksum` is put with a SHA-256 that is not its own. A server that checks refuses it and stores nothing;
one that does not stores it, and from then on the object is the memory of that. Where an answer is not plain, the less
is believed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

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
from pipelines.aws import as_base64, md5_of, sha256_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BODY: Final = b"What this server checks is found out with this object; see docs/storage.md.\n"
_NOT_UNDERSTOOD: Final = frozenset({400, 501})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server does with a put.

    Attributes:
        create_only: it honours `If-None-Match: *`.
        checksums: whether a body that differs from its `x-amz-checksum-sha256` is refused (`checked`), stored
            (`ignored`), or any body with that header is refused (`refused`).
    """

    create_only: bool
    checksums: Literal["checked", "ignored", "refused"]


AMAZON: Final = Capabilities(create_only=True, checksums="checked")


@dataclass(frozen=True, slots=True)
class Locking:
    """Object Lock of a bucket: whether it is on, and its default retention in words, empty when there is none."""

    enabled: bool
    default: str


def find_out(client: S3Client, bucket: str, prefix: str) -> Capabilities:
    """Ask the server of a bucket.

    Raises:
        StorageUnavailable: it does not answer; nothing is known then.
    """
    probes = Probes(client, bucket, prefix)
    key = probe_key(prefix, "create-only")
    for sends_checksum, is_conditional in ((True, True), (False, True), (True, False), (False, False)):
        try:
            probes.put(key, _BODY if sends_checksum else None, create_only=is_conditional)
            if is_conditional:
                probes.put(key, _BODY if sends_checksum else None, create_only=True)
        except KeyExists:
            honoured = True
        except StorageUnavailable:
            raise
        except StorageError as error:
            if error.status not in _NOT_UNDERSTOOD:
                break  # no right to write there: nothing can be found out
            continue
        else:
            honoured = False
        if not sends_checksum:
            return Capabilities(honoured, "refused")
        return Capabilities(honoured, "checked" if probes.refuses_wrong_checksum() else "ignored")
    return Capabilities(create_only=False, checksums="ignored")


class Probes:
    """Requests to one bucket that are sent for their answers alone.

    Every method raises StorageUnavailable or StorageRefused where it does not say otherwise.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def put(self, key: str, checksum_of: bytes | None, *, create_only: bool) -> None:
        """Put the tiny object, with the SHA-256 of these bytes."""
        fields: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
        if checksum_of is None:
            fields["ContentMD5"] = as_base64(md5_of(_BODY))
        else:
            fields |= {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": as_base64(sha256_of(checksum_of))}
        with storage_errors(self._bucket, "s3:PutObject", key):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=_BODY, ContentType="text/plain", **fields)

    def refuses_wrong_checksum(self) -> bool:
        """Whether a SHA-256 that does not fit is refused, by a server that takes one that fits."""
        key = probe_key(self._prefix, "checksum")
        try:
            try:
                with storage_errors(self._bucket, "s3:GetObject (and s3:ListBucket)", key):
                    self._client.head_object(Bucket=self._bucket, Key=key)
            except KeyMissing:
                self.put(key, b"other bytes", create_only=False)
        except StoreDamaged:
            return True
        except StorageRefused as error:
            return error.status == 400
        return False

    def refuses_second_multipart(self) -> bool:
        """Whether an upload in parts is create-only, too: under a key that is stored already.

        True where the store knows no uploads in parts, and is sent large bodies whole, on the same condition.
        """
        key = probe_key(self._prefix, "create-only")
        try:
            with storage_errors(self._bucket, "s3:PutObject", key):
                upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        except StorageRefused as error:
            if error.status in {*_NOT_UNDERSTOOD, 405}:
                return True
            raise
        with storage_errors(self._bucket, "s3:PutObject", key):
            part = self._client.upload_part(Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=1, Body=_BODY)
        try:
            with storage_errors(self._bucket, "s3:PutObject", key):
                self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
                    IfNoneMatch="*",
                )
        except StorageError as error:
            with suppress(StorageError), storage_errors(self._bucket, "s3:AbortMultipartUpload", key):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
            if isinstance(error, KeyExists):
                return True
            if error.status in _NOT_UNDERSTOOD:
                return False
            raise
        return False

    def remove(self, key: str) -> bool:
        """Remove an object; False where the credentials may not, and it stays."""
        try:
            with storage_errors(self._bucket, "s3:DeleteObject", key):
                self._client.delete_object(Bucket=self._bucket, Key=key)
        except StorageRefused:
            return False
        return True

    def versioning(self) -> bool | None:
        """Whether the bucket keeps versions; None where that may not be read."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketVersioning", ""):
                return self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled"
        except StorageRefused:
            return None

    def locking(self) -> Locking | None:
        """The bucket's Object Lock; None where that may not be read."""
        try:
            with storage_errors(self._bucket, "s3:GetBucketObjectLockConfiguration", ""):
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
