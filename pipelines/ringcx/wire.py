"""HTTP/1.1 over kept connections: the transport under the client.

It does what httpx's own does and nothing more, at a tenth of its CPU for a large body: read in blocks of up to 1 MiB
and parsed in C (`httptools`), where httpcore and h11 take 64 KiB at a time through Python. No redirects, no proxies,
no retries, no HTTP/2.

A timeout is for each read alone: a source that sends a byte a minute would hold a thread for ever, so an exchange has a
limit as a whole, and so have its headers, in seconds and in bytes.
"""

import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import httptools
import httpx

from pipelines.ringcx.network import Resolve, connect, system_resolve

__all__ = ["Body", "Transport"]

HEADERS_S: Final = 120.0
EXCHANGE_S: Final = 7200.0  # above the limits of reports and media: theirs end with a sentence of their own
_READ: Final = 256 << 10
_GATHERED: Final = 1 << 20
_FILL_S: Final = 0.05
_LONGEST_HEADERS: Final = 128 << 10
_KEPT_S: Final = 5.0
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"([!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_TARGET = re.compile(rb"[!-~]+")

_Origin = tuple[str, bytes, int | None]
Space = Callable[[int], memoryview | None]
"""Gives memory of so many bytes, perhaps of fewer, or None."""


class Transport(httpx.BaseTransport):
    """A transport with connections of its own, one for each answer that is open; share it over all threads.

    Args:
        max_kept: so many are kept open, for a few seconds, for the next request.
        public_only: names are followed to public addresses only (see `network.connect`).
        resolve: asks for the addresses of a name.
        headers_s: seconds from the request to the end of the answer's headers.
        exchange_s: seconds from the request to the end of the answer.
        clock: seconds, for both.
    """

    def __init__(
        self,
        *,
        max_kept: int,
        public_only: bool,
        resolve: Resolve = system_resolve,
        headers_s: float = HEADERS_S,
        exchange_s: float = EXCHANGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_kept = max_kept
        self._public_only = public_only
        self._resolve = resolve
        self._headers_s = headers_s
        self._exchange_s = exchange_s
        self._clock = clock
        self._tls = httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._lock = threading.Lock()
        self._kept: list[tuple[_Origin, _Connection]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the answer's body is still to be read, and the answer to be closed.

        Raises:
            LinkRefused: `address_not_public`.
            httpx.LocalProtocolError: the request cannot be written as HTTP.
            httpx.TransportError: there is no connection, or no answer that is HTTP.
        """
        timeout = request.extensions.get("timeout", {})
        head = _head(request)
        if request.url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol("The address is neither http nor https.")
        origin = (request.url.scheme, request.url.raw_host, request.url.port)
        connection = self._kept_one(origin)
        if connection is None:
            stream = connect(
                request.url,
                public_only=self._public_only,
                resolve=self._resolve,
                tls=self._tls,
                timeout_s=timeout.get("connect") or self._headers_s,
            )
            connection = _Connection(stream, self._headers_s, self._exchange_s, self._clock)
        try:
            answer = connection.exchange(head + request.read(), timeout.get("read") or self._headers_s)
        except BaseException:
            connection.close()
            raise
        body = Body(answer, lambda: self._give_back(origin, connection))
        return httpx.Response(answer.status, headers=answer.headers, stream=body, request=request)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            unused, self._kept = self._kept, []
        for _, connection in unused:
            connection.close()

    def _kept_one(self, origin: _Origin) -> "_Connection | None":
        with self._lock:
            place = next((n for n in reversed(range(len(self._kept))) if self._kept[n][0] == origin), None)
            connection = None if place is None else self._kept.pop(place)[1]
        if connection is None or connection.is_fresh():
            return connection
        connection.close()
        return self._kept_one(origin)

    def _give_back(self, origin: _Origin, connection: "_Connection") -> None:
        surplus = connection
        if connection.is_reusable():
            with self._lock:
                self._kept.append((origin, connection))
                if len(self._kept) <= self._max_kept:
                    return
                surplus = self._kept.pop(0)[1]
        surplus.close()


class Body(httpx.SyncByteStream):
    """The rest of an answer, whose connection is given back when it is closed."""

    def __init__(self, answer: "_Answer", done: Callable[[], None]) -> None:
        self._answer = answer
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self._answer.blocks(None))

    def blocks(self, space: Space | None = None) -> Iterator[bytes | memoryview]:
        """The rest as it is sent, in blocks as large as arrive at once, each good until the next one is asked for.

        `space` is asked where a block may lie; it need not lie there.
        """
        return self._answer.blocks(space or (lambda _: None))

    def close(self) -> None:
        """Give the connection back."""
        if self._done is not None:
            done, self._done = self._done, None
            done()


class _Connection:
    """One connection, on which every exchange, which begins when something is sent, has a limit."""

    def __init__(self, stream: socket.socket, headers_s: float, exchange_s: float, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._headers_s = headers_s
        self._exchange_s = exchange_s
        self._clock = clock
        self._buffer = memoryview(bytearray(_READ))
        self._answer: _Answer | None = None
        self._used = clock()

    def exchange(self, request: bytes, timeout_s: float) -> "_Answer":
        """Send a request and read until the end of the answer's headers."""
        self._began, self._timeout_s = self._clock(), timeout_s
        self._set_timeout(timeout_s)
        try:
            self._stream.sendall(request)
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        self._answer = answer = _Answer(self)
        answer.read_headers()
        return answer

    def read(self, in_body: bool) -> memoryview:
        """What has arrived, as soon as something has; empty at the end. Good until the next call."""
        return self._buffer[: self._receive(self._buffer, in_body)]

    def gather(self, most: int, space: Space) -> memoryview:
        """The same of a body, gathered for a moment: what is done with a block costs by the block too."""
        view = space(min(most, _GATHERED)) or self._buffer[:most]
        began = self._clock()
        filled = got = self._receive(view, in_body=True)
        while got and filled < len(view) and self._clock() - began < _FILL_S:
            got = self._receive(view[filled:], in_body=True)
            filled += got
        return view[:filled]

    def _receive(self, view: memoryview, in_body: bool) -> int:
        allowed = self._exchange_s if in_body else self._headers_s
        left = self._began + allowed - self._clock()
        if left <= 0:
            raise httpx.ReadTimeout(f"the answer was not whole after {allowed:.0f} s")
        self._set_timeout(min(left, self._timeout_s))
        try:
            return self._stream.recv_into(view)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def is_reusable(self) -> bool:
        """Whether the last exchange left it at the beginning of the next one."""
        self._used = self._clock()
        return self._answer is not None and self._answer.is_whole_and_alone

    def is_fresh(self) -> bool:
        """Whether it was used just now, and the other side has neither closed it nor spoken unasked."""
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        unread = poll.poll(0) or (isinstance(self._stream, ssl.SSLSocket) and self._stream.pending())
        return self._clock() - self._used < _KEPT_S and not unread

    def close(self) -> None:
        self._stream.close()

    def _set_timeout(self, seconds: float) -> None:
        if self._stream.gettimeout() != seconds:
            self._stream.settimeout(seconds)


class _Answer:
    """What the parser makes of one answer. Its `on_…` methods are called from within `feed_data`."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._left: int | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._blocks: list[bytes] = []
        self._has_headers = self._is_whole = self._is_followed = self._is_framed = self._is_kept = False
        self._is_kept_alive = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    @property
    def is_whole_and_alone(self) -> bool:
        """Whether the connection may be used again: all was read, nothing followed, and the other side agrees."""
        return self._is_kept and not self._is_followed

    def read_headers(self) -> None:
        """Read until the headers are there, past interim answers."""
        received = 0
        while not self._has_headers:
            data = self._connection.read(in_body=False)
            received += len(data)
            if not data:
                raise httpx.RemoteProtocolError("the connection was closed before an answer")
            self._feed(data)
            if not self._has_headers and received > _LONGEST_HEADERS:
                raise httpx.RemoteProtocolError("the headers do not end")

    def blocks(self, space: Space | None) -> Iterator[bytes | memoryview]:
        """The body as it arrives; raised to the reader when it ends before its end.

        With `space` a body of known length is read without the parser, which would copy it.
        """
        while True:
            blocks, self._blocks = self._blocks, []
            yield from blocks
            if self._is_whole:
                return
            if space is not None and self._left is not None:
                yield from self._known(self._left, space)
                return
            data = self._connection.read(in_body=True)
            if data:
                self._feed(data)
            elif self._is_framed:
                raise _ended_early()
            else:
                return

    def _known(self, left: int, space: Space) -> Iterator[memoryview]:
        while left:
            data = self._connection.gather(left, space)
            if not data:
                raise _ended_early()
            left -= len(data)
            if not left:
                self._is_whole, self._is_kept = True, self._is_kept_alive
            yield data

    def _feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise httpx.RemoteProtocolError("the answer changes the protocol") from error
        except httptools.HttpParserError as error:
            if not self._is_whole:
                raise httpx.RemoteProtocolError(f"the answer is no HTTP ({type(error).__name__})") from error
            self._is_followed = True

    def on_message_begin(self) -> None:
        self._is_followed = self._is_whole

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_whole:
            self.headers.append((name, value.strip()))
            if len(self.headers) > 1000:
                raise httpx.RemoteProtocolError("the headers do not end")

    def on_headers_complete(self) -> None:
        if self._is_whole:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            return
        fields = {name.lower(): value for name, value in self.headers}
        if fields.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise httpx.RemoteProtocolError("the answer is encoded otherwise than in chunks")
        self._is_kept_alive = self._parser.should_keep_alive()
        if b"transfer-encoding" not in fields and fields.get(b"content-length", b"").isdigit():
            self._left = int(fields[b"content-length"])
        self._is_framed = bool(fields.keys() & {b"content-length", b"transfer-encoding"}) or self.status in {204, 304}
        self._has_headers = True

    def on_body(self, body: bytes) -> None:
        if not self._is_whole:
            self._blocks.append(body)
            self._left = None if self._left is None else self._left - len(body)

    def on_message_complete(self) -> None:
        if self._has_headers and not self._is_whole:
            self._is_whole = True
            self._is_kept = self._is_framed and self._parser.should_keep_alive()  # it can tell now and not later


def _ended_early() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError("the connection was closed before the end of the answer")


def _head(request: httpx.Request) -> bytes:
    """The request's line and headers; its text says of what is wrong no more than where."""
    method, target = request.method.encode("ascii"), request.url.raw_path
    if not _NAME.fullmatch(method) or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("The method or the path cannot be written.")
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise httpx.LocalProtocolError("A header cannot be written.")
        lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
