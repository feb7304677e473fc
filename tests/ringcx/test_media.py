import gzip
import hashlib
import io
import math
import os
import re
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx import media
from pipelines.ringcx.errors import AccountUnknown, LinkRefused, Stopped
from pipelines.ringcx.http.client import Received, SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList, RecordingLink, parse_link
from pipelines.ringcx.media import MediaClient, MediaFault

HOST = "c02-recordings.virtualacd.biz"
FILE = "15300002/202007/30/202007302136360132130000036446-1.WAV"
LINK = (
    f"https://{HOST}/api/v1/calls/recordings/?v=1&accountId=15300002&bucket=c02-recordings&region=us-east-1"
    f"&compliance=false&file={FILE}"
)
WAV = b"RIFF" + struct.pack("<I", 36 + 4000) + b"WAVEfmt " + bytes(20) + b"data" + struct.pack("<I", 4000) + bytes(4000)
OTHER = "aws46-recordings.vacd.biz"


# --- links


@given(
    path=st.text("abcWAV0129./-_", max_size=20),
    before=st.lists(st.sampled_from(["v=1", "file=x.WAV", "accountId=", "Region=us-east-1"]), max_size=3),
    host=st.sampled_from([HOST, "xn--a.example.com", "a--b.example.com", "A.example.com", "1.2.3.4", "a..b"]),
)
def test_a_plain_link_says_the_same_as_the_same_link_with_a_fragment(path: str, before: list[str], host: str) -> None:
    link = f"https://{host}/api/v1/?{'&'.join([*before, f'file={path}', 'compliance=true'])}"

    def read(text: str) -> tuple[str, ...]:
        try:
            found = parse_link(text, "15300002")
        except LinkRefused as refusal:
            return (refusal.reason,)
        return found.file_path, found.recording_id

    assert read(link) == read(f"{link}#")


def test_a_published_link_is_read() -> None:
    assert parse_link(LINK, "15300002") == RecordingLink(
        url=LINK,
        file_path=FILE,
        recording_id=f"15300002/{FILE}",
    )


@pytest.mark.parametrize(
    "variant",
    [
        LINK.replace("/recordings/?", "/recordings?"),
        LINK.replace("&file=", "& file= ").replace("&bucket", " &bucket"),
        f"https://{HOST.upper()}/api/v1/calls/recordings?file={FILE}&v=1&compliance=true",
        f"  https://{OTHER}/elsewhere?file={FILE}&region=us-west-2\n",
        f"https://{HOST}/api/v1/calls/recordings?fi%6Ce={FILE.replace('/', '%2F')}",
        f"http://{HOST}:8080/?file={FILE}#part",
        LINK.replace(FILE, FILE[:20] + " \u00a0\t" + FILE[20:]),
    ],
)
def test_the_same_recording_has_the_same_id_however_its_link_is_written(variant: str) -> None:
    link = parse_link(variant, "15300002")
    assert link.recording_id == f"15300002/{FILE}"
    assert not any(char.isspace() for char in link.url)


@pytest.mark.parametrize("who", ["user:hush@", "user@", ""])
def test_credentials_in_a_link_do_not_change_which_recording_it_is(who: str) -> None:
    assert parse_link(f"https://{who}{HOST}/?file={FILE}", "7").recording_id == f"7/{FILE}"


def test_a_stereo_path_is_kept_whole() -> None:
    path = "perspective/15300002/202008/05/202008051517160139120000000370-session-2-stereo.WAV"
    link = parse_link(f"https://{OTHER}/api/v1/calls/recordings?accountId=15300002&file={path}", "7")
    assert (link.recording_id, link.file_path) == (f"7/{path}", path)


def test_a_link_without_a_file_is_known_by_its_path_and_its_query() -> None:
    link = parse_link("https://ringcx.example/voice/api/recordings/dialogs/s-v-1/segments/p-v%2F2", "7")
    assert link.file_path == "voice/api/recordings/dialogs/s-v-1/segments/p-v/2"
    known = parse_link("https://ringcx.example/a/?B=2&a=1", "7").file_path
    assert known.startswith("a/?")
    assert parse_link("https://ringcx.example/a/?A=1&b=2", "7").file_path == known
    assert parse_link("https://ringcx.example/a/?A=1&b=3", "7").file_path != known


