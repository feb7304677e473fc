"""HTTP/1.1 to the source: httpx's requests and responses, sent and received by urllib3.

urllib3 reads a large body at a third of the cost of httpx's own transport (docs/performance.md). This module adds three
rules: connect only to checked addresses (`addresses.py`); limit the time of a whole response, since a source that sends
a byte a minute would block a thread forever; and refuse a response whose end is in doubt.
"""

# ruff: noqa: ANN401, SLF001 - the seams of http.client and urllib3 are private methods, whose arguments pass through
# mypy: disable-error-code="attr-defined, misc"
import contextlib
import email.errors
import http.client
import io
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, cast

import certifi
import httpx
import urllib3
from urllib3 import exceptions as failed
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipelines.ringcx.errors import ConnectionNotAllowed, LinkRefused
from pipelines.ringcx.http.addresses import connect, fit_addresses
from pipelines.ringcx.http.proxies import Proxy, proxy_for

ANSWER_S = 120.0
_BLOCK: Final = 1 << 20
_KEPT_S: Final = 60.0  # firewalls drop idle connections silently
_CA_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_LONGEST_LINE: Final = 1 << 16
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", re.DOTALL)


class Transport(httpx.BaseTransport):
    """A transport that connects directly, or through the environment's proxy; share it between all threads.

    Up to `max_kept` connections to a host are kept open. `ANSWER_S` limits the time from the request to the end of the
    answer; for a recording or report, to the end of its headers (`Body.check_reads`).
    """

    def __init__(self, *, max_kept: int, public_only: bool) -> None:
        # Each log of a request would show the whole link.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._pools = {
            "http": partial(_Pool, public_only=public_only),
            "https": partial(_TlsPool, public_only=public_only),
        }
        self._max_kept = max_kept
        self._managers: dict[Proxy | None, urllib3.PoolManager] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, with the body still to be read; the caller closes it.

        Raises LinkRefused (`address_not_public`); ConnectionNotAllowed if a certificate, the proxy or a setting does
        not allow it; httpx.TransportError without a connection or HTTP, or for a request that cannot be written.
        """
        url, timeout = request.url, request.extensions.get("timeout", {})
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        proxy = proxy_for(url)
        with _translate_errors(url, proxy):
            answer = self._manager(proxy).urlopen(
                request.method,
                f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}",
                body=request.read() or None,
                headers=urllib3.HTTPHeaderDict(headers),
                timeout=urllib3.Timeout(connect=timeout.get("connect"), read=timeout.get("read")),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        if proxy is not None and answer.status == 407:
            answer.close()
            raise proxy.refusal(answer.status, url)
        fields = httpx.Headers(list(answer.headers.items()), encoding="latin-1")
        return httpx.Response(answer.status, headers=fields, stream=Body(answer, url, proxy), request=request)

    def close(self) -> None:
        """Close the idle connections."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, proxy: Proxy | None) -> urllib3.PoolManager:
        manager = self._managers.get(proxy)
        if manager is None:
            tls = _trusting(tuple((name, path) for name in _CA_VARIABLES if (path := os.environ.get(name))))
            options: dict[str, Any] = {"num_pools": 64, "maxsize": self._max_kept, "ssl_context": tls}
            if proxy is None:
                manager = urllib3.PoolManager(**options)
            else:
                only_proxy = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
                options |= {"proxy_headers": only_proxy, "proxy_ssl_context": tls}
                manager = urllib3.ProxyManager(proxy.url, **options)
            manager.pool_classes_by_scheme = cast("Any", self._pools)
            manager = self._managers.setdefault(proxy, manager)
        return manager


