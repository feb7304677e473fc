"""What counts as a whole recording, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pipelines.ringcx import media
from pipelines.ringcx.errors import AccountUnknown, LinkRefused, Stopped
from pipelines.ringcx.http.client import Received
from pipelines.ringcx.media import MediaClient, MediaFault
from tests.ringcx.media.conftest import LINK, WAV, Source, audio, fault_of


@pytest.mark.parametrize("media_type", ["audio/wav", "Audio/X-WAV; q=1", "application/octet-stream", ""])
def test_a_recording_arrives_whole_with_its_hashes(make: Callable[..., MediaClient], media_type: str) -> None:
    source = Source(audio(WAV, **{"Content-Type": media_type}))
    with tempfile.SpooledTemporaryFile() as sink:
        sink.write(b"left over from something else" * 1000)
        fetched = make(source).fetch(LINK, "15300002", sink)
        sink.seek(0)
        assert sink.read() == WAV
    assert fetched == Received(
        size=len(WAV),
        sha256=hashlib.sha256(WAV).hexdigest(),
        framed=True,
    )
    assert str(source.requests[0].url) == LINK
    assert source.requests[0].headers["Accept"].startswith("audio/wav")


@pytest.mark.parametrize("size", [513, 1 << 20, (1 << 20) + 1, 3_333_333])
@pytest.mark.parametrize("piece", [1 << 16, 1_000_003])
def test_a_body_of_any_size_in_any_pieces_is_the_same(make: Callable[..., MediaClient], size: int, piece: int) -> None:
    body = WAV[:44] + os.urandom(size - 44)
    source = Source(
        lambda _: httpx.Response(200, content=(body[at : at + piece] for at in range(0, size, piece)))  # chunked
    )
    sink = io.BytesIO()
    fetched = make(source).fetch(LINK, "1", sink)
    assert (fetched.size, fetched.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert sink.getvalue() == body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(404), ("not_there", "not_found", 404)),
        (httpx.Response(410), ("not_there", "not_found", 410)),
        (httpx.Response(202, text="still encoding, try again in 60 seconds"), ("not_there", "still_encoding", 202)),
        (httpx.Response(204), ("not_there", "http_204", 204)),
        (httpx.Response(206, content=WAV), ("not_there", "http_206", 206)),
        (audio(WAV, **{"Content-Range": "bytes 0-99/100"}, status=206), ("not_audio", "cut_off", 200)),
        (httpx.Response(407), ("unavailable", "source_unavailable", None)),
        (httpx.Response(421), ("unavailable", "source_unavailable", None)),
        (httpx.Response(425), ("unavailable", "source_unavailable", None)),
        (httpx.Response(302), ("not_there", "http_302", 302)),
        (httpx.Response(304), ("not_there", "http_304", 304)),
        (httpx.Response(400), ("not_there", "http_400", 400)),
        (httpx.Response(418), ("not_there", "http_418", 418)),
        (httpx.Response(401), ("refused", "unauthorized", 401)),
        (httpx.Response(403), ("refused", "forbidden", 403)),
        (httpx.Response(429), ("unavailable", "source_unavailable", None)),
        (httpx.Response(500), ("unavailable", "source_unavailable", None)),
        (httpx.Response(503), ("unavailable", "source_unavailable", None)),
        (audio(b""), ("not_audio", "empty_body", 200)),
        (httpx.Response(200, headers={"Content-Type": "text/html"}), ("not_audio", "empty_body", 200)),
        (httpx.Response(200, html="<h1>Log in</h1>"), ("not_audio", "html_body", 200)),
        (audio(b"\xef\xbb\xbf\r\n <!DOCTYPE html><title>Log in</title>"), ("not_audio", "html_body", 200)),
        (httpx.Response(200, json={"error": "x"}), ("not_audio", "json_body", 200)),
        (audio(b'{"error": "not found"}'), ("not_audio", "json_body", 200)),
        (audio(b" [1]"), ("not_audio", "json_body", 200)),
        (audio(b"{}", **{"Content-Type": "application/problem+json"}), ("not_audio", "json_body", 200)),
        (audio(b"no such recording", **{"Content-Type": "text/plain"}), ("not_audio", "text_body", 200)),
        (audio("Aufnahme fehlt, bitte später".encode()), ("not_audio", "text_body", 200)),
        (audio(b"ID3\x04" + bytes(900)), ("not_audio", "mp3_body", 200)),
        (audio(b"\xff\xfb\x90\x00" + bytes(900)), ("not_audio", "mp3_body", 200)),
        (audio(b"\xff\xf3\x90\x00" + bytes(900)), ("not_audio", "mp3_body", 200)),
    ],
)
def test_whatever_is_no_recording_is_named(
    make: Callable[..., MediaClient], answer: httpx.Response, expected: tuple[str, str, int | None]
) -> None:
    assert fault_of(make(Source(answer))) == expected


FIREWALL = {"Server": "awselb/2.0", "Content-Type": "text/html"}


@pytest.mark.parametrize(
    ("answer", "by_firewall"),
    [
        (httpx.Response(403, text="<html><h1>403 Forbidden</h1></html>", headers=FIREWALL), True),
        (httpx.Response(401, text="<!DOCTYPE html>denied"), True),
        (httpx.Response(403, headers={"Server": "awselb/2.0"}), True),
        (httpx.Response(403), False),
        (httpx.Response(403, json={"generalMessage": "no right to this recording"}), False),
        (httpx.Response(401, text="Jwt is expired"), False),
        (httpx.Response(403, text="<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), False),
        (httpx.Response(404, text="<html>", headers=FIREWALL), False),
    ],
)
def test_a_refusal_by_a_firewall_is_told_from_one_of_the_recording(
    make: Callable[..., MediaClient], answer: httpx.Response, by_firewall: bool
) -> None:
    with pytest.raises(MediaFault) as fault:
        make(Source(answer)).fetch(LINK, "1", io.BytesIO())
    assert fault.value.by_firewall is by_firewall


def test_an_account_that_the_source_does_not_know_is_no_missing_recording(make: Callable[..., MediaClient]) -> None:
    answer = httpx.Response(404, json={"generalMessage": "EvPlatform by rc_account_id=9990 not found"})
    with pytest.raises(AccountUnknown, match=r"RINGCX_RC_ACCOUNT_ID.*activated") as unknown:
        make(Source(answer)).fetch(LINK, "1", io.BytesIO())
    assert "9990" not in str(unknown.value)


def test_a_wav_body_in_small_pieces_is_sniffed_no_differently(make: Callable[..., MediaClient]) -> None:
    def pieces(body: bytes) -> httpx.Response:
        return httpx.Response(200, content=(bytes([byte]) for byte in body))

    assert make(Source(lambda _: pieces(WAV))).fetch(LINK, "1", io.BytesIO()).size == len(WAV)
    assert fault_of(make(Source(lambda _: pieces(b"ID3" + bytes(10)))))[1] == "mp3_body"


@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX", b"RF64", b"BW64"])
@pytest.mark.parametrize("media_type", ["audio/mpeg", "text/html", "application/json", "text/x-wav", "text/plain"])
def test_a_wav_is_a_wav_whatever_it_is_declared_to_be(
    make: Callable[..., MediaClient], magic: bytes, media_type: str
) -> None:
    body, sink = magic + WAV[4:], io.BytesIO()
    make(Source(audio(body, **{"Content-Type": media_type}))).fetch(LINK, "1", sink)
    assert sink.getvalue() == body


def test_a_whole_body_with_206_is_taken(make: Callable[..., MediaClient]) -> None:
    whole = {"Content-Range": f"bytes 0-{len(WAV) - 1}/{len(WAV)}"}
    fetched = make(Source(audio(status=206, **whole))).fetch(LINK, "1", io.BytesIO())
    assert (fetched.size, fetched.framed) == (len(WAV), True)


@pytest.mark.parametrize("part", ["", "bytes 0-99/4044", "bytes 1-4043/4044", "bytes 0-4043/*", "pages 0-4043/4044"])
def test_a_part_of_a_body_is_no_recording(make: Callable[..., MediaClient], part: str) -> None:
    answer = audio(status=206, **({"Content-Range": part} if part else {}))
    assert fault_of(make(Source(answer))) == ("not_there", "http_206", 206)


def test_a_body_that_is_compressed_all_the_same_is_unpacked(make: Callable[..., MediaClient]) -> None:
    packed = gzip.compress(WAV)
    for encoding in ("gzip", "x-gzip", "GZIP"):
        headers = {"Content-Encoding": encoding, "Content-Length": str(len(packed))}
        source = Source(lambda _, headers=headers: httpx.Response(200, content=iter([packed]), headers=headers))
        assert make(source).fetch(LINK, "1", io.BytesIO()).sha256 == hashlib.sha256(WAV).hexdigest()
        assert source.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(WAV)[:-1],
        gzip.compress(WAV)[:-8],
        gzip.compress(WAV) + gzip.compress(WAV),
        gzip.compress(WAV) + b"x",
        gzip.compress(WAV)[:-8] + bytes(8),
        b"",
    ],
    ids=["without its last byte", "without its checksum", "twice", "followed", "wrong checksum", "empty"],
)
def test_a_gzip_that_is_not_whole_and_alone_is_cut_off(make: Callable[..., MediaClient], packed: bytes) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
    source = Source(lambda _: httpx.Response(200, content=iter([packed]), headers=headers))
    assert fault_of(make(source)) == ("not_audio", "cut_off", 200)
    assert len(source.requests) == 3


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "compress", "\xff" * 99])
def test_an_encoding_that_nobody_asked_for_is_refused_with_its_name(
    make: Callable[..., MediaClient], encoding: str
) -> None:
    headers = [(b"Content-Encoding", encoding.encode("latin-1"))]
    with pytest.raises(MediaFault) as fault:
        make(lambda _: httpx.Response(200, stream=httpx.ByteStream(WAV), headers=headers)).fetch(
            LINK, "1", io.BytesIO()
        )
    assert (fault.value.kind, fault.value.reason) == ("unavailable", "source_unavailable")
    assert f"encoded as {encoding[:40]!a}" in str(fault.value.__cause__)


def test_a_body_above_the_cap_is_too_large_whether_it_says_so_or_not(
    make: Callable[..., MediaClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", len(WAV) - 1)
    assert fault_of(make(Source(audio()))) == ("not_audio", "too_large", 200)
    endless = Source(lambda _: httpx.Response(200, content=(WAV for _ in iter(int, 1))))
    assert fault_of(make(endless)) == ("not_audio", "too_large", 200)
    assert len(endless.requests) == 1
    monkeypatch.setattr(media, "MAX_BYTES", len(WAV))
    assert make(Source(audio())).fetch(LINK, "1", io.BytesIO()).size == len(WAV)


def test_a_body_that_trickles_is_too_slow(make: Callable[..., MediaClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_SECONDS", 0.2)

    def trickle() -> Iterator[bytes]:
        yield WAV
        while True:
            time.sleep(0.01)
            yield b"R"

    sink, source = io.BytesIO(), Source(lambda _: httpx.Response(200, content=trickle()))
    with pytest.raises(MediaFault, match=r"too_slow \(HTTP 200\)"):
        make(source).fetch(LINK, "1", sink)
    assert len(source.requests) == 1
    assert len(sink.getvalue()) > len(WAV)


def test_a_stop_is_honoured_in_the_middle_of_a_body(make: Callable[..., MediaClient], stop: threading.Event) -> None:
    def body() -> Iterator[bytes]:
        yield WAV
        stop.set()
        while True:
            yield WAV

    with pytest.raises(Stopped):
        make(Source(lambda _: httpx.Response(200, content=body()))).fetch(LINK, "1", io.BytesIO())


def test_a_full_disk_is_not_mistaken_for_a_cut_off_body(make: Callable[..., MediaClient]) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        make(Source(audio())).fetch(LINK, "1", Full())


def test_a_link_to_a_host_off_the_list_is_not_requested(make: Callable[..., MediaClient]) -> None:
    source = Source(audio())
    with pytest.raises(LinkRefused) as refused:
        make(source).fetch("https://evil.example/?file=a", "1", io.BytesIO())
    assert refused.value.reason == "host_not_allowed"
    assert source.requests == []
