"""What botocore signs is accepted, and each single change of it is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Request
from sandbox.strict_s3.payload import payload_of
from sandbox.strict_s3.signatures import Keyring, require_signature

KEYS = Keyring()
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
QUERY = st.dictionaries(st.sampled_from(["prefix", "versionId", "max-keys", "uploads", "ü"]), TEXT, max_size=4)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "content-md5", "x-amz-meta-uii", "x-amz-storage-class", "if-none-match"]),
    VALUE,
    max_size=4,
)


def signed(
    method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes, *, region: str = "eu-central-1"
) -> Request:
    """A request as botocore signs it."""
    target = f"/{quote(key, safe='/~')}"
    if query:
        target += "?" + "&".join(f"{quote(name, safe='')}={quote(value, safe='-_.~')}" for name, value in query.items())
    host = f"bucket.s3.{region}.amazonaws.com"
    request = AWSRequest(method=method, url=f"https://{host}{target}", data=body, headers=headers)
    request.context["payload_signing_enabled"] = True
    credentials = Credentials(KEYS.forever.id, KEYS.forever.secret)
    S3SigV4Auth(credentials, "s3", region).add_auth(request)
    fields = [(name.lower(), value) for name, value in request.headers.items()]
    return Request(method, host, target, (("host", host), *fields), body, secure=True)


def accept(request: Request, *, region: str = "eu-central-1", service: str = "s3") -> None:
    require_signature(request, KEYS, region=region, service=service, now=datetime.now(UTC))
    if "content-md5" not in request.headers:
        payload_of(request)


def code(request: Request, **arguments: str) -> str:
    with pytest.raises(S3Error) as caught:
        accept(request, **arguments)
    return caught.value.code


def changed(request: Request, name: str, value: str) -> Request:
    return replace(
        request, fields=tuple((name_sent, value if name_sent == name else old) for name_sent, old in request.fields)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    key=TEXT.filter(lambda text: not text.startswith("/")),
    query=QUERY,
    headers=HEADERS,
    body=st.binary(max_size=64),
    data=st.data(),
)
def test_what_botocore_signs_is_accepted_and_each_change_is_refused(  # noqa: PLR0917 - hypothesis gives them
    method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes, data: Any
) -> None:
    request = signed(method, key, query, headers, body)
    accept(request)
    covered = [name for name, _ in request.fields if name not in {"authorization", "x-amz-date"}]
    name = data.draw(st.sampled_from(covered))
    changes = {
        "another method": replace(request, method="GET" if method == "PUT" else "PUT"),
        "another path": replace(request, target=f"/x{request.target[1:]}"),
        "one more in the query": replace(request, target=f"{request.target}{'&' if query else '?'}acl="),
        "another header": changed(request, name, f"{request.headers[name]}x"),
        "a header less": replace(request, fields=tuple(field for field in request.fields if field[0] != name)),
        "a header more": replace(request, fields=(*request.fields, ("x-amz-acl", "public-read"))),
        "another signature": changed(request, "authorization", flipped(request.headers["authorization"])),
    }
    for what, altered in changes.items():
        assert code(altered) in {"SignatureDoesNotMatch", "AccessDenied", "InvalidRequest"}, what
    if "content-md5" not in headers:
        assert code(replace(request, body=body + b"x")) == "XAmzContentSHA256Mismatch"


def flipped(authorization: str) -> str:
    return authorization[:-1] + ("0" if authorization[-1] != "0" else "1")


def test_region_service_date_and_form_are_named_when_they_are_wrong() -> None:
    request = signed("GET", "k", {}, {}, b"")
    with pytest.raises(S3Error) as caught:
        accept(request, region="eu-west-1")
    assert (caught.value.code, caught.value.details["Region"]) == ("AuthorizationHeaderMalformed", "eu-west-1")
    assert caught.value.headers == {"x-amz-bucket-region": "eu-west-1"}
    assert code(request, service="s3express") == "AuthorizationHeaderMalformed"
    assert code(changed(request, "x-amz-date", "20200101T000000Z")) == "AuthorizationHeaderMalformed"
    assert code(changed(request, "authorization", "AWS abc:def")) == "AuthorizationHeaderMalformed"
    assert code(changed(request, "authorization", "")) == "AccessDenied"


def test_an_unsigned_body_is_taken_over_tls_only() -> None:
    fields = (("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),)
    request = Request("PUT", "bucket.s3.amazonaws.com", "/k", fields, b"x", secure=True)
    assert payload_of(request).data == b"x"
    with pytest.raises(S3Error, match="HTTPS only"):
        payload_of(replace(request, secure=False))


def test_a_trailer_that_does_not_fit_or_was_not_announced_is_refused() -> None:
    fields = (
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    )
    body = b"3\r\nhel\r\n2\r\nlo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    request = Request("PUT", "bucket.s3.amazonaws.com", "/k", fields, body, secure=True)
    assert payload_of(request).data == b"hello"
    for wrong, what in (
        (body.replace(b"hel", b"hal"), "BadDigest"),
        (body.replace(b"crc32", b"sha1"), "InvalidRequest"),
        (body.replace(b"0\r\nx-amz-checksum-crc32:NhCmhg==", b"0"), "InvalidRequest"),
        (body[:8], "InvalidRequest"),
        (body.replace(b"2\r\nlo\r\n", b""), "InvalidRequest"),
    ):
        with pytest.raises(S3Error) as caught:
            payload_of(replace(request, body=wrong))
        assert caught.value.code == what
