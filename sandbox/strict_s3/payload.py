"""What a request says of its body, compared with the body: length, payload hash, checksums, Content-MD5, trailers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Request

CHECKSUMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}
_PREFIX: Final = "x-amz-checksum-"
_OTHER_HEADERS: Final = frozenset({"x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"})
_TRAILING: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True, slots=True)
class Payload:
    """A body that is what its request says. `checksums`: algorithm -> base64; `vouched`: it came with one or an MD5."""

    data: bytes
    checksums: Mapping[str, str]
    vouched: bool


def payload_of(request: Request) -> Payload:
    """Take the body out of its wrapping and compare it with each digest that came with it.

    Raises:
        S3Error: as Amazon answers to what does not fit.
    """
    claimed = request.headers.get("x-amz-content-sha256")
    given = {
        name.removeprefix(_PREFIX): value
        for name, value in request.headers.items()
        if name.startswith(_PREFIX) and name not in _OTHER_HEADERS
    }
    data = request.body
    if claimed is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if claimed in {"UNSIGNED-PAYLOAD", _TRAILING}:
        if not request.secure:
            raise S3Error("InvalidRequest", f"{claimed} is allowed over HTTPS only")
        if claimed == _TRAILING:
            data, trailers = _unwrapped(request)
            given |= {name.removeprefix(_PREFIX): value for name, value in trailers.items()}
    elif claimed.startswith("STREAMING-"):
        raise S3Error("NotImplemented")
    elif not re.fullmatch(r"[0-9a-f]{64}", claimed):
        raise S3Error("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a valid sha256 value.")
    elif hashlib.sha256(data).hexdigest() != claimed:
        raise S3Error("XAmzContentSHA256Mismatch", ClientComputedContentSHA256=claimed)
    _require_checksums(request, given, data)
    _require_md5(request.headers.get("content-md5"), data)
    return Payload(data, given, vouched=bool(given) or "content-md5" in request.headers)


def _require_checksums(request: Request, given: Mapping[str, str], data: bytes) -> None:
    if len(given) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    announced = request.headers.get("x-amz-sdk-checksum-algorithm", "").lower()
    if announced and set(given) != {announced}:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    for name, value in given.items():
        if name not in CHECKSUMS:
            raise S3Error("NotImplemented", f"This server does not compute {name}.")
        wanted = CHECKSUMS[name](data)
        if _decoded(value, len(wanted)) is None:
            raise S3Error("InvalidRequest", f"Value for x-amz-checksum-{name} header is invalid.")
        if _decoded(value, len(wanted)) != wanted:
            raise S3Error("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")


def _require_md5(value: str | None, data: bytes) -> None:
    if value is None:
        return
    digest = _decoded(value, 16)
    if digest is None:
        raise S3Error("InvalidDigest")
    if digest != hashlib.md5(data, usedforsecurity=False).digest():
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")


def _decoded(value: str, length: int) -> bytes | None:
    try:
        digest = base64.b64decode(value, validate=True)
    except binascii.Error:
        return None
    return digest if len(digest) == length else None


def _unwrapped(request: Request) -> tuple[bytes, dict[str, str]]:
    """The body and the trailers of an aws-chunked one."""
    rest, blocks = request.body, []
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        if not separator or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", line):
            raise S3Error("InvalidRequest", "The body is not well-formed aws-chunked.")
        size = int(line, 16)
        if size == 0:
            break
        blocks.append(rest[:size])
        if rest[size : size + 2] != b"\r\n":
            raise S3Error("InvalidRequest", "The body ends within a chunk.")
        rest = rest[size + 2 :]
    data = b"".join(blocks)
    if str(len(data)) != request.headers.get("x-amz-decoded-content-length"):
        raise S3Error("InvalidRequest", "x-amz-decoded-content-length is not the body's length.")
    lines = [line.partition(":") for line in rest.decode("ascii", "replace").split("\r\n") if line]
    trailers = {name.strip().lower(): value.strip() for name, _, value in lines}
    if set(trailers) != set(filter(None, request.headers.get("x-amz-trailer", "").split(","))):
        raise S3Error("InvalidRequest", "The trailers are not those that x-amz-trailer announces.")
    return data, trailers
