"""Answers that never end, lie about their size or unpack to mountains: each ends soon, by its name."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.ringcx import media as fetching
from pipelines.ringcx.errors import SourceError
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.http.transport import Transport
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient, MediaFault
from pipelines.ringcx.reports import requests
from pipelines.ringcx.reports.requests import Period, ReportSource
from tests.servers.ports import PATIENCE_S
from tests.servers.raw_http import Answer

Serve = Callable[[Answer], Any]
PERIOD = Period(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
OK = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nConnection: close\r\n"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SourceClient]:
    limiter = RateLimiter(tmp_path / "limits")
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 1.0)
    transport = Transport(max_kept=8, public_only=True)
    with SourceClient(
        limiter=limiter, limits={}, transport=transport, attempts=2, read_timeout_s=0.6, sleep=lambda _: None
    ) as made:
        yield made
    limiter.close()


def fault_of(client: SourceClient, port: int) -> tuple[str, str]:
    media = MediaClient(client, HostList(["127.0.0.1"]), auth=None)
    with pytest.raises(MediaFault) as fault:
        media.fetch(f"http://127.0.0.1:{port}/?file=a/b.WAV&token=hush", "1", io.BytesIO())
    assert "hush" not in str(fault.value)
    return fault.value.kind, fault.value.reason


def sends(*parts: bytes) -> Answer:
    def answer(_: Any, connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def forever(head: bytes, part: bytes, pause_s: float = 0.0) -> Answer:
    def answer(_: Any, connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)
            time.sleep(pause_s)

    return answer


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
WAVE = b"RIFF\0\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (OK + b"\r\n" + WAVE, b"\0" * 65536),
        (OK + CHUNKED, b"10000\r\n" + b"\0" * 65536 + b"\r\n"),
        (OK + b"Content-Length: 4294967295\r\n\r\n" + WAVE, b"\0" * 65536),
    ],
    ids=["unframed", "chunked", "claimed"],
)
def test_an_endless_body_is_too_large(
    client: SourceClient, serve: Serve, head: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 8 << 20)
    server = serve(forever(head, part))
    assert fault_of(client, server.port) == ("not_audio", "too_large")
    assert server.connections == 1


@pytest.mark.parametrize("claim", ["5000000000", "4294967296", "9999999999999999999"])
def test_a_claim_above_what_a_wav_can_hold_is_too_large_before_anything_is_read(
    client: SourceClient, serve: Serve, claim: str
) -> None:
    server = serve(sends(OK + f"Content-Length: {claim}\r\n\r\n".encode(), WAVE))
    assert fault_of(client, server.port) == ("not_audio", "too_large")


@pytest.mark.parametrize("claim", ["4294967295", "100"])
def test_a_claim_that_is_not_kept_is_cut_off(client: SourceClient, serve: Serve, claim: str) -> None:
    server = serve(sends(OK + f"Content-Length: {claim}\r\n\r\n".encode(), WAVE))
    assert fault_of(client, server.port) == ("not_audio", "cut_off")


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 0x10\r\n\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        b"Content-Encoding: gzip, gzip\r\nContent-Length: 5\r\n\r\n",
        b"Content-Encoding: gzip\r\nContent-Encoding: deflate\r\nContent-Length: 5\r\n\r\n",
        b"X: " + b"y" * 300_000,
        b"X: y\r\n" * 60_000,
    ],
)
def test_headers_that_are_none_leave_the_source_unavailable(client: SourceClient, serve: Serve, lines: bytes) -> None:
    server = serve(sends(OK + lines + b"12345"))
    assert fault_of(client, server.port) == ("unavailable", "source_unavailable")


@pytest.mark.parametrize("first", [b"\0" * 200, b"220 ftp ready\r\n", b"HTTP/1.1 99999 x\r\n\r\n", b""])
def test_what_is_no_http_leaves_the_source_unavailable(client: SourceClient, serve: Serve, first: bytes) -> None:
    assert fault_of(client, serve(sends(first)).port) == ("unavailable", "source_unavailable")


def test_headers_that_trickle_without_end_stop_when_their_time_is_up(client: SourceClient, serve: Serve) -> None:
    server = serve(forever(OK, b"X: y\r\n", pause_s=0.1))
    began = time.monotonic()
    assert fault_of(client, server.port) == ("unavailable", "source_unavailable")
    assert time.monotonic() - began < PATIENCE_S


def test_interim_answers_without_end_end_when_the_exchange_is_over(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 1.0)
    server = serve(forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.05))
    limiter = RateLimiter(tmp_path / "limits")
    transport = Transport(max_kept=2, public_only=True)
    with SourceClient(limiter=limiter, limits={}, transport=transport, attempts=1) as client:
        began = time.monotonic()
        assert fault_of(client, server.port) == ("unavailable", "source_unavailable")
        assert time.monotonic() - began < PATIENCE_S
    limiter.close()


def test_a_body_that_trickles_without_end_is_too_slow(
    client: SourceClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_SECONDS", 0.5)
    server = serve(forever(OK + b"\r\n" + WAVE, b"\0", pause_s=0.05))
    began = time.monotonic()
    assert fault_of(client, server.port) == ("unavailable", "too_slow")
    assert time.monotonic() - began < PATIENCE_S


def test_a_stop_ends_a_body_that_trickles(tmp_path: Path, serve: Serve) -> None:
    server = serve(forever(OK + b"\r\n" + WAVE, b"\0", pause_s=0.05))
    limiter, stop = RateLimiter(tmp_path / "limits"), threading.Event()
    with SourceClient(limiter=limiter, limits={}, stop=stop, attempts=1) as client:
        media = MediaClient(client, HostList(["127.0.0.1"]), auth=None)
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)stop"):
            media.fetch(f"{server.url}/?file=a", "1", io.BytesIO())
        assert time.monotonic() - began < PATIENCE_S
    limiter.close()


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(size >> 20)]) + packer.flush()


@pytest.fixture(scope="module")
def mountain() -> bytes:
    """128 KiB that unpack to 128 MiB."""
    return bomb(128 << 20)


def test_a_gzip_bomb_in_the_place_of_a_recording_is_too_large(
    client: SourceClient, serve: Serve, mountain: bytes
) -> None:
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(mountain)}\r\n\r\n".encode()
    sink = _Counted()
    media = MediaClient(client, HostList(["127.0.0.1"]), auth=None)
    with pytest.raises(MediaFault) as fault:
        media.fetch(f"{serve(sends(head, mountain)).url}/?file=a", "1", sink)
    assert fault.value.reason == "too_large"
    assert sink.most < 160 << 20


class _Counted(io.BytesIO):
    """Keeps count instead of bytes."""

    most = 0

    def write(self, block: Any) -> int:
        self.most += len(block)
        return len(block)


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"x" * 5000)[:-20], gzip.compress(b"x" * 5000)[10:]],
    ids=["none", "cut off", "without a head"],
)
def test_a_broken_compression_is_cut_off_and_no_recording(client: SourceClient, serve: Serve, body: bytes) -> None:
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode()
    assert fault_of(client, serve(sends(head, body)).port) == ("not_audio", "cut_off")


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_an_rf64_that_claims_a_terabyte_is_received_as_what_it_is(
    client: SourceClient, serve: Serve, magic: bytes
) -> None:
    from pipelines.archive.wav import inspect_wav

    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    claim = b"ds64" + struct.pack("<IQQQI", 28, 1 << 40, 1 << 40, 1 << 39, 0)
    body = magic + b"\xff\xff\xff\xffWAVE" + claim + form + b"data\xff\xff\xff\xff" + bytes(400)
    head = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    sink = io.BytesIO()
    media = MediaClient(client, HostList(["127.0.0.1"]), auth=None)
    fetched = media.fetch(f"{serve(sends(head, body)).url}/?file=a", "1", sink)
    found = inspect_wav(sink, fetched.size)
    assert (found.proof, found.disagrees, fetched.framed) == ("nothing", True, True)


# --- reports


class Token(httpx.Auth):
    variables = ("RINGCX_API_TOKEN",)

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["X-Auth-Token"] = "hush"
        yield request


def pull(client: SourceClient, server: Any) -> str:
    with pytest.raises(SourceError) as error:
        ReportSource(client, server.url, Token()).pull("15300002", PERIOD)
    assert "hush" not in str(error.value)
    return str(error.value)


def test_a_gzip_bomb_in_the_place_of_a_report_is_refused(client: SourceClient, serve: Serve, mountain: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(mountain)}\r\n\r\n".encode()
    server = serve(sends(head, mountain))
    assert "unpacks to hundreds of times its size" in pull(client, server)
    assert server.connections == 1


def test_a_bomb_in_a_bomb_is_never_unpacked(client: SourceClient, serve: Serve, mountain: bytes) -> None:
    body = gzip.compress(mountain)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    began = time.process_time()
    assert "not available now" in pull(client, serve(sends(head, body)))
    assert time.process_time() - began < 2


def test_an_honest_compressed_report_is_taken(client: SourceClient, serve: Serve) -> None:
    report = b"uii,recording_url\n" + b"".join(b"%d,https://h/?file=%d\n" % (n, n) for n in range(20_000))
    body = gzip.compress(report)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = ReportSource(client, serve(sends(head, body)).url, Token()).pull("1", PERIOD)
    assert (answer.rows.num_rows, answer.size) == (20_000, len(report))


def test_an_endless_report_is_refused_when_it_is_longer_than_any(
    client: SourceClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_BYTES", 4 << 20)
    row = b"1,2\n" * 10_000
    server = serve(forever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"9c40\r\n" + row + b"\r\n"))
    assert "is longer than 4 MiB" in pull(client, server)


def test_a_report_that_trickles_is_refused_when_its_time_is_up(
    client: SourceClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_SECONDS", 0.4)
    server = serve(forever(b"HTTP/1.1 200 OK\r\n\r\nuii,recording_url\n", b"1", pause_s=0.05))
    began = time.monotonic()
    assert "took longer than 0 s" in pull(client, server)
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize(
    "asked", ["1e9", "99999999999", "-5", "Fri, 99 Zzz", "020 Nov 2026 10:2000730213636", "٣", "\0"]
)
def test_a_retry_after_of_any_shape_is_obeyed_refused_or_ignored(
    client: SourceClient, serve: Serve, asked: str
) -> None:
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n".encode()
    assert fault_of(client, serve(sends(head)).port) == ("unavailable", "source_unavailable")


@pytest.mark.parametrize(
    "location",
    [
        *(
            "",
            "//",
            "///x",
            "http://",
            "http://[",
            "https://\0",
            "\\\\evil\\share",
            "https://\xff\xfe/",
            "http:///x",
            "?",
        ),
        *("http://127.0.0.1:99999/", "x" * 20_000, "http://" + "a" * 20_000, "data:,x", "http://127.0.0.1:1/%zz"),
    ],
)
def test_a_redirect_of_any_shape_ends_as_a_refusal_or_leaves_the_source_unavailable(
    client: SourceClient, serve: Serve, location: str
) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n"
    kind, reason = fault_of(client, serve(sends(head)).port)
    assert (kind, reason) in {
        ("refused", "redirect_not_allowed"),
        ("unavailable", "source_unavailable"),
        ("not_there", "http_302"),
    }
