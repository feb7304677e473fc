import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from botocore import exceptions as boto
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoresCredentials
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.bucket import make_s3_client
from pipelines.archive.sender import Part, SignedSender
from pipelines.archive.signing import Credentials, Request, signed
from tests.hostile.certificates import certificate

HASH = "0" * 64
HEADERS = {"x-amz-content-sha256": HASH}
BODY = os.urandom(3_000_000)
STORED = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n'


class Wire:
    """What one connection to a server of a test says and hears."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.heard = b""

    def hear_head(self) -> dict[str, str]:
        """Headers of the next request, and its first line under ''."""
        while b"\r\n\r\n" not in self.heard:
            data = self.stream.recv(65536)
            if not data:
                raise ConnectionError
            self.heard += data
        head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return {"": first, **{name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}}

    def hear_body(self, head: dict[str, str]) -> bytes:
        size = int(head["content-length"])
        while len(self.heard) < size:
            data = self.stream.recv(1 << 20)
            if not data:
                raise ConnectionError
            self.heard += data
        body, self.heard = self.heard[:size], self.heard[size:]
        return body

    def say(self, text: bytes) -> None:
        self.stream.sendall(text)


Serve = Callable[[Callable[[int, Wire], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server: it is given each connection, with its number from 0 on. Returns the port."""
    listeners: list[socket.socket] = []

    def start(deal: Callable[[int, Wire], None], tls: ssl.SSLContext | None = None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            number = 0
            while True:
                try:
                    stream, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError), tls.wrap_socket(stream, server_side=True) if tls else stream as secured:
                    deal(number, Wire(secured))
                number += 1

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def sender_to(port: int, scheme: str = "http", host: str = "127.0.0.1", silence_s: float = 10.0) -> SignedSender:
    client = make_s3_client(max_connections=1, endpoint_url=f"{scheme}://{host}:{port}")
    return SignedSender(client, "archive", silence_s=silence_s)


values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip)


@given(
    key=st.text(min_size=1, max_size=30),
    query=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=3),
    headers=st.dictionaries(st.from_regex(r"x-amz-meta-[a-z0-9-]{1,9}", fullmatch=True), values, max_size=4),
    token=st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,40}", fullmatch=True),
    secret=st.from_regex(r"[A-Za-z0-9+/]{20,40}", fullmatch=True),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - given a zone
)
def test_a_signature_is_the_one_that_botocore_makes(  # noqa: PLR0917 - all from hypothesis
    key: str, query: dict[str, str], headers: dict[str, str], token: str | None, secret: str, at: datetime
) -> None:
    path = f"/archive/{quote(key, safe='/~')}"
    ours = signed(
        Request("PUT", "s3.example.com:9000", path, query, {**headers, **HEADERS}),
        Credentials("AKID", secret, token),
        "eu-central-1",
        at,
    )
    asked = AWSRequest(
        "PUT",
        f"https://s3.example.com:9000{path}" + (f"?{urlencode(query, quote_via=quote, safe='~')}" if query else ""),
        headers={name: value for name, value in ours.items() if name not in {"authorization", "host"}},
    )
    asked.context["timestamp"] = ours["x-amz-date"]
    theirs = S3SigV4Auth(BotocoresCredentials("AKID", secret, token), "s3", "eu-central-1")
    text = theirs.string_to_sign(asked, theirs.canonical_request(asked))
    assert ours["authorization"].endswith(f"Signature={theirs.signature(text, asked)}")
    assert f"SignedHeaders={theirs.signed_headers(theirs.headers_to_sign(asked))}," in ours["authorization"]


@pytest.mark.parametrize("size", [0, 1, 300_000, (1 << 20), 2 * (1 << 20) + 1, 4 * (1 << 20) + 7])
@pytest.mark.parametrize("start", [0, 5])
def test_a_body_arrives_as_it_lies_in_memory_or_on_disk(serve: Serve, size: int, start: int) -> None:
    content, heard = os.urandom(size), list[bytes]()

    def deal(_: int, wire: Wire) -> None:
        while True:
            heard.append(wire.hear_body(wire.hear_head()))
            wire.say(STORED)

    with tempfile.SpooledTemporaryFile(2 * (1 << 20)) as spool:
        for place in range(0, size, 100_000):
            spool.write(content[place : place + 100_000])
        sender = sender_to(serve(deal))
        part = Part(spool, start, max(0, size - start))  # type: ignore[arg-type]
        assert sender.put("a", part, HEADERS).headers["etag"] == '"e"'
    assert heard == [content[start:]]


