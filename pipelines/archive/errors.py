"""Errors between the archive and S3. No message quotes content: keys are made here and hold no personal data."""

# ruff: noqa: N818 - these names say what happened; "Error" at the end of each would add nothing

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from pipelines.aws import error_code, is_transient, reason, status
from pipelines.errors import ExpectedError


class StorageError(ExpectedError):
    """Base class. `code` and `status` are S3's error code and HTTP status, or empty and 0 if S3 did not answer."""

    code: str = ""
    status: int = 0


class StorageUnavailable(StorageError):
    """The store does not answer, or asks for fewer requests; botocore has already retried."""


class StorageRefused(StorageError):
    """The bucket's name, the region, the credentials, a permission or another setting is wrong."""


class StoreDamaged(StorageError):
    """The bytes in the bucket, or in transit to it, differ from the bytes that were received, and do not count."""


class KeyExists(StorageError):
    """An object is already stored under the key, and nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"An object is already stored under {key}, so nothing was written; compare the two")


class KeyMissing(StorageError):
    """No object is stored under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Nothing is stored under {key}; if it should be, run that date again")


class NameTaken(StorageError):
    """Another recording, or an object that does not identify itself, has the key; nothing was written."""


class Conflict(StorageError):
    """The same recording is stored under the key with different bytes. Both copies are kept for a person to decide."""


_LATER: Final = "; the next run continues from here"
_BY_CODE: Final = {
    frozenset({"NoSuchBucket", "InvalidBucketName"}): (
        StorageRefused,
        "There is no bucket {bucket} (S3: {said}); create it, or correct ARCHIVE_BUCKET",
    ),
    frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}): (
        StorageRefused,
        "The bucket {bucket} is in another region (S3: {said}); set AWS_REGION to the bucket's own",
    ),
    frozenset({"413", "EntityTooLarge", "MaxMessageLengthExceeded"}): (
        StorageRefused,
        "A proxy or S3 refuses a body of that size for {where} ({said}); allow 8 MiB (nginx: client_max_body_size)",
    ),
    frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}): (
        StoreDamaged,
        "The bytes for {where} were altered in transit (S3: {said}) and not stored; the next run sends them again",
    ),
}


@contextmanager
def storage_errors(bucket: str, action: str, key: str) -> Iterator[None]:
    """Turn botocore's errors into `StorageError`s. `action` is the IAM action that the call needs, such as
    `s3:PutObject`; `key` is the key or prefix that it concerns, empty for the bucket itself.
    """
    where = f"{key} in the bucket {bucket}" if key else f"the bucket {bucket}"
    try:
        yield
    except ClientError as error:
        # Not bound to a name: a reference cycle would keep the callers' objects alive until a garbage collection.
        raise _with_code(_from_answer(error, bucket, action, key, where), error) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        kind, why = type(error).__name__, reason(error)
        if is_transient(error) or not isinstance(error, BotoCoreError):
            why = why or f"the connection broke off ({kind})"
            raise StorageUnavailable(f"S3 did not serve {where}: {why}{_LATER}") from error
        why = why or f"{kind}; check ARCHIVE_BUCKET, AWS_REGION and AWS_ENDPOINT_URL_S3"
        raise StorageRefused(f"S3 cannot be used ({action} on {where}): {why}") from error


def _with_code(found: StorageError, error: ClientError) -> StorageError:
    found.code = error_code(error)
    found.status = status(error)
    return found


def _from_answer(error: ClientError, bucket: str, action: str, key: str, where: str) -> StorageError:
    http_status = status(error)
    said = error_code(error) or str(http_status)
    for codes, (kind, sentence) in _BY_CODE.items():
        if not codes.isdisjoint({said, str(http_status)}):
            return kind(sentence.format(bucket=bucket, said=said, where=where))
    if said in {"NoSuchKey", "404", "NotFound"}:
        return KeyMissing(key)
    # A completed upload whose first response was lost: the object is stored, or will be.
    if http_status == 412 or (said == "NoSuchUpload" and error.operation_name == "CompleteMultipartUpload"):
        return KeyExists(key)
    if said == "NoSuchUpload":
        return StorageUnavailable(f"The upload of {where} was aborted before it was complete{_LATER}")
    if is_transient(error):
        code = "" if said == str(http_status) else f" ({said})"
        return StorageUnavailable(
            f"S3, or a proxy in front of it, answered HTTP {http_status}{code} for {where} even after retries{_LATER}"
        )
    if why := reason(error):
        return StorageRefused(f"S3 refused {action} on {where} ({said}): {why}")
    return StorageRefused(
        f"S3 refused {action} on {where} ({said}); the credentials must be valid and have that right; check them, "
        "ARCHIVE_BUCKET, AWS_REGION and, if it is set, ARCHIVE_EXPECTED_BUCKET_OWNER"
    )
