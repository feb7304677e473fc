"""What is answered about uploads in parts: begin, part, list, complete, abort."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final
from xml.etree import ElementTree as ET

from sandbox.strict_s3.bucket_calls import xml_answer
from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Answer, Request
from sandbox.strict_s3.object_calls import (
    encryption_headers,
    kept_headers,
    require_key,
    require_vouched,
    version_header,
)
from sandbox.strict_s3.objects import Bucket, Part, Upload
from sandbox.strict_s3.payload import CHECKSUMS, Payload
from sandbox.strict_s3.xml import Content, parsed

_SMALLEST: Final = 5 << 20
_NOT_WITH_A_PART: Final = (
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-storage-class",
    "x-amz-tagging", "x-amz-acl", "x-amz-object-lock-mode",
)  # fmt: skip


def upload_answer(
    bucket: Bucket, key: str, request: Request, payload: Payload, now: datetime
) -> tuple[str, Callable[[], Answer]]:
    """The IAM action that a request about an upload needs, and what answers it.

    Raises:
        S3Error: MethodNotAllowed.
    """
    upload_id = request.query.get("uploadId", "")
    if request.method == "POST" and "uploads" in request.query:
        return "s3:PutObject", lambda: _begin(bucket, key, request, now)
    if request.method == "PUT" and upload_id:
        return "s3:PutObject", lambda: _part(bucket, bucket.upload(upload_id, key), request, payload, now)
    if request.method == "GET" and upload_id:
        return "s3:ListMultipartUploadParts", lambda: _list(bucket, upload_id, bucket.upload(upload_id, key))
    if request.method == "POST" and upload_id:
        return "s3:PutObject", lambda: _complete(bucket, upload_id, bucket.upload(upload_id, key), request, now)
    if request.method == "DELETE" and upload_id:
        return "s3:AbortMultipartUpload", lambda: _abort(bucket, upload_id, key)
    raise S3Error("MethodNotAllowed")


def _begin(bucket: Bucket, key: str, request: Request, now: datetime) -> Answer:
    require_key(key)
    algorithm = request.headers.get("x-amz-checksum-algorithm", "").lower()
    if algorithm and algorithm not in CHECKSUMS:
        raise S3Error("NotImplemented", f"This server does not compute {algorithm}.")
    if request.headers.get("x-amz-checksum-type", "COMPOSITE") != "COMPOSITE":
        raise S3Error("NotImplemented", "This server knows composite checksums only.")
    upload_id = secrets.token_urlsafe(48)
    headers = kept_headers(bucket, request)
    bucket.uploads[upload_id] = Upload(key, headers, algorithm, now)
    named = {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": "COMPOSITE"} if algorithm else {}
    content: Content = [("Bucket", bucket.name), ("Key", key), ("UploadId", upload_id)]
    return xml_answer("InitiateMultipartUploadResult", content, named | encryption_headers(headers))


def _part(bucket: Bucket, upload: Upload, request: Request, payload: Payload, now: datetime) -> Answer:
    for name in _NOT_WITH_A_PART:
        if name in request.headers:
            raise S3Error("InvalidArgument", f"{name} header is not supported for this operation.", ArgumentName=name)
    text = request.query.get("partNumber", "")
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
    require_vouched(bucket, payload)
    sent = next(iter(payload.checksums), "")
    if upload.algorithm and sent != upload.algorithm:
        shown = sent or "null"
        message = f"Checksum Type mismatch occurred, expected: {upload.algorithm}, actual: {shown}"
        raise S3Error("InvalidRequest", message)
    part = Part(payload.data, bucket.etag(payload.data, upload.headers), payload.checksums, now)
    upload.parts[int(text)] = part
    sums = {f"x-amz-checksum-{name}": value for name, value in part.checksums.items()}
    return Answer(200, {"etag": f'"{part.etag}"', **sums, **encryption_headers(upload.headers)})


def _list(bucket: Bucket, upload_id: str, upload: Upload) -> Answer:
    parts: list[tuple[str, Content]] = [
        ("Part", [("PartNumber", str(number)), ("ETag", f'"{part.etag}"'), ("Size", str(len(part.data)))])
        for number, part in sorted(upload.parts.items())
    ]
    head: list[tuple[str, Content]] = [("Bucket", bucket.name), ("Key", upload.key), ("UploadId", upload_id)]
    return xml_answer("ListPartsResult", [*head, ("IsTruncated", "false"), *parts])


def _complete(bucket: Bucket, upload_id: str, upload: Upload, request: Request, now: datetime) -> Answer:
    parts = _listed(upload, request)
    for part in parts[:-1]:
        if len(part.data) < _SMALLEST:
            raise S3Error("EntityTooSmall", ProposedSize=str(len(part.data)), MinSizeAllowed=str(_SMALLEST))
    size = request.headers.get("x-amz-mp-object-size")
    data = b"".join(part.data for part in parts)
    if size is not None and size != str(len(data)):
        raise S3Error("InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match what was computed")
    checksums = {}
    if upload.algorithm:
        digests = b"".join(base64.b64decode(part.checksums[upload.algorithm]) for part in parts)
        composite = base64.b64encode(CHECKSUMS[upload.algorithm](digests)).decode()
        checksums = {upload.algorithm: f"{composite}-{len(parts)}"}
        claimed = request.headers.get(f"x-amz-checksum-{upload.algorithm}")
        if claimed is not None and claimed.partition("-")[0] != composite:
            raise S3Error("BadDigest", f"The {upload.algorithm} you specified did not match the calculated checksum.")
    version = bucket.put(
        upload.key, data, etag=f"{_etag_of_parts(parts)}-{len(parts)}", headers=upload.headers, checksums=checksums,
        condition=request.headers, now=now,
    )  # fmt: skip
    bucket.uploads.pop(upload_id, None)
    content: list[tuple[str, Content]] = [
        ("Location", f"https://{request.host}{request.path}"),
        ("Bucket", bucket.name),
        ("Key", upload.key),
        ("ETag", f'"{version.etag}"'),
        *((f"Checksum{name.upper()}", value) for name, value in checksums.items()),
        *([("ChecksumType", "COMPOSITE")] if checksums else []),
    ]
    more = encryption_headers(upload.headers) | version_header(version, bucket)
    return xml_answer("CompleteMultipartUploadResult", content, more)


def _listed(upload: Upload, request: Request) -> list[Part]:
    """The parts that are to become the object, each compared with what is named of it."""
    try:
        elements = parsed(request.body).findall("Part")
        numbers = [int(element.findtext("PartNumber", "")) for element in elements]
    except (ET.ParseError, ValueError):
        raise S3Error("MalformedXML") from None
    if not numbers:
        raise S3Error("MalformedXML")
    if numbers != sorted(set(numbers)):
        raise S3Error("InvalidPartOrder")
    parts = []
    for number, element in zip(numbers, elements, strict=True):
        part = upload.parts.get(number)
        if part is None or element.findtext("ETag", "").strip('"') != part.etag:
            raise S3Error("InvalidPart", PartNumber=str(number))
        for name, value in part.checksums.items():
            claimed = element.findtext(f"Checksum{name.upper()}")
            if claimed is None and upload.algorithm:
                raise S3Error(
                    "InvalidRequest",
                    f"The upload was created using a {upload.algorithm} checksum. The complete request must include "
                    f"the checksum for each part. It was missing for part {number} in the request.",
                )
            if claimed not in {None, value}:
                raise S3Error("InvalidPart", PartNumber=str(number))
        parts.append(part)
    return parts


def _etag_of_parts(parts: list[Part]) -> str:
    return hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()


def _abort(bucket: Bucket, upload_id: str, key: str) -> Answer:
    bucket.upload(upload_id, key)
    del bucket.uploads[upload_id]
    return Answer(204)
