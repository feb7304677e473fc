"""Sockets that respond with any bytes, with and without TLS, and a client that fetches from them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient
from tests.hostile.certificates import certificate
from tests.hostile.conftest import wav_of
from tests.servers.ports import wait_until_listening
from tests.servers.raw_http import RawServer

WAV = wav_of(200_000)
HOSTS = HostList(["127.0.0.1", "localhost", "[::1]", "*.virtualacd.biz"])
LENGTH = b"Content-Length: %d" % len(WAV)
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(WAV), WAV)
CHUNKED = b"Transfer-Encoding: chunked"
Serve = Callable[[bytes], str]


def response_of(*lines: bytes, body: bytes = WAV, end: bytes = b"\r\n", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return end.join([status, *lines, b"Connection: close", b"", b""]) + body


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SourceClient]:
    limiter = RateLimiter(tmp_path / "limits")
    with SourceClient(limiter=limiter, limits={}, attempts=3, read_timeout_s=5, sleep=lambda _: None) as made:
        yield made
    limiter.close()


def fetched(client: SourceClient, url: str) -> bytes:
    sink = io.BytesIO()
    got = MediaClient(client, HOSTS, auth=None).fetch(url, "1", sink)
    assert got.sha256 == hashlib.sha256(sink.getvalue()).hexdigest()
    return sink.getvalue()


@contextlib.contextmanager
def running(*command: str, port: int, log: Path) -> Iterator[None]:
    """A server of somebody else, once it listens; skipped where it is not installed."""
    if shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{command[0]} is not installed")
    with log.open("wb") as output:
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        wait_until_listening(process, port)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def raw() -> Iterator[Serve]:
    """Starts a server that answers every request with the same bytes and closes; gives its address."""
    with contextlib.ExitStack() as stack:

        def serve(answer: bytes) -> str:
            server = stack.enter_context(RawServer(lambda _, connection: connection.sendall(answer)))
            return f"{server.url}/?file=a"

        yield serve


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a TLS server with a certificate of a private authority, `tmp_path/ca.pem`; gives its port."""
    with contextlib.ExitStack() as stack:

        def serve(name: str = "localhost", *, ends: datetime | None = None) -> int:
            context = certificate(tmp_path, name, ends=ends)
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)

            def hand_over(plain: socket.socket) -> None:
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(response_of(LENGTH))

            def run() -> None:
                while True:
                    try:
                        plain, _ = listener.accept()
                    except OSError:
                        return
                    threading.Thread(target=hand_over, args=(plain,), daemon=True).start()

            threading.Thread(target=run, daemon=True).start()
            return int(listener.getsockname()[1])

        yield serve
