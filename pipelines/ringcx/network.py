"""How connections to the source are made: to which addresses, and for how long one exchange may last.

A link's host is held against the allow-list by name (`media.py`); where that name leads is a name server's word, which
is checked here, at the moment of connecting and on the very address that is then connected to, so that no second
answer can slip in between. TLS goes on checking the certificate against the name. httpx's timeouts are for each read
alone: a source that sends a byte a minute would hold a thread for ever, so an exchange has a limit as a whole.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import httpcore
import httpx

from pipelines.ringcx.errors import LinkRefused

__all__ = ["Resolve", "is_address", "is_loopback", "is_public", "make_transport", "system_resolve"]

HEADERS_S: Final = 120.0
EXCHANGE_S: Final = 7200.0  # above the limits of reports and media: theirs end with a sentence of their own

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""Host and port to the numeric addresses to try, in order; raises OSError where there are none."""

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_INSIDE: Final = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # metadata at Oracle; older Pythons call most of it global
    ipaddress.IPv4Network("168.63.129.16/32"),  # every Azure machine's own host, under a public number
)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, whatever a name server says."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether a host is written as an address, not as a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether a numeric address lies in the public internet, and so does the IPv4 address that it may embed."""
    number: _Address = ipaddress.ip_address(address)
    if isinstance(number, ipaddress.IPv6Address):
        embedded = number.ipv4_mapped or number.sixtofour
        if number in _NAT64:
            embedded = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
        if embedded is None:
            return number.is_global and number in _GLOBAL_UNICAST
        number = embedded
    plain = number.is_global and not number.is_multicast and not number.is_reserved
    return plain and not any(number in network for network in _INSIDE)


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def make_transport(
    *,
    max_connections: int,
    public_only: bool,
    resolve: Resolve = system_resolve,
    headers_s: float = HEADERS_S,
    exchange_s: float = EXCHANGE_S,
    clock: Callable[[], float] = time.monotonic,
) -> httpx.HTTPTransport:
    """A transport with a pool of its own.

    Args:
        max_connections: at most so many at once.
        public_only: a name is connected to at public addresses only, `localhost` at loopback ones only; one that has
            none raises LinkRefused (`address_not_public`). A host that is written as an address is taken as it is.
        resolve: asks for the addresses of a name.
        headers_s: seconds from the request to the end of the answer's headers.
        exchange_s: seconds from the request to the end of the answer.
        clock: seconds, for both.
    """
    backend = _Backend(public_only, resolve, lambda stream: _TimedStream(stream, headers_s, exchange_s, clock))
    return _Transport(backend, max_connections)


class _Transport(httpx.HTTPTransport):
    """httpx's own, but for the pool, whose backend httpx does not let one choose."""

    def __init__(self, backend: httpcore.NetworkBackend, max_connections: int) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=5.0,
            network_backend=backend,
        )


class _Backend(httpcore.SyncBackend):
    """Connects to addresses that were looked at first."""

    def __init__(
        self,
        public_only: bool,
        resolve: Resolve,
        timed: Callable[[httpcore.NetworkStream], httpcore.NetworkStream],
    ) -> None:
        self._public_only = public_only
        self._resolve = resolve
        self._timed = timed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in self._addresses(host, port):
            try:
                return self._timed(super().connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _addresses(self, written: str, port: int) -> Sequence[str]:
        host = written.removesuffix(".")  # the root's dot
        if is_address(host):
            return [host]
        try:
            found = self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        except UnicodeError as error:  # a label that no name can have
            raise httpcore.ConnectError("the name is none that can be looked up") from error
        if not self._public_only:
            return found
        allowed = is_loopback if host == "localhost" else is_public
        fit = [address for address in found if allowed(address.partition("%")[0])]
        if found and not fit:
            raise LinkRefused(
                "address_not_public",
                f"{host} leads to an address inside a private network, which is not connected to; if that is meant, the"
                " recordings need a public name or links with the address itself, listed in RINGCX_MEDIA_HOSTS.",
            )
        return fit


class _TimedStream(httpcore.NetworkStream):
    """A connection on which every exchange, which begins when something is sent, has a limit."""

    def __init__(
        self, stream: httpcore.NetworkStream, headers_s: float, exchange_s: float, clock: Callable[[], float]
    ) -> None:
        self._stream = stream
        self._headers_s = headers_s
        self._exchange_s = exchange_s
        self._clock = clock
        self._began = clock()
        self._tail: bytes | None = b""  # what was read last, until a blank line has ended the headers

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        allowed = self._exchange_s if self._tail is None else self._headers_s
        left = self._began + allowed - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout(f"the answer was not whole after {allowed:.0f} s")
        block = self._stream.read(max_bytes, left if timeout is None else min(timeout, left))
        if self._tail is not None:
            seen = self._tail + block
            self._tail = None if b"\n\r\n" in seen or b"\n\n" in seen else seen[-3:]
        return block

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._began, self._tail = self._clock(), b""
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _TimedStream(secured, self._headers_s, self._exchange_s, self._clock)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        return self._stream.get_extra_info(info)
