"""The body of a response, decompressed within bounds: a small response that unpacks to gigabytes is refused."""

import zlib
from collections.abc import Callable, Iterator
from typing import cast

import httpx

from pipelines.ringcx.http.transport import Body

_INFLATED = 200  # a report shrinks to a twentieth, a bomb to a thousandth of its size
_INFLATED_FREE = 64 << 20  # ... and silence in a recording may shrink like a bomb, but is no more than this
_BLOCK = 1 << 20
PLAIN = frozenset({"", "identity"})
GZIP = frozenset({"gzip", "x-gzip"})


class BombError(Exception):
    """The body is larger than any report or recording, or unpacks to hundreds of times its size."""


def unpacked(response: httpx.Response, check: Callable[[], None] | None = None) -> Iterator[bytes]:
    """Yield a response's body in blocks, decompressed if it is gzip; `check` is called before each read, and may raise.

    Raises BombError if the body unpacks to hundreds of times its size; httpx.DecodingError if the gzip ends early, is
    damaged or is followed by other bytes; and httpx.TransportError if the connection broke off.
    """
    blocks = cast("httpx.SyncByteStream", response.stream)  # as sent: httpx would unpack without a bound
    if check is not None and isinstance(blocks, Body):
        blocks.check_reads(check)
    if encoding_of(response) in PLAIN:
        yield from blocks
        return
    unpacker, received, size = zlib.decompressobj(zlib.MAX_WBITS | 16), 0, 0
    for packed in blocks:
        received += len(packed)
        left = packed
        while left:
            try:
                block = unpacker.decompress(left, _BLOCK)
            except zlib.error as error:
                raise httpx.DecodingError("the gzip is damaged") from error
            if unpacker.unused_data:
                raise httpx.DecodingError("the gzip is followed by other data")
            size += len(block)
            if size > _INFLATED_FREE + _INFLATED * received:
                raise BombError
            yield block
            left = unpacker.unconsumed_tail
    while block := unpacker.decompress(unpacker.unconsumed_tail, _BLOCK):
        yield block
    if not unpacker.eof:
        raise httpx.DecodingError("the gzip ends early")


def first_bytes(response: httpx.Response, most: int) -> bytes:
    """Return at most `most` bytes of a response's body; raise the errors of `unpacked`."""
    start = bytearray()
    for block in unpacked(response):
        start += block
        if len(start) >= most:
            break
    return bytes(start[:most])


def encoding_of(response: httpx.Response) -> str:
    """Return the content encoding of a response in lower case, empty if it has none."""
    return str(response.headers.get("Content-Encoding", "")).strip().lower()