@pytest.mark.parametrize(
    "name", ["X-Amz-Signature", "X-Amz-Date", "Expires", "Signature", "token", "access_token", "sig"]
)
def test_a_link_signed_anew_is_the_same_recording_and_its_id_holds_no_secret(name: str) -> None:
    first, second = (parse_link(f"https://ringcx.example/a?id=5&{name}={value}", "7") for value in ("one", "two"))
    assert first.recording_id == second.recording_id
    assert parse_link("https://ringcx.example/a?id=6", "7").recording_id != first.recording_id
    assert "s3cret" not in parse_link("https://ringcx.example/a?id=5&key=s3cret", "7").recording_id


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a/../../etc/passwd", "a/../../etc/passwd"),
        ("a/b%00.WAV", "a/b\0.WAV"),
        ("a/%252e.WAV", "a/%2e.WAV"),
        ("a/b+c.WAV", "a/b+c.WAV"),
        ("a/%E9.WAV", "a/é.WAV"),
        ("a/ü.WAV", "a/ü.WAV"),
        ("a/100%.WAV", "a/100%.WAV"),
    ],
)
def test_a_file_path_is_decoded_once_and_otherwise_left_alone(written: str, read: str) -> None:
    assert parse_link(f"https://{HOST}/?file={written}", "1").file_path == read


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "malformed"),
        ("   ", "malformed"),
        ("not a link", "malformed"),
        (f"{HOST}/?file=a", "malformed"),
        ("https://", "malformed"),
        ("https:///?file=a", "malformed"),
        (f"https://evil.example\\.{HOST}/?file=a", "malformed"),
        (f"https://evil%2eexample.{HOST}/?file=a", "malformed"),
        (f"https://{HOST}:port/?file=a", "malformed"),
        (f"https://{HOST}/?file=a\x00b", "malformed"),
        ("https://[::1/?file=a", "malformed"),
        ("https://\ud800/?file=a", "malformed"),
        (f"ftp://{HOST}/?file=a", "not_https"),
        ("javascript:alert(1)", "not_https"),
        (f"https://{HOST}", "no_file"),
        (f"https://{HOST}/?", "no_file"),
        (f"https://{HOST}/?file=a&file=b", "several_files"),
        (LINK + "x" * 4096, "too_long"),
    ],
)
def test_a_link_that_must_not_be_used_is_refused_by_name(raw: str, reason: str) -> None:
    with pytest.raises(LinkRefused) as refused:
        parse_link(raw, "1")
    assert refused.value.reason == reason
    assert "hush" not in str(refused.value)


@given(st.one_of(st.text(), st.text().map(lambda s: f"https://{s}"), st.text().map(lambda s: LINK + s)))
def test_any_text_is_a_link_or_refused(raw: str) -> None:
    try:
        link = parse_link(raw, "1")
    except LinkRefused:
        return
    assert link.file_path.strip("/")
    assert link.recording_id == f"1/{link.file_path}"
    assert parse_link(link.url, "1") == link


def test_the_repr_of_a_link_hides_the_address() -> None:
    assert "https" not in repr(parse_link(LINK, "1"))


# --- hosts


