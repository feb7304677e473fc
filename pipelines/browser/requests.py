"""Readers of what a request sends: a form's fields and a range of bytes, both untrusted and both bounded."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

_LARGEST_FORM: Final = 1 << 16
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, the last value of each.

    Raises:
        HTTPException: 413, the body is too large; 400, it is not a form.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        return dict(parse_qsl(body.decode("utf-8"), max_num_fields=50, strict_parsing=bool(body)))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one after the last that a `Range` header asks for, or None for the whole body.

    A header that is malformed or asks for several ranges is ignored, as RFC 9110 allows.

    Raises:
        HTTPException: 416, the body has no such bytes.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if start >= size:
        raise HTTPException(416, "The recording has no such bytes.", {"Content-Range": f"bytes */{size}"})
    return start, end
