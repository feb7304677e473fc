"""Answers that ASGI cannot give: half a body and a closed, or reset, connection.

ASGI has no word for cutting a TCP connection, so the server hands its transport to the application
(`TransportProtocol`). Outside that server these answers fail with a sentence instead of pretending.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import cast

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_BLOCK = 256 * 1024


class TransportProtocol(H11Protocol):
    """uvicorn's own protocol, which also exposes the connection's transport in every request's `state`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn itself
        """A client has connected."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _transport(scope: Scope) -> asyncio.Transport:
    transport = scope.get("state", {}).get("transport")
    if transport is None:
        raise RuntimeError("This fault needs the sandbox's own server; start it with RunningSandbox.")
    return cast("asyncio.Transport", transport)


async def _until_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class CutOff(Response):
    """Sends the first half of a body, then closes the connection.

    Args:
        content: The whole body.
        media_type: Its type.
        framing: `length` declares the whole length, `chunked` never sends the last chunk, `none` declares nothing.
    """

    def __init__(self, content: bytes, media_type: str, framing: str) -> None:
        super().__init__(status_code=200, media_type=media_type)
        self._content = content
        self._framing = framing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, as an ASGI application."""
        transport = _transport(scope)
        half = self._content[: len(self._content) // 2]
        kind = self.headers["content-type"].encode()
        if self._framing == "none":
            head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nConnection: close\r\n\r\n"
            transport.write(head + half)
        else:
            headers = [(b"content-type", kind)]
            if self._framing == "length":
                headers.append((b"content-length", str(len(self._content)).encode()))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": half, "more_body": True})
        transport.close()  # what was written still goes out; then the end of the stream
        await _until_closed(receive)


class ConnectionReset(Response):
    """Sends some bytes of a body, or nothing at all, then resets the connection (RST)."""

    def __init__(self, content: bytes = b"", media_type: str = "audio/wav") -> None:
        super().__init__(status_code=200, media_type=media_type)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, as an ASGI application."""
        transport = _transport(scope)
        if self._content:
            length = str(len(self._content)).encode()
            headers = [(b"content-type", self.headers["content-type"].encode()), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            half = self._content[: len(self._content) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            await asyncio.sleep(0.05)  # so that the client has begun to read
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _until_closed(receive)


def in_blocks(
    content: bytes,
    media_type: str,
    *,
    bytes_per_s: int | None = None,
    declare_length: bool = True,
    on_sent: Callable[[], None] | None = None,
) -> StreamingResponse:
    """A sound answer in blocks, slow if asked for; `on_sent` is called once the last block was handed over."""

    async def blocks() -> AsyncIterator[bytes]:
        step = _BLOCK if bytes_per_s is None else max(1, bytes_per_s // 10)
        for at in range(0, len(content), step):
            if at and bytes_per_s is not None:
                await asyncio.sleep(0.1)  # before a block, not behind the last one: who has that one may be gone
            yield content[at : at + step]
        if on_sent is not None:
            on_sent()

    headers = {"content-length": str(len(content))} if declare_length else None
    return StreamingResponse(blocks(), media_type=media_type, headers=headers)
