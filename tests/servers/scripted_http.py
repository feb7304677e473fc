"""An HTTP server that responds as a test's script says, and records what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Self


@dataclass(frozen=True)
class Request:
    """A request as it came; `headers` are found by their names in any case."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Response:
    """What is sent; `length` is announced in place of the body's own, which blocks do not know."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


Script = Callable[[Request], Response | bytes]
"""What to respond to a request; bytes are sent as they are, and the connection is closed after them."""


class ScriptedServer:
    """Serves for the length of a `with` block.

    Args:
        script: A response for every request, or what makes one of a request; may be replaced at any time.
        keep_alive: Take more than one request from a connection.
        tls: Speak TLS, under the name `localhost`.
    """

    def __init__(self, script: Response | Script, *, keep_alive: bool = False, tls: SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, keep_alive=keep_alive))
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._scheme, self._name = ("https", "localhost") if tls else ("http", "127.0.0.1")

    @property
    def host(self) -> str:
        """The name and the port."""
        return f"{self._name}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Serve no more; connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def respond(self, request: Request) -> Response | bytes:
        self.requests.append(request)
        return self.script if isinstance(self.script, Response) else self.script(request)


def _handler(server: ScriptedServer, *, keep_alive: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # who asked has left
                super().handle()

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            response = server.respond(Request(self.command, self.path, self.headers, body))
            if isinstance(response, bytes):
                self.close_connection = True
                self.wfile.write(response)
            else:
                self._send(response)

        def _send(self, response: Response) -> None:
            blocks = [response.body] if isinstance(response.body, bytes) else response.body
            length = len(response.body) if isinstance(response.body, bytes) else None
            announced = length if response.length is None else response.length
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            if self.command == "HEAD":
                return
            for block in blocks:
                self.wfile.write(block)
            self.close_connection |= length is not None and length != announced

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _respond  # noqa: N815 - the base class's names

    return Handler