@lru_cache(maxsize=2)
def _trusting(named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """Return a context with the `named` certificates of the environment, or the system's and certifi's: one for all
    threads, since reading them takes 60 ms, and seconds if sixteen threads read them after they got their permits.
    """
    context = ssl.create_default_context()
    for name, path in named or (("certifi", certifi.where()),):
        try:
            context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
        except OSError as error:
            raise ConnectionNotAllowed(
                f"{name} names {path}, which cannot be read as certificates ({error.strerror or error}); give a"
                " file of PEM certificates."
            ) from None
    return context


class Body(httpx.SyncByteStream):
    """The body as it is sent, in whole blocks, which saves a third of the CPU; raises if it ends too early."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, url: httpx.URL, proxy: Proxy | None) -> None:
        self._answer = answer
        self._failures = partial(_translate_errors, url, proxy)

    def check_reads(self, check: Callable[[], None]) -> None:
        """Call `check`, which may raise, before each read of the socket: a body may trickle in for hours."""
        self._answer._original_response.reads.check = check

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._failures():
                block = self._answer.read(_BLOCK)
            if not block:
                return
            yield block

    def close(self) -> None:
        """Return the connection to the pool if nothing is left on it; otherwise close it."""
        if getattr(self._answer, "length_remaining", None) == 0:
            self._answer.drain_conn()
        self._answer.close()


class _Reads(io.RawIOBase):
    """The bytes of a socket, as long as `check`, which is called before each read, does not raise."""

    def __init__(self, file: io.RawIOBase, check: Callable[[], None]) -> None:
        self._file = file
        self.check = check

    def readable(self) -> bool:
        return True

    def readinto(self, block: Any) -> int | None:
        self.check()
        return cast("int | None", self._file.readinto(block))

    def close(self) -> None:
        self._file.close()
        super().close()


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the response did not end in time")


class _Response(http.client.HTTPResponse):
    """A response with a certain end; any other is refused. urllib3 overrides the same private methods."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.reads = _Reads(self.fp.detach(), partial(_check_time, time.monotonic() + ANSWER_S))
        self.fp = io.BufferedReader(self.reads)

    def _read_status(self) -> tuple[str, int, str]:
        version, status, phrase = super()._read_status()
        # http.client skips 100 alone; after any other 1xx but 101 the answer is still to come, too.
        return version, http.HTTPStatus.CONTINUE if 101 < status < 200 else status, phrase

    def begin(self) -> None:
        super().begin()
        lengths = set(self.headers.get_all("Content-Length", []))
        is_length_unclear = len(lengths) > 1 or (lengths and self.length is None)
        is_unclear = not self.chunked and (is_length_unclear or "Transfer-Encoding" in self.headers)
        # A line that is no header hides those below it, with the length and the encoding.
        is_broken = email.errors.MissingHeaderBodySeparatorDefect in map(type, self.headers.defects)
        if self.status < 200 or is_broken or is_unclear:
            raise http.client.HTTPException("the response does not say where it ends")

    def _read_next_chunk_size(self) -> int:
        size = _CHUNK_SIZE.fullmatch(self.fp.readline(_LONGEST_LINE))  # http.client takes the `0` of a broken `0400`
        if size is None:
            self._close_conn()
            raise ValueError("not the size of a chunk")
        return int(size[1], 16)


class _Connection(HTTPConnection):
    """A connection to one of its host's checked addresses, or to a proxy, whose address is not checked."""

    response_class: Any = _Response
    _used_at = 0.0

    def __init__(self, *args: Any, public_only: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._public_only = public_only

    def _new_conn(self) -> socket.socket:
        try:
            found = [self.host] if self.proxy else fit_addresses(self.host, self.port, public_only=self._public_only)
            sock = connect(found, self.port, cast("float", self.timeout))
        except OSError as error:
            if self.proxy:
                raise httpx.ProxyError(f"the proxy {self.proxy} cannot be used: {error}") from error
            kind = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
            raise kind(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override] # as urllib3's own
        self._used_at = time.monotonic()
        return super().getresponse()

    @property
    def is_connected(self) -> bool:
        """Whether the connection was used just now, and the peer has neither closed it nor sent anything."""
        sent = getattr(self.sock, "pending", int)()  # decrypted bytes, which urllib3 overlooks
        return time.monotonic() - self._used_at < _KEPT_S and not sent and super().is_connected


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


@contextlib.contextmanager
def _translate_errors(url: httpx.URL, proxy: Proxy | None) -> Iterator[None]:
    """Raise urllib3's errors as httpx's, and permanent ones as `SourceError`s."""
    try:
        yield
    except LinkRefused:  # a ValueError
        raise
    except failed.ProxyError as error:
        raise _by_proxy(error.original_error, url, cast("Proxy", proxy)) from error
    except failed.SSLError as error:
        raise _refused_certificate(error, url.raw_host.decode("ascii")) or httpx.ConnectError(str(error)) from error
    except (failed.TimeoutError, TimeoutError) as error:
        raise httpx.ReadTimeout(str(error)) from error
    except (failed.HTTPError, http.client.HTTPException, OSError) as error:
        broken = next((cause for cause in (error, *error.args) if isinstance(cause, OSError)), None)
        raise httpx.ReadError(str(broken)) if broken else httpx.RemoteProtocolError(str(error)) from error
    except ValueError as error:
        raise httpx.LocalProtocolError("The request cannot be written.") from error


def _by_proxy(error: Exception, url: httpx.URL, proxy: Proxy) -> Exception:
    if status := re.search(r"Tunnel connection failed: (\d+)", str(error)):
        return proxy.refusal(int(status[1]), url)
    return _refused_certificate(error, proxy.url) or httpx.ProxyError(f"the proxy {proxy.url} cannot be used: {error}")


def _refused_certificate(error: Exception, whose: str) -> ConnectionNotAllowed | None:
    found = next((cause for cause in (error, *error.args) if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if found is None:
        return None
    return ConnectionNotAllowed(
        f"The certificate of {whose} is not accepted ({found.verify_message.rstrip('.')}); if a private authority"
        " signed it, name the authority's certificate in SSL_CERT_FILE; otherwise check this machine's clock and ask"
        " the operator of that server."
    )
