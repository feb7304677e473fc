"""A response that trickles ends when its time is up, and one that nobody reads any more at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx
import pytest

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.http.transport import Body, Transport
from tests.ringcx.transport.conftest import Serve
from tests.servers.ports import PATIENCE_S


@pytest.mark.parametrize("part", [b"X", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100])
def test_a_head_that_trickles_ends_when_its_time_is_up(
    raw: Serve, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(part)
                while True:
                    connection.sendall(part[-1:] if b"X:" in part else part)
                    time.sleep(0.05)

        threading.Thread(target=run, daemon=True).start()
        transport = Transport(max_kept=1, public_only=False)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            transport.handle_request(httpx.Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize("head", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_that_trickles_ends_when_the_exchange_has_taken_too_long(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 0.7)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
                while True:
                    connection.sendall(b"1")  # of a body, or of the size of a chunk
                    time.sleep(0.05)

        threading.Thread(target=run, daemon=True).start()
        transport = Transport(max_kept=1, public_only=False)
        began = time.monotonic()
        response = transport.handle_request(httpx.Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        with pytest.raises(httpx.TransportError):
            response.read()
        assert time.monotonic() - began < PATIENCE_S


def test_a_stopped_reader_closes_its_connection(client: SourceClient) -> None:
    left: list[bytes] = []

    def stop() -> None:
        raise Stopped

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                connection.settimeout(10)
                left.append(connection.recv(1))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with client.stream("GET", url, limit="", account_id="") as answer:
            assert isinstance(answer.stream, Body)
            answer.stream.check_reads(stop)
            with pytest.raises(Stopped):
                list(answer.stream)
        thread.join(15)
    assert left == [b""]
