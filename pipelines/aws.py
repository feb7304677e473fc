"""What every use of AWS shares: the boto3 session, and one sentence for each thing that can be wrong around a request.

The archive, the ledger and the events put their own words around `reason`: which object, which setting named the place.
Not here: requests.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from datetime import datetime
from typing import Final

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.utils import parse_timestamp

ACCESS_POINT: Final = re.compile(
    r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:(?:outpost[:/][^/:]+[:/])?accesspoint[:/][^/:]+"
)
"""The ARN of an access point, which boto3 takes in the place of a bucket's name."""

_LOG_IN: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.InfiniteLoopConfigError,
)
_SSO: Final = (
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.UnauthorizedSSOTokenError,
    boto.SSOTokenLoadError,
    boto.SSOError,
)
_NETWORK: Final = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
_UNTRUSTED: Final = ("CERTIFICATE_VERIFY_FAILED", "doesn't match")
_TRANSIENT: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "InternalError",
        "InternalFailure",
        "KMSInternalException",
        "LimitExceededException",
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_REASONS: Final = {
    "ExpiredToken": "the AWS credentials have expired; renew them (AWS_SESSION_TOKEN, or the log-in of AWS_PROFILE)",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to the access key; set all three variables again, or unset it",
    "InvalidAccessKeyId": "the server does not know AWS_ACCESS_KEY_ID; correct it, or AWS_ENDPOINT_URL_S3",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID; correct it",
    "RequestTimeTooSkewed": "the clock of this machine is off by more than 15 minutes; correct it (NTP)",
    "PathStyleDomainForbidden": "the store requires the bucket in the host name; set ARCHIVE_ADDRESSING_STYLE=virtual",
}
_SAME: Final = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "RequestExpired": "RequestTimeTooSkewed",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "InvalidClientTokenId": "InvalidAccessKeyId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "SecondLevelDomainForbidden": "PathStyleDomainForbidden",
}


def boto3_session() -> boto3.Session:
    """Make a session by boto3's own rules, which also reads `AWS_REGION`, as AWS's other tools do."""
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
    """Split `s3://<bucket>/<prefix>` into both; the bucket may be the ARN of an access point."""
    place = url.removeprefix("s3://")
    if arn := ACCESS_POINT.match(place):
        return arn[0], place[arn.end() :].lstrip("/")
    bucket, _, prefix = place.partition("/")
    return bucket, prefix


def error_code(error: boto.ClientError) -> str:
    """S3's own word for an error; empty when it said none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: boto.ClientError) -> int:
    """The HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: Exception) -> bool:
    """Return whether a later request may succeed without anybody changing a setting."""
    if isinstance(error, boto.ClientError):
        return (
            error_code(error) in _TRANSIENT
            or status(error) in {408, 409, 429}
            or (status(error) >= 500 and status(error) != 501)
        )
    said = _cause(error)
    if _no_bundle(error) or any(sign in said for sign in (*_UNTRUSTED, "failed: 407", "LocationParseError")):
        return False
    return isinstance(error, _NETWORK)


def reason(error: Exception) -> str | None:
    """Say what is wrong with the credentials, the clock, the network or a variable of boto3, and what to do.

    Returns:
        A clause without a capital and a full stop, or None where the error is about the bucket or an object.
    """
    if isinstance(error, boto.ClientError):
        code = error_code(error)
        if code.startswith(("KMS.", "KMSDisabled", "KMSNotFound", "KMSInvalid")):
            return f"the KMS key cannot be used ({code}); look at ARCHIVE_KMS_KEY_ID and at the key's policy"
        return _REASONS.get(_SAME.get(code, code))
    if isinstance(error, (boto.ProfileNotFound, boto.ConfigNotFound)):
        return "AWS_PROFILE names a profile that is not in AWS's configuration files; correct it, or unset it"
    if isinstance(error, _SSO):
        return "the SSO log-in of AWS_PROFILE has expired; run: aws sso login"
    if isinstance(error, _LOG_IN):
        return (
            f"there are no usable AWS credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
        )
    if isinstance(error, boto.InvalidConfigError) and "CA bundle" in str(error):
        return "AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE is set to nothing; name a file of certificates, or unset it"
    if isinstance(error, (boto.InvalidRegionError, boto.NoRegionError)):
        return "AWS_REGION is not a region; write it like eu-central-1"
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is not an address; write it like https://s3.example.com"
    if isinstance(error, boto.MissingDependencyException):
        return "this kind of bucket needs awscrt, which is not installed; use one in a single region"
    if isinstance(error, boto.PaginationError):
        return "its lists do not continue after the first page; use a store that lists more than 1000 objects"
    if isinstance(error, boto.BotoCoreError):
        return _network(error)
    return None


def _network(error: boto.BotoCoreError) -> str | None:
    said = _cause(error)
    if _no_bundle(error):
        return "the file of certificates cannot be read; correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"
    if any(sign in said for sign in _UNTRUSTED):
        whose = "the proxy's certificate" if isinstance(error, boto.ProxyConnectionError) else "its certificate"
        return (
            f"{whose} is not trusted, or is for another host; name the file of your company's authority in "
            "AWS_CA_BUNDLE"
        )
    if isinstance(error, boto.ProxyConnectionError):
        if "failed: 407" in said:
            return "the proxy requires a user and a password; write HTTPS_PROXY like http://user:password@host:port"
        return "the proxy cannot be reached, or blocks the request; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    if isinstance(error, boto.InvalidProxiesConfigError) or "LocationParseError" in said:
        return "the proxy's address is wrong; write HTTPS_PROXY like http://host:port"
    if isinstance(error, _NETWORK):
        kind = type(error).__name__
        return f"it could not be reached or closed the connection ({kind}); check the network and AWS_ENDPOINT_URL_S3"
    return None


def _cause(error: Exception) -> str:
    """What the network's error was made of."""
    return repr(getattr(error, "kwargs", {}).get("error"))


def _no_bundle(error: Exception) -> bool:
    signs = ("No such file", "Is a directory", "Permission denied", "[X509: NO_CERTIFICATE")
    return isinstance(error, boto.SSLError) and any(sign in _cause(error) for sign in signs)


def as_base64(digest: bytes) -> str:
    """A digest as headers carry it."""
    return base64.b64encode(digest).decode()


def md5_of(body: bytes) -> bytes:
    """The MD5, which stores that check no SHA-256 compare: 4.4 ms of CPU for 2.9 MB."""
    return hashlib.md5(body, usedforsecurity=False).digest()


def sha256_of(body: bytes) -> bytes:
    """The SHA-256."""
    return hashlib.sha256(body).digest()
