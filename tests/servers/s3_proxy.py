"""A way to an S3 server that breaks what a network breaks."""

from __future__ import annotations

import http.client
import threading
from ssl import SSLContext
from typing import Literal

from tests.servers.scripted_http import Request, Response, ScriptedServer

Order = Literal["alter", "alter_back", "lose", "cut"] | tuple[int, str] | None
OWN = {"content-length", "transfer-encoding", "connection", "server", "date"}


class S3Proxy(ScriptedServer):
    """Stands between the client and a server, notes each request, and breaks those a test has ordered to be broken.

    Orders are used up one a request of that method: `alter` flips a bit of the body on the way there, `alter_back` one
    on the way back, `lose` passes the request on and drops the answer, `cut` breaks off the answer's body, a status and
    a code are answered at once.
    """

    def __init__(self, upstream: int, *, tls: SSLContext | None = None) -> None:
        super().__init__(self._pass_on, keep_alive=True, tls=tls)
        self.upstream = upstream
        self.orders: dict[str, list[Order]] = {}
        self.answer_headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def count(self, method: str) -> int:
        return sum(1 for request in self.requests if request.method == method)

    def reset(self) -> None:
        """Have no orders and no memory."""
        self.orders.clear()
        self.requests.clear()
        self.answer_headers.clear()

    def _next_order(self, method: str) -> Order:
        with self._lock:
            queue = self.orders.get(method, [])
            return queue.pop(0) if queue else None

    def _pass_on(self, request: Request) -> Response | bytes:
        order = self._next_order(request.method)
        if isinstance(order, tuple):
            status, code = order
            return Response(status, f"<Error><Code>{code}</Code><Message>ordered</Message></Error>".encode())
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=20)
        body = _flip(request.body) if order == "alter" else request.body
        upstream.request(request.method, request.path, body=body, headers=dict(request.headers.items()))
        answer = upstream.getresponse()
        data = answer.read()
        length = int(answer.getheader("Content-Length", len(data)))
        upstream.close()
        if order == "lose":
            return b""
        if order == "alter_back":
            data = _flip(data)
        if order == "cut":
            data = data[: len(data) // 2]
        replaced = OWN | {name.lower() for name in self.answer_headers}
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in replaced}
        return Response(answer.status, data, kept | self.answer_headers, length)


def _flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