@pytest.mark.parametrize(
    "url",
    [
        "https://a.vacd.biz/x",
        "https://A.B.VACD.biz./x?y",
        "https://a.vacd.biz:443/",
        "https://exact.example/",
        "https://port.example:8443/",
        "https://xn--bcher-kva.example/",
        "https://BÜCHER.example/",
        "http://localhost:9000/",
        "https://localhost/",
        "http://127.0.0.1:1234/",
        "http://[::1]:8080/",
        "http://[0:0:0:0:0:0:0:1]:8080/",
        "https://10.0.0.7/",
    ],
)
def test_a_listed_host_is_allowed(url: str) -> None:
    HostList(
        [
            "*.vacd.biz", "exact.Example", "port.example:8443", "bücher.example",
            "localhost", "127.0.0.1", "[::1]:8080", "10.0.0.7", "",
        ]
    ).require(url)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://vacd.biz/", "host_not_allowed"),
        ("https://evilvacd.biz/", "host_not_allowed"),
        ("https://a.vacd.biz.evil.example/", "host_not_allowed"),
        ("https://evil.example/.vacd.biz", "host_not_allowed"),
        ("https://evil.example#.vacd.biz", "host_not_allowed"),
        ("https://evil.example?.vacd.biz", "host_not_allowed"),
        ("https://a.vacd.biz:8443/", "host_not_allowed"),
        ("https://port.example/", "host_not_allowed"),
        ("https://sub.exact.example/", "host_not_allowed"),
        ("https://127.0.0.1:9000/", "host_not_allowed"),
        ("https://127.0.0.2/", "host_not_allowed"),
        ("https://169.254.169.254/", "host_not_allowed"),
        ("http://a.vacd.biz/", "not_https"),
        ("http://exact.example/", "not_https"),
        ("http://127.0.0.1.vacd.biz/", "not_https"),
        ("http://localhost.vacd.biz/", "not_https"),
        ("ftp://a.vacd.biz/", "not_https"),
        ("file:///etc/passwd", "not_https"),
        ("https://u:p@a.vacd.biz/", "credentials_in_url"),
        ("https://a.vacd.biz\\@evil.example/", "credentials_in_url"),
        ("https://evil.example\\.vacd.biz/", "malformed"),
        ("https://evil.example%2f.vacd.biz/", "malformed"),
        ("//a.vacd.biz/", "malformed"),
        ("", "malformed"),
    ],
)
def test_any_other_address_is_refused(url: str, reason: str) -> None:
    hosts = HostList(["*.vacd.biz", "exact.example", "port.example:8443", "127.0.0.1:8000"])
    with pytest.raises(LinkRefused) as refused:
        hosts.require(url)
    assert refused.value.reason == reason


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(LinkRefused):
        HostList([]).require("https://a.vacd.biz/")


@pytest.mark.parametrize("entry", ["*", "*.", "https://host", "host/path", "user@host", "a b", "*.*.biz", "h:port"])
def test_an_entry_that_is_no_host_is_refused_with_its_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="RINGCX_MEDIA_HOSTS"):
        HostList([entry])


# --- fetching


