"""Where a response ends, whatever a socket says of it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.media import MediaFault
from tests.hostile.certificates import certificate
from tests.ringcx.transport.conftest import CHUNKED, CHUNKS, LENGTH, WAV, Serve, fetched, response_of


@pytest.mark.parametrize(
    "answer",
    [
        response_of(LENGTH),
        response_of(CHUNKED, LENGTH, body=CHUNKS),
        response_of(b"Content-Length: 7", CHUNKED, body=CHUNKS),
        response_of(CHUNKED, body=CHUNKS.replace(b"\r\n", b"  \r\n", 1)),
        response_of(CHUNKED, body=CHUNKS.replace(b"\r\n", b";name=value\r\n", 1)),
        response_of(CHUNKED, body=CHUNKS[:-2] + b"Trailer: x\r\n\r\n"),
        response_of(b"transfer-encoding: CHUNKED", body=CHUNKS),
        response_of(LENGTH, end=b"\n"),
        response_of(LENGTH, LENGTH),
        response_of(LENGTH, status=b"HTTP/1.1 200"),
        response_of(LENGTH, status=b"HTTP/1.0 200 OK"),
        response_of(b"Content-Length:%d" % len(WAV), b"X-Empty:", b"X-Latin: \xe4\xf6"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response_of(LENGTH),
        b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + response_of(LENGTH),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n" + response_of(LENGTH),
    ],
)  # fmt: skip
def test_what_other_clients_deliver_is_delivered(client: SourceClient, raw: Serve, answer: bytes) -> None:
    url = raw(answer)
    assert fetched(client, url) == WAV
    if answer.count(b"Content-Length") < 2 or CHUNKED not in answer:
        with contextlib.suppress(httpx.RemoteProtocolError):  # h11 is stricter here and there
            assert httpx.get(url, trust_env=False).content == WAV
    if curl := shutil.which("curl"):
        asked = subprocess.run([curl, "-s", "--noproxy", "*", url], capture_output=True, check=False, timeout=30)
        assert asked.returncode or asked.stdout == WAV


@pytest.mark.parametrize(
    "answer",
    [
        response_of(CHUNKED, body=b"-1\r\n" + WAV),
        response_of(CHUNKED, body=b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(WAV), WAV)),
        response_of(CHUNKED, body=b"1_0\r\n" + WAV[:16] + b"\r\n0\r\n\r\n"),
        response_of(CHUNKED, body=CHUNKS[:-7]),
        response_of(CHUNKED, body=CHUNKS[:1000]),
        response_of(LENGTH, body=WAV[:-1]),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_cut_off(client: SourceClient, raw: Serve, answer: bytes) -> None:
    with pytest.raises(MediaFault) as fault:
        fetched(client, raw(answer))
    assert (fault.value.kind, fault.value.reason) == ("not_audio", "cut_off")


@pytest.mark.parametrize(
    "answer",
    [
        response_of(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
        response_of(CHUNKED + b", chunked", body=CHUNKS),
        response_of(b"Content-Length: 1", LENGTH),
        response_of(b"Content-Length: -1"),
        response_of(b"no header at all", LENGTH),
        response_of(b"Upgrade: h2c", status=b"HTTP/1.1 101 Switching Protocols"),
    ],
)
def test_headers_that_leave_the_end_in_doubt_are_refused(client: SourceClient, raw: Serve, answer: bytes) -> None:
    with pytest.raises(MediaFault) as fault:
        fetched(client, raw(answer))
    assert (fault.value.kind, fault.value.reason) == ("unavailable", "source_unavailable")


def test_what_follows_an_answer_is_never_taken_for_the_next_one(tmp_path: Path, client: SourceClient) -> None:
    other = response_of(b"Content-Length: %d" % len(WAV), body=WAV[:-4] + b"evil").replace(
        b"Connection: close\r\n", b""
    )
    first = response_of(LENGTH).replace(b"Connection: close\r\n", b"")
    context = certificate(tmp_path, "localhost")
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            nonlocal connections
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                connections += 1
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    while secured.recv(65536):
                        secured.sendall(first + other)

        threading.Thread(target=run, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            for _ in range(3):
                assert fetched(client, f"https://localhost:{listener.getsockname()[1]}/?file=a") == WAV
        listener.shutdown(socket.SHUT_RDWR)
    assert connections == 3
