"""SigV4 in the `Authorization` header: the request is signed once more, by botocore's own signer, and compared."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPMessage
from typing import Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Request

_FORM: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<date>[^/,]*)/(?P<region>[^/,]*)/(?P<service>[^/,]*)/aws4_request"
    r", ?"
    r"SignedHeaders=(?P<headers>[^, ]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_SKEW: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Key:
    """What somebody signs with. `expires` is None for a key without a session; `bucket` only for S3 Express's."""

    id: str
    secret: str
    token: str | None = None
    expires: datetime | None = None
    bucket: str = ""


class Keyring:
    """The keys that are known."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()
        self.forever = self._add(Key(f"AKIA{_letters(16)}", secrets.token_hex(20)))

    def issue(self, lifetime: timedelta, *, now: datetime, bucket: str = "") -> Key:
        """A key with a session token, for so long."""
        return self._add(
            Key(f"ASIA{_letters(16)}", secrets.token_hex(20), secrets.token_hex(60), now + lifetime, bucket)
        )

    def find(self, key_id: str) -> Key | None:
        """The key of that id."""
        return self._keys.get(key_id)

    def _add(self, key: Key) -> Key:
        with self._lock:
            self._keys[key.id] = key
        return key


def require_signature(request: Request, keys: Keyring, *, region: str, service: str, now: datetime) -> Key:
    """Return the key that the request was signed with.

    Args:
        request: the request; its body is ignored.
        keys: the accepted keys.
        region: the only one the signature may be made for.
        service: `s3` or `s3express`.
        now: the server's clock.

    Raises:
        S3Error: the error that Amazon would return.
    """
    text = request.headers.get("authorization", "")
    if not text:
        raise S3Error("AccessDenied")
    match = _FORM.fullmatch(text)
    if match is None:
        raise S3Error("AuthorizationHeaderMalformed")
    _require_scope(match, region, service)
    key = keys.find(match["key"])
    if key is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=match["key"])
    stamp = request.headers.get("x-amz-date", "")
    _require_time(stamp, match["date"], now)
    signed = match["headers"].split(";")
    unsigned = sorted(name for name in request.headers if _must_be_signed(name) and name not in signed)
    if unsigned:
        message = "There were headers present in the request which were not signed"
        raise S3Error("AccessDenied", message, HeadersNotSigned=", ".join(unsigned))
    if missing := [name for name in signed if name not in request.headers]:
        raise S3Error("SignatureDoesNotMatch", f"Signed headers are missing: {', '.join(missing)}")
    if signed != sorted(set(signed)) or not hmac.compare_digest(
        _signature(request, key, signed, stamp=stamp, region=region, service=service), match["signature"]
    ):
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=key.id)
    _require_session(request, key, now)
    return key


def _require_scope(match: re.Match[str], region: str, service: str) -> None:
    if match["region"] != region:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; the region '{match['region']}' is wrong; expecting '{region}'",
            headers={"x-amz-bucket-region": region},
            Region=region,
        )
    if match["service"] != service:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; incorrect service '{match['service']}'; expecting '{service}'",
        )


def _require_time(stamp: str, date: str, now: datetime) -> None:
    try:
        sent = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
    if date != stamp[:8]:
        raise S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; invalid date '{date}'")
    if abs(now - sent) > _SKEW:
        raise S3Error("RequestTimeTooSkewed", RequestTime=stamp, ServerTime=now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _must_be_signed(name: str) -> bool:
    return name in {"host", "content-md5"} or name.startswith("x-amz-")


def _signature(request: Request, key: Key, signed: list[str], *, stamp: str, region: str, service: str) -> str:
    scheme = "https" if request.secure else "http"
    again = AWSRequest(method=request.method, url=f"{scheme}://{request.headers['host']}{request.target}")
    for name, value in request.fields:
        if name in signed:
            again.headers.add_header(name, value)
    if "x-amz-content-sha256" not in again.headers:
        again.headers["x-amz-content-sha256"] = ""
    again.context["timestamp"] = stamp
    signer = _Signer(Credentials(key.id, key.secret), service, region)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return str(signer.signature(text, again))


class _Signer(S3SigV4Auth):
    """botocore's, without its list of headers that it does not sign by itself."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPMessage:
        return request.headers


def _require_session(request: Request, key: Key, now: datetime) -> None:
    token = request.headers.get("x-amz-s3session-token" if key.bucket else "x-amz-security-token")
    if token != key.token:
        raise S3Error("InvalidToken")
    if key.expires is not None and now >= key.expires:
        raise S3Error("ExpiredToken")


def _letters(count: int) -> str:
    return "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(count))
