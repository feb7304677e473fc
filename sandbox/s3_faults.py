"""A proxy in front of an S3 that fails as S3 and the way to it do: 503, dropped connections, lost answers, full disks.

Requests are passed on as they are, the `Host` header included, so that their signatures stay good. Which requests fail
is drawn from a seed. A lost answer is the nastiest of the four: the request was carried out, and nobody says so.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.wire import ConnectionReset, TransportProtocol

_START_S = 10.0
_HOP_BY_HOP = frozenset({"connection", "expect", "transfer-encoding", "keep-alive"})
_METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_FULL = b"<?xml version='1.0'?><Error><Code>InsufficientStorage</Code><Message>No space left.</Message></Error>"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Faults:
    """Shares of requests, 0 to 1, that fail.

    Attributes:
        seed: Another seed fails other requests.
        slow_down: Answered 503 `SlowDown`, and not carried out.
        dropped: The connection is reset before the request is carried out.
        lost_answer: Carried out, then the connection is reset.
    """

    seed: int = 0
    slow_down: float = 0.0
    dropped: float = 0.0
    lost_answer: float = 0.0


class FaultyS3:
    """The proxy, for the length of a `with` block, in a thread of this process.

    Args:
        upstream: `http://127.0.0.1:<port>` of the S3 behind it.
        faults: What fails.

    Attributes:
        injected: How many of each fault there were.
    """

    def __init__(self, upstream: str, faults: S3Faults) -> None:
        self.faults = faults
        self.injected: Counter[str] = Counter()
        self.port = 0
        self._upstream = upstream
        self._full_under = ""
        self._random = random.Random(faults.seed)
        self._client = httpx.AsyncClient(base_url=upstream, timeout=60, trust_env=False)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    def fill_disk(self, under: str) -> None:
        """From now on a put of a key with `under` in it is answered 507; nothing for `""`."""
        self._full_under = under

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        # asyncio does so only for sockets that name their protocol; without it every answer with a body takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=_METHODS)])
        server = uvicorn.Server(
            uvicorn.Config(
                app, loop="asyncio", http=TransportProtocol, ws="none", lifespan="off", log_config=None,
                log_level="critical", access_log=False, timeout_graceful_shutdown=2,
            )
        )  # fmt: skip

        async def serve() -> None:
            async with self._client:
                await server.serve(sockets=[listener])
            listener.close()

        run = threading.Thread(target=lambda: asyncio.run(serve()), name="faulty-s3", daemon=True)
        self._server, self._thread = server, run
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not server.started:
            if time.monotonic() > deadline:
                raise RuntimeError(f"The S3 proxy did not start on {self.url}.")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_START_S)

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        if request.method == "PUT" and self._full_under and self._full_under in request.url.path:
            self.injected["disk full"] += 1
            return Response(_FULL, 507, media_type="application/xml")
        drawn = self._random.random()
        for name, share in (
            ("503 SlowDown", self.faults.slow_down),
            ("dropped connection", self.faults.dropped),
            ("lost answer", self.faults.lost_answer),
        ):
            drawn -= share
            if drawn < 0:
                self.injected[name] += 1
                return await self._failed(name, request, body)
        return await self._passed_on(request, body)

    async def _failed(self, name: str, request: Request, body: bytes) -> Response:
        if name == "503 SlowDown":
            return Response(_SLOW_DOWN, 503, media_type="application/xml")
        if name == "lost answer":
            await self._passed_on(request, body)
        return ConnectionReset()

    async def _passed_on(self, request: Request, body: bytes) -> Response:
        target = request.scope["raw_path"] + (b"?" + request.scope["query_string"] if request.url.query else b"")
        passed = self._client.build_request(
            request.method,
            httpx.URL(self._upstream).copy_with(raw_path=target),
            headers=_end_to_end(request.headers),
            content=body if body or request.method in ("PUT", "POST") else None,
        )
        answer = await self._client.send(passed)
        headers = _end_to_end(answer.headers)
        if request.method == "HEAD":  # its length is the object's, not the body's
            return _Bare(answer.status_code, headers)
        return Response(answer.content, answer.status_code, headers=headers)


class _Bare(Response):
    """An answer without a body whose headers are taken as they are."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=status)
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
