"""AWS for every package: the boto3 session, and one clause for each thing that can be wrong around a request."""

import base64
import hashlib
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.client import BaseClient
from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    import mypy_boto3_s3  # not installed where nobody checks types

    S3Client = mypy_boto3_s3.S3Client
else:
    S3Client = BaseClient

ACCESS_POINT: Final = re.compile(
    r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:(?:outpost[:/][^/:]+[:/])?accesspoint[:/][^/:]+"
)
"""The ARN of an access point, which boto3 accepts as a bucket's name."""

_TRANSIENT_CODE: Final = re.compile(
    "Throttl|Timeout|LimitExceeded|TooManyRequests|SlowDown|PriorRequestNotComplete|OperationAborted"
    "|ConditionalRequestConflict|InternalError|InternalFailure|KMSInternalException|ServiceUnavailable"
)
_REASONS: Final = {
    "ExpiredToken|TokenRefreshRequired|InvalidToken": (
        "the AWS credentials have expired, or AWS_SESSION_TOKEN does not belong to them; renew all three variables, or "
        "the log-in of AWS_PROFILE"
    ),
    "InvalidAccessKeyId|UnrecognizedClientException|InvalidClientTokenId": (
        "the server does not know AWS_ACCESS_KEY_ID; correct it, or AWS_ENDPOINT_URL_S3"
    ),
    "SignatureDoesNotMatch|InvalidSignatureException": (
        "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, or a reverse proxy in front of the store alters "
        "the request; correct the key, or let that proxy keep the Host header and the path"
    ),
    r"QuotaExceeded|\w*(StorageFull|BucketQuotaExceeded)|507": (
        "the store is full, or its quota is used up ({name}); make room there, or raise the quota"
    ),
    "RequestTimeTooSkewed|RequestExpired": "the clock of this machine is off by more than 15 minutes; correct it (NTP)",
    "PathStyleDomainForbidden|SecondLevelDomainForbidden": (
        "the store requires the bucket in the host name; set ARCHIVE_ADDRESSING_STYLE=virtual"
    ),
    r"KMS(\.|Disabled|NotFound|Invalid)": (
        "the KMS key cannot be used ({name}); check ARCHIVE_KMS_KEY_ID and the key's policy"
    ),
    "ProfileNotFound|ConfigNotFound": (
        "AWS_PROFILE names a profile that is not in AWS's configuration files; correct it, or unset it"
    ),
    "TokenRetrievalError|NoAuthTokenError|UnauthorizedSSOTokenError|SSOTokenLoadError|SSOError": (
        "the SSO log-in of AWS_PROFILE has expired; run: aws sso login"
    ),
    "NoCredentialsError|PartialCredentialsError|CredentialRetrievalError|MetadataRetrievalError"
    "|InfiniteLoopConfigError": (
        "there are no usable AWS credentials ({name}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE, or give the machine a role"
    ),
    "InvalidRegionError|NoRegionError": "AWS_REGION is not a region; write it like eu-central-1",
    "ValueError.*[Ee]ndpoint": (
        "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is not an address; write it like https://s3.example.com"
    ),
    r"InvalidConfigError.*CA bundle|SSLError.*(No such file|Is a directory|Permission denied|\[X509: NO_CERTIFICATE)": (
        "the CA bundle is empty or cannot be read; correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE, or unset it"
    ),
    "CERTIFICATE_VERIFY_FAILED|doesn't match": (
        "its certificate, or the proxy's, is not trusted, out of date or for another host; set AWS_CA_BUNDLE to your "
        "company's CA file, have the certificate renewed, or correct this machine's clock"
    ),
    "failed: 40[17]|InvalidProxiesConfigError|LocationParseError": (
        "the proxy's address is wrong, or it requires a different user and password from those in HTTPS_PROXY; write "
        "it like http://user:password@host:port"
    ),
    "ProxyConnectionError": (
        "the proxy cannot be reached, or blocks the request; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    ),
    "NotAnsweredByS3Error": (
        "something answered in its place, such as a proxy, a web server or a log-in page; check HTTPS_PROXY, "
        "NO_PROXY and AWS_ENDPOINT_URL_S3"
    ),
    "HTTPClientError|ConnectionError|IncompleteReadError": (
        "it could not be reached or closed the connection ({name}); check the network and AWS_ENDPOINT_URL_S3"
    ),
}
"""A pattern in S3's error code, or in the names and texts of boto3's error, and what it means; the first one counts."""

_TRANSIENT_PATTERNS: Final = frozenset(
    {"ProxyConnectionError", "NotAnsweredByS3Error", "HTTPClientError|ConnectionError|IncompleteReadError"}
)


class NotAnsweredByS3Error(boto.HTTPClientError):
    """A server that is not S3 answered a request with success."""

    fmt = "the response to {operation} (HTTP {status}) is not from S3"


def boto3_session() -> boto3.Session:
    """Return a boto3 session that also reads `AWS_REGION`, as AWS's other tools do."""
    core = botocore.session.get_session()
    # dateutil takes three quarters of the time in which a page of a thousand listed objects is read.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return boto3.Session(botocore_session=core, region_name=os.environ.get("AWS_REGION") or None)


def _timestamp(value: str | float) -> datetime:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return parse_timestamp(str(value))


def split_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of `s3://<bucket>/<prefix>`; the bucket may be the ARN of an access point."""
    address = url.removeprefix("s3://")
    if arn := ACCESS_POINT.match(address):
        return arn[0], address[arn.end() :].lstrip("/")
    bucket, _, prefix = address.partition("/")
    return bucket, prefix


def error_code(error: boto.ClientError) -> str:
    """Return S3's code for an error, empty if there is none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: boto.ClientError) -> int:
    """Return the HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later although nobody changes a setting."""
    if isinstance(error, boto.ClientError):
        code, answered = error_code(error), status(error)
        by_status = answered in {408, 409, 429} or (answered >= 500 and answered not in {501, 507})
        return by_status or bool(_TRANSIENT_CODE.search(code))
    return _pattern(error) in _TRANSIENT_PATTERNS


def reason(error: Exception) -> str | None:
    """Return what is wrong with the credentials, the clock, the network or a variable of boto3, and what to do: a
    clause without a capital and a full stop, or None if the error is about the bucket or an object.
    """
    pattern = _pattern(error)
    name = type(error).__name__
    if isinstance(error, boto.ClientError):
        name = error_code(error) or f"HTTP {status(error)}"
    return None if pattern is None else _REASONS[pattern].format(name=name)


def _pattern(error: Exception) -> str | None:
    if isinstance(error, boto.ClientError):
        text = f"{error_code(error)} {status(error)}"
    elif isinstance(error, (boto.BotoCoreError, ValueError)):
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        text = f"{names}: {error} {getattr(error, 'kwargs', {}).get('error')!r}"
    else:
        return None
    return next((pattern for pattern in _REASONS if re.search(rf"\b({pattern})", text, re.DOTALL)), None)


def as_base64(digest: bytes) -> str:
    """Return a digest in base64, as headers carry it."""
    return base64.b64encode(digest).decode()


def md5_of(body: bytes) -> bytes:
    """Return the MD5, for stores that do not check a SHA-256: 4.4 ms of CPU for 2.9 MB."""
    return hashlib.md5(body, usedforsecurity=False).digest()
