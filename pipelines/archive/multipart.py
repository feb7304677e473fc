"""A large body in parts, each of them read, hashed and sent once, so that no more than one part is ever in memory.

Create-only like any other put: the condition is checked where the parts become an object. An upload that fails is
aborted; one whose process was killed stays invisible in the bucket until its lifecycle rule ends it (docs/storage.md).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.archive.errors import KeyExists, StorageError, StoreDamaged, storage_errors
from pipelines.aws import as_base64, md5_of, sha256_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART: Final = 8 << 20
"""A body of more bytes than this goes in parts of this size."""

_ACTION: Final = "s3:PutObject (and s3:AbortMultipartUpload)"


@dataclass(frozen=True, slots=True)
class PutInParts:
    """The store's answer. `checksum_agrees`, `etag_agrees`: it computed what we computed over the parts."""

    etag: str
    version_id: str | None
    checksum_agrees: bool
    etag_agrees: bool


def put_in_parts(
    client: "S3Client",
    bucket: str,
    key: str,
    body: BinaryIO,
    *,
    size: int,
    sha256: str,
    checksums: bool,
    create_only: bool,
    fields: Mapping[str, Any],
) -> PutInParts:
    """Store `size` bytes of a seekable stream under a key.

    `sha256`: hex; nothing is stored when the body's bytes are others by now. `checksums`: whether the store takes the
    SHA-256 of a part, else its MD5 is sent. `create_only`: whether it knows the condition. `fields`: what else
    describes the object, as `create_multipart_upload` names it.

    Raises:
        KeyExists: an object is stored there, and the store honours the condition.
        StoreDamaged: the body is not the one that was hashed, or a part was altered on the way.
        StorageUnavailable, StorageRefused: later, or never with these settings.
    """
    algorithm: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checksums else {}
    with storage_errors(bucket, _ACTION, key):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key, **algorithm, **fields)["UploadId"]
    try:
        whole, digests, md5s = hashlib.sha256(), [], []
        parts: list[CompletedPartTypeDef] = []
        body.seek(0)
        for number, start in enumerate(range(0, size, PART), start=1):
            block = body.read(min(PART, size - start))
            whole.update(block)
            digests.append(sha256_of(block))
            md5s.append(md5_of(block))
            named: dict[str, Any] = {"ChecksumSHA256": as_base64(digests[-1])} if checksums else {}
            with storage_errors(bucket, _ACTION, key):
                sent = client.upload_part(
                    Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=block,
                    **algorithm, **named or {"ContentMD5": as_base64(md5s[-1])},
                )  # fmt: skip
            parts.append({"PartNumber": number, "ETag": sent.get("ETag", ""), **named})  # type: ignore[typeddict-item]
        if whole.hexdigest() != sha256:
            raise changed_here(key)  # noqa: TRY301 - so that the upload is aborted here, too
        done = _complete(client, bucket, key, upload, parts, create_only=create_only)
    except BaseException:  # an interrupt too: its parts would be paid for until somebody finds them
        _abort(client, bucket, key, upload)
        raise
    etag = done.get("ETag", "").strip('"')
    return PutInParts(
        etag,
        done.get("VersionId"),
        checksum_agrees=done.get("ChecksumSHA256") == f"{as_base64(sha256_of(b''.join(digests)))}-{len(parts)}",
        etag_agrees=etag == f"{md5_of(b''.join(md5s)).hex()}-{len(parts)}",
    )


def changed_here(key: str) -> StoreDamaged:
    """The error for bytes that changed between their arrival and their dispatch."""
    return StoreDamaged(
        f"The bytes for {key} changed on this machine after they were received, so they were not stored; check its "
        "memory and its temporary folder, the next run fetches them again"
    )


def _complete(
    client: "S3Client", bucket: str, key: str, upload: str, parts: "list[CompletedPartTypeDef]", *, create_only: bool
) -> Mapping[str, Any]:
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
    try:
        with storage_errors(bucket, _ACTION, key):
            return client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
    except StorageError as error:
        if error.code == "NoSuchUpload":
            raise KeyExists(key) from error  # the first answer was lost: it is stored, or will be
        if error.code == "NotImplemented" and create_only:  # who calls this has looked for the key
            return _complete(client, bucket, key, upload, parts, create_only=False)
        raise


def _abort(client: "S3Client", bucket: str, key: str, upload: str) -> None:
    """End an upload. Should that fail, the bucket's lifecycle rule does it, and the first error matters more."""
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    except (BotoCoreError, ClientError):
        return
