"""What is answered about one object: put, get, head, delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Answer, Request
from sandbox.strict_s3.objects import Bucket, Version
from sandbox.strict_s3.payload import Payload

_CLASSES: Final = frozenset(
    {
        "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER",
        "DEEP_ARCHIVE", "GLACIER_IR",
    }
)  # fmt: skip
_ASLEEP: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_KEPT: Final = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
)
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_MOST_METADATA: Final = 2048


def require_key(key: str) -> None:
    """Require that a key is no longer than 1024 bytes.

    Raises:
        S3Error: KeyTooLongError.
    """
    size = len(key.encode(errors="surrogateescape"))
    if size > 1024:
        raise S3Error("KeyTooLongError", Size=str(size), MaxSizeAllowed="1024")


def kept_headers(bucket: Bucket, request: Request) -> dict[str, str]:
    """What is stored with an object, and given back with it.

    Raises:
        S3Error: a storage class, an encryption or metadata that S3 does not take.
    """
    sent = request.headers
    kept = {name: sent[name] for name in _KEPT if name in sent}
    coding = [
        name.strip() for name in kept.pop("content-encoding", "").split(",") if name.strip() not in {"", "aws-chunked"}
    ]
    if coding:
        kept["content-encoding"] = ",".join(coding)
    kept.setdefault("content-type", "binary/octet-stream")
    metadata = {name: value for name, value in sent.items() if name.startswith("x-amz-meta-")}
    if sum(len(name) - len("x-amz-meta-") + len(value) for name, value in metadata.items()) > _MOST_METADATA:
        raise S3Error("MetadataTooLarge", MaxSizeAllowed=str(_MOST_METADATA))
    kept |= metadata
    storage_class = sent.get("x-amz-storage-class", "STANDARD")
    if storage_class not in ({"EXPRESS_ONEZONE"} if bucket.express else _CLASSES) and (
        not bucket.express or "x-amz-storage-class" in sent
    ):
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage_class)
    if storage_class != "STANDARD":
        kept["x-amz-storage-class"] = storage_class
    return kept | _encryption(sent)


def _encryption(sent: Mapping[str, str]) -> dict[str, str]:
    algorithm = sent.get(_ENCRYPTION, "AES256")
    key = sent.get(f"{_ENCRYPTION}-aws-kms-key-id")
    if algorithm not in {"AES256", "aws:kms", "aws:kms:dsse"}:
        raise S3Error("InvalidArgument", "The encryption method specified is not supported")
    if key and algorithm == "AES256":
        message = "A KMS key requires the HTTP header x-amz-server-side-encryption : aws:kms"
        raise S3Error("InvalidArgument", message)
    arn = key if key is None or key.startswith("arn:") else f"arn:aws:kms:us-east-1:123456789012:key/{key}"
    return {_ENCRYPTION: algorithm} | ({f"{_ENCRYPTION}-aws-kms-key-id": arn} if arn else {})


def require_vouched(bucket: Bucket, payload: Payload) -> None:
    """Require a checksum or a Content-MD5 for a put into a bucket with Object Lock.

    Raises:
        S3Error: InvalidRequest.
    """
    if bucket.locked and not payload.vouched:
        raise S3Error(
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put requests with Object Lock parameters",
        )


def encryption_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an answer to a put."""
    return {name: value for name, value in headers.items() if name.startswith(_ENCRYPTION)}


def version_header(version: Version, bucket: Bucket) -> dict[str, str]:
    """`x-amz-version-id`, where the bucket has ever kept versions."""
    return {"x-amz-version-id": version.version_id} if bucket.versioning else {}


def object_answer(
    bucket: Bucket, key: str, request: Request, payload: Payload, now: datetime
) -> tuple[str, Callable[[], Answer]]:
    """The IAM action that a request about an object needs, and what answers it.

    Raises:
        S3Error: NotImplemented, for a call this server does not know.
    """
    known = {"versionId", "x-id"} | {name for name in request.query if name.startswith("response-")}
    if set(request.query) - known or "x-amz-copy-source" in request.headers:
        raise S3Error("NotImplemented")
    version_id = request.query.get("versionId")
    if request.method == "PUT":
        return "s3:PutObject", lambda: _put(bucket, key, request, payload, now)
    if request.method in {"GET", "HEAD"}:
        return "s3:GetObject", lambda: _get(bucket, key, request, version_id)
    if request.method == "DELETE":
        return (
            "s3:DeleteObject" if version_id is None else "s3:DeleteObjectVersion",
            lambda: _delete(bucket, key, version_id, now),
        )
    raise S3Error("MethodNotAllowed")


def _put(bucket: Bucket, key: str, request: Request, payload: Payload, now: datetime) -> Answer:
    require_key(key)
    require_vouched(bucket, payload)
    headers = kept_headers(bucket, request)
    version = bucket.put(
        key, payload.data, etag=bucket.etag(payload.data, headers), headers=headers, checksums=payload.checksums,
        condition=request.headers, now=now,
    )  # fmt: skip
    sums = {f"x-amz-checksum-{name}": value for name, value in version.checksums.items()}
    kind = {"x-amz-checksum-type": "FULL_OBJECT"} if sums else {}
    return Answer(
        200,
        {"etag": f'"{version.etag}"', **sums, **kind, **encryption_headers(headers), **version_header(version, bucket)},
    )


def _get(bucket: Bucket, key: str, request: Request, version_id: str | None) -> Answer:
    require_key(key)
    version = bucket.get(key, version_id)
    headers = {
        "accept-ranges": "bytes",
        "etag": f'"{version.etag}"',
        "last-modified": format_datetime(version.modified, usegmt=True),
        **version.headers,
        **version_header(version, bucket),
    }
    _require_state(version, request)
    if request.method == "GET" and version.headers.get("x-amz-storage-class") in _ASLEEP:
        raise S3Error("InvalidObjectState", StorageClass=version.headers["x-amz-storage-class"])
    if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED" and "range" not in request.headers:
        headers |= {f"x-amz-checksum-{name}": value for name, value in version.checksums.items()}
        composite = any("-" in value for value in version.checksums.values())
        if version.checksums:
            headers["x-amz-checksum-type"] = "COMPOSITE" if composite else "FULL_OBJECT"
    span = _range(request.headers.get("range", ""), len(version.data))
    if span is None:
        return Answer(200, headers | {"content-length": str(len(version.data))}, version.data)
    start, end = span
    headers |= {"content-range": f"bytes {start}-{end - 1}/{len(version.data)}", "content-length": str(end - start)}
    return Answer(206, headers, version.data[start:end])


def _require_state(version: Version, request: Request) -> None:
    only, unless = request.headers.get("if-match"), request.headers.get("if-none-match")
    if only is not None and only.strip('"') not in {version.etag, "*"}:
        raise S3Error("PreconditionFailed", Condition="If-Match")
    if unless is not None and unless.strip('"') in {version.etag, "*"}:
        raise NotModified


class NotModified(Exception):  # noqa: N818 - an answer, not an error
    """What is asked for is what the client has: 304."""


def _range(text: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; None for no range, or for one that S3 ignores."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if match is None or text == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return None
    if start >= size or (not first and not int(last)):
        raise S3Error("InvalidRange", RangeRequested=text, ActualObjectSize=str(size))
    return start, end


def _delete(bucket: Bucket, key: str, version_id: str | None, now: datetime) -> Answer:
    marker = bucket.delete(key, version_id, now)
    if marker:
        return Answer(204, {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version_id})
    return Answer(204, {"x-amz-version-id": version_id} if version_id else {})