class Source:
    """Answers by host and path, or always the same; keeps the requests."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer if isinstance(self.answer, httpx.Response) else self.answer(request)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make(tmp_path: Path, stop: threading.Event) -> Iterator[Callable[..., MediaClient]]:
    """Builds a media client; without a handler it uses real connections. Nothing sleeps."""
    limiter = RateLimiter(tmp_path / "l")
    clients: list[SourceClient] = []

    def build(handler: Callable[[httpx.Request], httpx.Response] | None = None, **options: Any) -> MediaClient:
        client = SourceClient(
            limiter=limiter,
            limits={},
            stop=stop,
            transport=httpx.MockTransport(handler) if handler else None,
            attempts=3,
            read_timeout_s=0.5,
            sleep=lambda _: None,
        )
        clients.append(client)
        hosts = HostList(["*.virtualacd.biz", "*.vacd.biz", "127.0.0.1", "localhost"])
        return MediaClient(client, hosts, **({"auth": None} | options))

    yield build
    for client in clients:
        client.close()
    limiter.close()


def audio(body: bytes = WAV, *, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=body, headers={"Content-Type": "audio/wav"} | headers)


def fault_of(media: MediaClient, url: str = LINK) -> tuple[str, str, int | None]:
    with pytest.raises(MediaFault) as fault:
        media.fetch(url, "1", io.BytesIO())
    assert "file=" not in str(fault.value)
    status = re.search(r"HTTP (\d+)", str(fault.value))
    return fault.value.kind, fault.value.reason, int(status[1]) if status else None


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


@pytest.mark.parametrize("piece", [100, 1 << 16])
@pytest.mark.parametrize(("start", "reason"), [(b"<html>", "html_body"), (b"[", "json_body"), (b"no ", "text_body")])
def test_a_page_is_refused_by_its_first_bytes_however_long_it_is(
    make: Callable[..., MediaClient], start: bytes, reason: str, piece: int
) -> None:
    sent: list[bytes] = []

    def body() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append((start if not sent else b"").ljust(piece, b" "))
            yield sent[-1]

    sink = io.BytesIO()
    with pytest.raises(MediaFault) as fault:
        make(lambda _: httpx.Response(200, content=body())).fetch(LINK, "1", sink)
    assert fault.value.reason == reason
    assert len(sent) == math.ceil(512 / piece)


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
    assert ("something unknown" if "\xff" in encoding else f"`{encoding}`") in str(fault.value.__cause__)


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


# --- redirects and credentials


def hops(**targets: str) -> Callable[[httpx.Request], httpx.Response]:
    """Redirects by path: `/a` goes where `a=` says, every other path is the recording."""

    def answer(request: httpx.Request) -> httpx.Response:
        target = targets.get(request.url.path.strip("/"))
        return audio() if target is None else httpx.Response(302, headers={"Location": target})

    return answer


BASIC = httpx.BasicAuth("ada", "hush")


def test_credentials_go_to_the_listed_host_and_along_its_own_redirects(make: Callable[..., MediaClient]) -> None:
    source = Source(hops(a="/b", b=f"https://{HOST}:443/c?x=1", c="../d"))
    assert make(source, auth=BASIC).fetch(f"https://{HOST}/a", "1", io.BytesIO()).size == len(WAV)
    assert [request.url.path for request in source.requests] == ["/a", "/b", "/c", "/d"]
    assert all("Authorization" in request.headers for request in source.requests)


@pytest.mark.parametrize(
    ("start", "target"),
    [
        (f"https://{HOST}/a", f"https://{OTHER}/b"),
        (f"https://{HOST}/a", f"//{OTHER}/b"),
        ("http://localhost:8000/a", "http://localhost:8001/b"),
        ("https://localhost:8000/a", "http://localhost:8000/b"),
        ("http://localhost:8000/a", "http://127.0.0.1:8000/b"),
    ],
)
def test_credentials_do_not_follow_a_redirect_to_another_origin_nor_come_back(
    make: Callable[..., MediaClient], start: str, target: str
) -> None:
    source = Source(hops(a=target, b=start.replace("/a", "/c")))
    make(source, auth=BASIC).fetch(start, "1", io.BytesIO())
    assert ["Authorization" in request.headers for request in source.requests] == [True, False, False]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/b",
        f"http://{HOST}/b",
        f"https://{HOST}:8443/b",
        f"https://user:hush@{HOST}/b",
        "file:///etc/passwd",
        "https://169.254.169.254/latest/meta-data",
        "/a",  # for ever
    ],
)
def test_a_redirect_that_is_not_allowed_is_not_followed(make: Callable[..., MediaClient], target: str) -> None:
    source = Source(hops(a=target))
    assert fault_of(make(source, auth=BASIC), f"https://{HOST}/a") == ("refused", "redirect_not_allowed", 302)
    assert {request.url.host for request in source.requests} == {HOST}
    assert len(source.requests) == (6 if target == "/a" else 1)


def test_a_redirect_to_an_address_that_cannot_be_read_ends_without_a_request(make: Callable[..., MediaClient]) -> None:
    source = Source(hops(a="https://evil.example:port/"))
    assert fault_of(make(source), f"https://{HOST}/a")[0] in {"refused", "unavailable"}
    assert {request.url.host for request in source.requests} == {HOST}


# --- over real connections


class Raw:
    """A server that sends given bytes for each connection in turn (the last for ever), then closes or resets."""

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


@pytest.mark.parametrize("page", [b"<html>sign in", b"<html>" + b" " * 600, b"{"])
def test_a_page_that_is_shorter_than_it_says_is_a_page(make: Callable[..., MediaClient], page: bytes) -> None:
    server = Raw(answer(page, "Content-Length: 5000"))
    with server as url:
        assert fault_of(make(), url)[1] in {"html_body", "json_body"}
    assert server.connections == 1


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
