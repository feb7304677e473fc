"""Recordings over real connections: cut off, stalled, without a length."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, cast

import pytest

from pipelines.ringcx.media import MediaClient
from tests.ringcx.media.conftest import HOST, WAV, audio, fault_of


class Raw:
    """A server that sends given bytes for each connection in turn (the last without end), then closes or resets."""

    def __init__(self, *answers: bytes, reset: bool = False, stall_s: float = 0) -> None:
        self.answers = list(answers)
        self.reset = reset
        self.stall_s = stall_s
        self.connections = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(10)
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/?file=a/b.WAV"

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.connections += 1
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                time.sleep(self.stall_s)
                if self.reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: audio/wav", *headers, "", ""]).encode() + body


WHOLE = answer(WAV, f"Content-Length: {len(WAV)}")
CUT = answer(WAV[:2000], f"Content-Length: {len(WAV)}")
CUT_CHUNKED = answer(b"7d0\r\n" + WAV[:2000] + b"\r\n", "Transfer-Encoding: chunked")


def test_a_real_download_arrives(make: Callable[..., MediaClient]) -> None:
    with Raw(WHOLE) as url:
        assert make().fetch(url, "1", io.BytesIO()).sha256 == hashlib.sha256(WAV).hexdigest()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", [CUT, CUT_CHUNKED])
def test_a_cut_off_body_is_read_again_and_then_complete(
    make: Callable[..., MediaClient], cut: bytes, reset: bool
) -> None:
    sink = io.BytesIO()
    with Raw(cut, cut, WHOLE, reset=reset) as url:
        fetched = make().fetch(url, "1", sink)
    assert (fetched.size, sink.getvalue()) == (len(WAV), WAV)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", [CUT, CUT_CHUNKED])
def test_a_body_cut_off_every_time_is_never_a_recording(
    make: Callable[..., MediaClient], cut: bytes, reset: bool
) -> None:
    server = Raw(cut, reset=reset)
    with server as url:
        assert fault_of(make(), url) == ("not_audio", "cut_off", 200)
    assert server.connections == 3


@pytest.mark.parametrize("start", [b"", b"RI", b"RIFF", b"ID3", WAV[:40]])
def test_a_body_that_breaks_off_in_its_first_bytes_is_cut_off(make: Callable[..., MediaClient], start: bytes) -> None:
    with Raw(answer(start, "Content-Length: 5000")) as url:
        assert fault_of(make(), url) == ("not_audio", "cut_off", 200)


def test_a_body_that_stalls_every_time_is_too_slow(make: Callable[..., MediaClient]) -> None:
    server = Raw(CUT, stall_s=0.7)
    with server as url:
        assert fault_of(make(), url) == ("unavailable", "too_slow", 200)
    assert server.connections == 3


def test_a_connection_closed_before_any_answer_is_unavailable(make: Callable[..., MediaClient]) -> None:
    with Raw(b"") as url:
        assert fault_of(make(), url) == ("unavailable", "source_unavailable", None)


def test_a_body_without_a_length_ends_where_the_connection_does(make: Callable[..., MediaClient]) -> None:
    with Raw(answer(WAV, "Connection: close")) as url:
        fetched = make().fetch(url, "1", io.BytesIO())
    assert (fetched.size, fetched.framed) == (len(WAV), False)


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (WAV, f"Content-Length: {len(WAV)}"),
        (b"%x\r\n%b\r\n0\r\n\r\n" % (len(WAV), WAV), "Transfer-Encoding: chunked"),
    ],
)
def test_a_body_with_a_length_or_in_chunks_is_framed(
    make: Callable[..., MediaClient], body: bytes, header: str
) -> None:
    with Raw(answer(body, header)) as url:
        assert make().fetch(url, "1", io.BytesIO()).framed


def test_an_empty_body_over_a_real_connection_is_named(make: Callable[..., MediaClient]) -> None:
    with Raw(answer(b"", "Content-Length: 0")) as url:
        assert fault_of(make(), url) == ("not_audio", "empty_body", 200)


def test_threads_share_one_client(make: Callable[..., MediaClient]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bodies = {str(number): WAV + os.urandom(100_000 + number) for number in range(64)}
    media = make(lambda request: audio(bodies[request.url.params["file"]]))

    def fetch(number: str) -> bool:
        sink = io.BytesIO()
        fetched = media.fetch(f"https://{HOST}/?file={number}", "1", sink)
        return sink.getvalue() == bodies[number] and fetched.size == len(bodies[number])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(fetch, bodies))


def test_a_connection_is_used_again_and_again(make: Callable[..., MediaClient]) -> None:
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal connections
            connection, _ = server.accept()
            connections += 1
            with connection:
                while connection.recv(65536):
                    connection.sendall(WHOLE)

        threading.Thread(target=serve, daemon=True).start()
        media = make()
        for _ in range(3):
            url = f"http://127.0.0.1:{server.getsockname()[1]}/?file=a"
            assert media.fetch(url, "1", io.BytesIO()).size == len(WAV)
    assert connections == 1


@pytest.mark.parametrize("surplus", [b"x", WHOLE])
def test_a_connection_with_more_on_it_than_was_asked_for_is_not_used_again(
    make: Callable[..., MediaClient], surplus: bytes
) -> None:
    server = Raw(WHOLE + surplus)
    media = make()
    with server as url:
        for _ in range(2):
            assert media.fetch(url, "1", io.BytesIO()).sha256 == hashlib.sha256(WAV).hexdigest()
    assert server.connections == 2


@pytest.mark.parametrize("piece", [1460, 70_000, 1 << 22])
def test_bodies_of_all_sizes_and_pieces_arrive_whole_in_memory_and_on_disk_over_one_connection(
    make: Callable[..., MediaClient], piece: int
) -> None:
    block = 256 << 10
    bodies = [WAV + os.urandom(size) for size in (0, 511, block - len(WAV), block, 3 * block + 17, 3 << 20)]
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal connections
            connection, _ = server.accept()
            connections += 1
            with connection:
                for body in bodies * 2:
                    connection.recv(65536)
                    sent = answer(body, f"Content-Length: {len(body)}")
                    for start in range(0, len(sent), piece):
                        connection.sendall(sent[start : start + piece])

        threading.Thread(target=serve, daemon=True).start()
        media = make()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/?file=a"
        for body in bodies:
            with tempfile.SpooledTemporaryFile(1 << 20) as spool:
                fetched = media.fetch(url, "1", cast("IO[bytes]", spool))
                spool.seek(0)
                assert spool.read() == body
            assert (fetched.size, fetched.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        for body in bodies:
            sink = io.BytesIO()
            media.fetch(url, "1", sink)
            assert sink.getvalue() == body
    assert connections == 1
