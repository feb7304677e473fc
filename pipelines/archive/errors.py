"""What can go wrong between us and S3, as few types as callers can act on.

* `StorageUnavailable`: try again later; botocore's own retries are already used up.
* `StorageRefused`: settings or rights are wrong; trying again does not help.
* `StoreDamaged`: what the bucket holds is not what was sent. Such an object never counts.
* `KeyExists`, `KeyMissing`: a create-only put found something there; a read found nothing.
* `Conflict`, `NameTaken`: verdicts of `transfer.store`.

Not for the source's errors. No message quotes content: keys are ours, and hold no personal data.
"""

# ruff: noqa: N818 - these names say what happened; "Error" at the end of each would add nothing

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

__all__ = [
    "Conflict",
    "KeyExists",
    "KeyMissing",
    "NameTaken",
    "StorageError",
    "StorageRefused",
    "StorageUnavailable",
    "StoreDamaged",
    "storage_errors",
]


class StorageError(Exception):
    """Anything between us and the bucket. `code` is S3's own word for it, empty when it was not S3 that said so."""

    code: str = ""


class StorageUnavailable(StorageError):
    """The store does not answer, or says "later"."""


class StorageRefused(StorageError):
    """The store answers and says no: the bucket's name, the region, the credentials or a right is wrong."""


class StoreDamaged(StorageError):
    """The bytes in the bucket, or on the way to it, are not the bytes that were sent."""


class KeyExists(StorageError):
    """Something lies under the key already, and nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Something is stored under {key} already, so nothing was written; compare the two")
        self.key = key


class KeyMissing(StorageError):
    """Nothing lies under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Nothing is stored under {key}; if it should be, run that day again")
        self.key = key


class Conflict(StorageError):
    """The same recording lies there with other bytes. Both are kept; a person decides."""

    def __init__(self, key: str, existing_sha256: str, kept_as: str) -> None:
        super().__init__(
            f"The recording under {key} (SHA-256 {existing_sha256}) differs from what the source sends now, "
            f"which is kept as {kept_as}; listen to both and decide"
        )
        self.key = key
        self.existing_sha256 = existing_sha256
        self.kept_as = kept_as


class NameTaken(StorageError):
    """Another recording, or an object that does not say what it is, lies there; nothing of ours was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Another recording lies under {key}, so this one needs a name of its own (apart_key)")
        self.key = key


_MISSING_KEY = frozenset({"NoSuchKey", "404", "NotFound"})
_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_PLACE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"})
_ALTERED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_LATER = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


@contextmanager
def storage_errors(bucket: str, action: str, key: str) -> Iterator[None]:
    """Turn botocore's errors into ours.

    Args:
        bucket: the bucket's name, for the sentence.
        action: the IAM action the call needs, for example `s3:PutObject`.
        key: the key or prefix it is about.

    Raises:
        KeyMissing, KeyExists, StorageRefused, StorageUnavailable, StoreDamaged: by what the store said.
    """
    where = f"{key} in the bucket {bucket}"
    try:
        yield
    except boto.ClientError as error:
        verdict = _verdict(error, bucket, action, key)
        verdict.code = error.response.get("Error", {}).get("Code", "")
        raise verdict from error
    except (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.NoAuthTokenError,
        boto.UnauthorizedSSOTokenError,
        boto.SSOTokenLoadError,
        boto.ProfileNotFound,
    ) as error:
        raise StorageRefused(
            f"There are no usable AWS credentials for {where} ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role"
        ) from error
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, HTTPError, OSError) as error:
        raise StorageUnavailable(
            f"S3 could not be reached or broke off at {where} ({type(error).__name__}); look at the network and "
            "AWS_ENDPOINT_URL_S3, the next run goes on from here"
        ) from error
    except boto.BotoCoreError as error:
        raise StorageRefused(
            f"The call {action} for {where} could not be made ({type(error).__name__}); look at ARCHIVE_BUCKET, "
            "AWS_REGION and "
            "AWS_ENDPOINT_URL_S3"
        ) from error


def _verdict(error: boto.ClientError, bucket: str, action: str, key: str) -> StorageError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    where = f"{key} in the bucket {bucket}"
    if code in _BUCKET:
        return StorageRefused(f"There is no bucket {bucket} (S3 says {code}); create it, or correct ARCHIVE_BUCKET")
    if code in _PLACE or status == 301:
        return StorageRefused(
            f"The bucket {bucket} lies in another region (S3 says {code}); set AWS_REGION to the bucket's own"
        )
    if code in _MISSING_KEY:
        return KeyMissing(key)
    if status == 412:
        return KeyExists(key)
    if code in _ALTERED:
        return StoreDamaged(
            f"The bytes for {where} were altered on the way (S3 says {code}) and were not stored; the next run "
            "sends them again"
        )
    if code in _LATER or status in {408, 409, 429} or (status >= 500 and status != 501):
        return StorageUnavailable(
            f"S3 said {code} ({status}) for {where} even after repeating the call; the next run goes on from here"
        )
    if status in {401, 403}:
        return StorageRefused(
            f"S3 refused {action} on {where} ({code or status}); the credentials need that right on this bucket, "
            "and the clock must be right"
        )
    return StorageRefused(
        f"S3 refused {action} on {where} ({code or status}); look at ARCHIVE_BUCKET and the bucket's settings"
    )
