"""A large body in parts: each hashed and sent from the stream, none of them ever whole in memory.

Create-only as any other put: the condition stands where the parts become an object. An upload that breaks off is
aborted; one whose process was killed lies unseen in the bucket until its lifecycle rule ends it (docs/storage.md).
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.archive.errors import KeyExists
from pipelines.archive.sender import Answer, Part

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

__all__ = ["LARGE", "put_in_parts"]

LARGE: Final = 64 << 20
"""From so many bytes on a body goes in parts of that size: 64 of them for the largest WAV."""

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PutInParts:
    """`composite_agrees`: the store's checksum over the parts is the one that was computed here."""

    etag: str
    version_id: str | None
    composite_agrees: bool


class _Send(Protocol):
    def __call__(
        self, key: str, body: bytes | Part, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Answer: ...


def put_in_parts(  # noqa: PLR0917 - where, then what
    client: "S3Client",
    send: _Send,
    bucket: str,
    key: str,
    body: BinaryIO,
    size: int,
    *,
    content_type: str,
    metadata: Mapping[str, str],
    create_only: bool,
) -> PutInParts:
    """Store `size` bytes of a seekable stream under a key.

    Raises:
        KeyExists: something lies there, and the store honours the condition.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, StorageError: as the calls raise them.
    """
    upload = client.create_multipart_upload(
        Bucket=bucket, Key=key, ContentType=content_type, Metadata=metadata, ChecksumAlgorithm="SHA256"
    )["UploadId"]
    try:
        digests: list[bytes] = []
        parts: list[CompletedPartTypeDef] = []
        for number, start in enumerate(range(0, size, LARGE), start=1):
            part = Part(body, start, min(LARGE, size - start))
            digests.append(_sha256(part))
            checksum = base64.b64encode(digests[-1]).decode()
            answer = send(
                key,
                part,
                {
                    "content-type": "application/octet-stream",
                    "x-amz-content-sha256": digests[-1].hex(),
                    "x-amz-checksum-sha256": checksum,
                    "x-amz-sdk-checksum-algorithm": "SHA256",
                },
                {"partNumber": str(number), "uploadId": upload},
            )
            etag = answer.headers.get("etag", "")
            parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum})
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
        done = client.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )
    except ClientError as error:
        _abort(client, bucket, key, upload)
        if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
            raise KeyExists(key) from error  # the answer to a first completion was lost: it lies there, or soon will
        raise
    except BaseException:  # an interrupt too: its parts would be paid for until somebody finds them
        _abort(client, bucket, key, upload)
        raise
    composite = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
    return PutInParts(
        done.get("ETag", "").strip('"'),
        done.get("VersionId"),
        composite_agrees=done.get("ChecksumSHA256") == f"{composite}-{len(parts)}",
    )


def _abort(client: "S3Client", bucket: str, key: str, upload: str) -> None:
    """End an upload. Should that fail, the bucket's lifecycle rule does it, and what broke it off matters more."""
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    except (BotoCoreError, ClientError):
        return


def _sha256(part: Part) -> bytes:
    digest, left = hashlib.sha256(), part.size
    part.stream.seek(part.start)
    while left and (block := part.stream.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.digest()
