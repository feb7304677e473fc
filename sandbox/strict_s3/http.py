"""Sockets: HTTP/1.1 plain and over TLS, and a proxy (CONNECT and whole addresses) that leads Amazon's names here."""

from __future__ import annotations

import base64
import io
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from sandbox.strict_s3.certificates import Authority
from sandbox.strict_s3.messages import Answer, Request

_PORTS: Final = {"http": ":80", "https": ":443"}


class Application(Protocol):
    """What answers requests."""

    def answer(self, request: Request) -> Answer | None:
        """The answer; None hangs up without one."""
        ...

    def refusal(self, request: Request) -> Answer | None:
        """The answer to a request whose body is still to come, when it is refused without looking at it."""
        ...

    def serves(self, host: str) -> bool:
        """Whether the proxy leads this name here."""
        ...


class Listener:
    """One port of 127.0.0.1, answered by an application, for the length of a `with` block.

    Args:
        application: What answers.
        authority: Signs certificates for the names that are asked for through CONNECT.
        tls: Speak TLS from the first byte.
        proxy_log_in: `user:password` that the proxy asks for.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        application: Application,
        authority: Authority,
        *,
        tls: bool = False,
        proxy_log_in: str = "",
        port: int = 0,
    ) -> None:
        self._tls = tls
        context = authority.context("127.0.0.1", "localhost") if tls else None

        class Handler(_Handler):
            pass

        Handler.application, Handler.authority, Handler.tls = application, authority, context
        Handler.proxy_log_in = proxy_log_in
        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, or `https://…`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing: a client that hangs up is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    application: Application
    authority: Authority
    tls: ssl.SSLContext | None
    proxy_log_in: str
    tunnel = ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def setup(self) -> None:
        """Begin with the handshake, in the connection's own thread."""
        if self.tls is not None:
            self.request = self.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        """Close the connection itself: the server closes only the socket that TLS took over."""
        super().finish()
        self.connection.close()

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0]
        if not self._may_use_proxy():
            return
        if not self.application.serves(host):
            self._send(Answer(502, body=b"This proxy leads to the strict S3 only.\n"))
            self.close_connection = True
            return
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.wfile.flush()
        self.connection = self.authority.context(host).wrap_socket(self.connection, server_side=True)
        self.rfile: io.BufferedReader = self.connection.makefile("rb", -1)
        self.wfile = _Writer(self.connection)
        self.tunnel = host
        self.close_connection = False

    def handle_expect_100(self) -> bool:
        """Refuse before the body is sent, where that is possible."""
        refusal = self.application.refusal(self._request(b""))
        if refusal is None:
            return super().handle_expect_100()
        self.close_connection = True
        self._send(refusal)
        return False

    def _request(self, body: bytes) -> Request:
        secure = isinstance(self.connection, ssl.SSLSocket)
        # Not `self.path`, which loses the first of two slashes.
        target = self.requestline.split(" ")[1]
        fields = tuple((name.lower(), value.strip()) for name, value in self.headers.items())
        host = next((value for name, value in fields if name == "host"), "")
        if not target.startswith("/"):
            parts = urlsplit(target)
            host, target = parts.netloc, target[len(f"{parts.scheme}://{parts.netloc}") :] or "/"
        return Request(
            method=self.command,
            host=host.removesuffix(_PORTS["https" if secure else "http"]).partition(":")[0].lower(),
            target=target,
            fields=tuple(field for field in fields if not field[0].startswith("proxy-")),
            body=body,
            secure=secure,
        )

    def _exchange(self) -> None:
        if not self.requestline.split(" ")[1].startswith("/") and not self._may_use_proxy():
            return
        request = self._request(self._body())
        if not self.requestline.split(" ")[1].startswith("/") and not self.application.serves(request.host):
            self._send(Answer(502, body=b"This proxy leads to the strict S3 only.\n"))
            return
        answer = self.application.answer(request)
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _exchange  # noqa: N815 - the base class's names

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        blocks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            blocks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(blocks)

    def _may_use_proxy(self) -> bool:
        wanted = base64.b64encode(self.proxy_log_in.encode()).decode()
        if not self.proxy_log_in or self.headers.get("proxy-authorization") == f"Basic {wanted}":
            return True
        self.close_connection = True
        self._send(Answer(407, {"proxy-authenticate": 'Basic realm="strict"'}))
        return False

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        headers = {"date": self.date_time_string(), "server": "AmazonS3", **answer.headers}
        if answer.status not in {204, 304}:
            headers.setdefault("content-length", str(len(answer.body)))
        if self.close_connection:
            headers["connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


class _Writer(io.BufferedIOBase):
    """Writes complete buffers to a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        self._connection.sendall(data)
        return len(data)