def test_a_connection_is_kept_and_its_loss_costs_no_put(serve: Serve) -> None:
    served: list[int] = []

    def deal(number: int, wire: Wire) -> None:
        for _ in range(2):
            wire.hear_body(wire.hear_head())
            wire.say(STORED)
            served.append(number)
        # Closed in the middle of the next request: it shows neither before nor while that is sent.
        wire.hear_head()

    sender = sender_to(serve(deal))
    for _ in range(3):
        sender.put("a", b"small", HEADERS)
    assert served == [0, 0, 1]


def test_a_new_connection_that_breaks_off_is_no_put(serve: Serve) -> None:
    heard: list[int] = []

    def deal(number: int, wire: Wire) -> None:
        wire.hear_head()
        heard.append(number)

    with pytest.raises(boto.ConnectionClosedError):
        sender_to(serve(deal)).put("a", b"small", HEADERS)
    assert heard == [0]


def test_a_refusal_before_the_end_of_the_body_is_heard(serve: Serve) -> None:
    refusal = b"<Error><Code>AccessDenied</Code></Error>"

    def deal(_: int, wire: Wire) -> None:
        wire.hear_head()
        wire.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(refusal), refusal))
        threading.Event().wait(2)  # and hears no more

    with pytest.raises(boto.ClientError, match="AccessDenied"):
        sender_to(serve(deal), silence_s=0.5).put("a", BODY * 4, HEADERS)


def test_a_yes_before_the_end_of_the_body_is_none(serve: Serve) -> None:
    def deal(_: int, wire: Wire) -> None:
        wire.hear_head()
        wire.say(STORED)
        threading.Event().wait(2)

    with pytest.raises(boto.ReadTimeoutError):
        sender_to(serve(deal), silence_s=0.5).put("a", BODY * 4, HEADERS)


def test_a_store_that_says_nothing_is_not_waited_for_for_ever(serve: Serve) -> None:
    def deal(_: int, wire: Wire) -> None:
        wire.hear_body(wire.hear_head())
        threading.Event().wait(2)

    with pytest.raises(boto.ReadTimeoutError):
        sender_to(serve(deal), silence_s=0.3).put("a", b"small", HEADERS)


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 yes\r\n\r\n", b""])
def test_an_answer_that_is_none_is_no_put(serve: Serve, answer: bytes) -> None:
    def deal(_: int, wire: Wire) -> None:
        wire.hear_body(wire.hear_head())
        wire.say(answer)

    with pytest.raises(boto.HTTPClientError):
        sender_to(serve(deal)).put("a", b"small", HEADERS)


@pytest.mark.parametrize(("name", "trusted"), [("localhost", True), ("localhost", False), ("elsewhere.test", True)])
def test_the_certificate_must_be_good(
    serve: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    def deal(_: int, wire: Wire) -> None:
        wire.hear_body(wire.hear_head())
        wire.say(STORED)

    port = serve(deal, certificate(tmp_path, name))
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    sender = sender_to(port, "https", "localhost")
    if trusted and name == "localhost":
        assert sender.put("a", BODY, HEADERS).headers["etag"] == '"e"'
    else:
        with pytest.raises(boto.SSLError):
            sender.put("a", BODY, HEADERS)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_of_the_environment_is_gone_through(
    serve: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    heard: list[dict[str, str]] = []

    def deal(_: int, wire: Wire) -> None:
        while True:
            heard.append(wire.hear_head())
            assert wire.hear_body(heard[-1]) == BODY
            wire.say(STORED)

    context = certificate(tmp_path, "s3.example.com")

    def tunnel(_: int, wire: Wire) -> None:
        heard.append(wire.hear_head())
        wire.say(b"HTTP/1.0 200 Connection established\r\n\r\n")
        with context.wrap_socket(wire.stream, server_side=True) as secured:
            deal(0, Wire(secured))

    port = serve(deal if scheme == "http" else tunnel)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "elsewhere.example.com")
    sender = sender_to(9000, scheme, "s3.example.com")
    for _ in range(2):
        assert sender.put("a b", BODY, HEADERS).headers["etag"] == '"e"'
    login = "Basic dXNlcjpzZWNyZXQ="
    if scheme == "http":
        assert [one[""] for one in heard] == ["PUT http://s3.example.com:9000/archive/a%20b HTTP/1.1"] * 2
        assert {one["proxy-authorization"] for one in heard} == {login}
    else:
        assert heard[0][""].startswith("CONNECT s3.example.com:9000 ")
        assert heard[0]["proxy-authorization"] == login
        assert [one[""] for one in heard[1:]] == ["PUT /archive/a%20b HTTP/1.1"] * 2
        assert all("proxy-authorization" not in one for one in heard[1:])
    assert {one["host"] for one in heard if one[""].startswith("PUT")} == {"s3.example.com:9000"}
    assert "secret" not in repr(sender._route)
