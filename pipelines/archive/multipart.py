"""Multipart upload: a large body in parts, each read, hashed and sent once, so that only one is in memory.

Create-only like any other put, which s3transfer cannot do: the server checks the condition when it joins the parts. An
upload that fails is aborted; one whose process was killed stays invisible in the bucket until a lifecycle rule removes
it (docs/storage.md).
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.archive.errors import KeyExists, StorageError, StoreDamaged, storage_errors
from pipelines.aws import S3Client, as_base64, md5_of

PART: Final = 8 << 20
"""The size of a part in bytes; a larger body is uploaded in parts."""

NO_PARTS: Final = frozenset({400, 405, 501})
"""The statuses of a store that supports no multipart uploads, or not with these parameters."""

_ACTION: Final = "s3:PutObject (and s3:AbortMultipartUpload)"


class Put(NamedTuple):
    """The store's answer to a put. `proven`: the response shows that the store holds the bytes that were sent."""

    etag: str
    version_id: str | None
    proven: bool


def put_in_parts(
    client: S3Client,
    bucket: str,
    key: str,
    body: BinaryIO,
    *,
    sha256: str,
    checksums: bool,
    create_only: bool,
    fields: Mapping[str, Any],
) -> Put:
    """Store a seekable stream under a key where the caller has found no object.

    `sha256` (hex) was computed when the bytes were received; nothing is stored if the body has changed since.
    `checksums`: the store checks the SHA-256 of a part; otherwise the part's MD5 is sent, and the ETag must prove the
    bytes. `create_only`: the store honours `If-None-Match`. `fields`: other arguments of `create_multipart_upload`.

    Raises:
        KeyExists: an object has been stored there since.
        StoreDamaged: the body is not the one that was hashed, or a part was altered in transit.
    """
    algorithm: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checksums else {}
    target: dict[str, Any] = {"Bucket": bucket, "Key": key}
    with storage_errors(bucket, _ACTION, key):
        target["UploadId"] = client.create_multipart_upload(**target, **algorithm, **fields)["UploadId"]
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    whole, digests, md5s = hashlib.sha256(), b"", b""
    parts: list[Any] = []
    try:
        for number, start in enumerate(range(0, size, PART), start=1):
            block = body.read(min(PART, size - start))
            whole.update(block)
            digest, md5 = hashlib.sha256(block).digest(), md5_of(block)
            digests, md5s = digests + digest, md5s + md5
            named: dict[str, Any] = {"ChecksumSHA256": as_base64(digest)} if checksums else {}
            with storage_errors(bucket, _ACTION, key):
                sent = client.upload_part(
                    **target, PartNumber=number, Body=block, **algorithm, **named or {"ContentMD5": as_base64(md5)}
                )
            parts.append({"PartNumber": number, "ETag": sent.get("ETag", ""), **named})
        if whole.hexdigest() != sha256:
            raise changed_in_memory(key)  # noqa: TRY301 - so that the upload is aborted here, too
        done = _complete(client, target, parts, create_only=create_only)
    except BaseException:  # an interrupt too: its parts would cost money until somebody finds them
        # Should the abort fail, the bucket's lifecycle rule does it, and the first error matters more.
        with suppress(BotoCoreError, ClientError):
            client.abort_multipart_upload(**target)
        raise
    etag = done.get("ETag", "").strip('"')
    if checksums:
        proven = done.get("ChecksumSHA256") == f"{as_base64(hashlib.sha256(digests).digest())}-{len(parts)}"
    else:
        proven = etag == f"{md5_of(md5s).hex()}-{len(parts)}"
    return Put(etag, done.get("VersionId"), proven)


def changed_in_memory(key: str) -> StoreDamaged:
    """Return the error for bytes that changed between their arrival and their upload."""
    return StoreDamaged(
        f"The bytes for {key} changed on this machine after they were received, so they were not stored; check the "
        "machine's memory and temporary folder; the next run fetches them again"
    )


def _complete(client: S3Client, target: dict[str, Any], parts: list[Any], *, create_only: bool) -> Mapping[str, Any]:
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
    try:
        with storage_errors(target["Bucket"], _ACTION, target["Key"]):
            return client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, **condition)
    except StorageError as error:
        if error.code == "NoSuchUpload":
            raise KeyExists(target["Key"]) from error  # the first answer was lost: it is stored, or will be
        if error.code == "NotImplemented" and create_only:  # the caller has looked for the key
            return _complete(client, target, parts, create_only=False)
        raise
