"""The addresses of a name are tried until one answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from tests.ringcx.transport.conftest import LENGTH, WAV, fetched, response_of
from tests.servers.ports import PATIENCE_S


def test_an_ipv6_listener_is_reached_by_address_and_after_an_address_that_nobody_answers_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = listener.getsockname()[1]

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.recv(65536)
                connection.sendall(response_of(LENGTH))

    threading.Thread(target=run, daemon=True).start()
    monkeypatch.setattr("pipelines.ringcx.http.addresses.FALLBACK_S", 0.2)
    monkeypatch.setattr("pipelines.ringcx.http.client._CONNECT_S", 2 * PATIENCE_S)
    limiter = RateLimiter(tmp_path / "limits")
    full = socket.create_server(("127.0.0.1", 0), backlog=0)  # answers nobody once its queue is full
    waiting = [socket.socket() for _ in range(4)]
    for client_socket in waiting:
        client_socket.setblocking(False)
        client_socket.connect_ex(full.getsockname())
    unanswered = {"127.0.0.1": full.getsockname()[1]}
    create = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda to, *rest: create((to[0], unanswered.get(to[0], to[1])), *rest)
    )
    monkeypatch.setattr("pipelines.ringcx.http.addresses.system_resolve", lambda *_: ["127.0.0.1", "::1"])
    with SourceClient(limiter=limiter, limits={}, attempts=1) as client:
        assert fetched(client, f"http://[::1]:{port}/?file=a") == WAV
        began = time.monotonic()
        assert fetched(client, f"http://localhost:{port}/?file=a") == WAV
        assert time.monotonic() - began < PATIENCE_S
    limiter.close()
    for open_socket in (*waiting, full):
        open_socket.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
