"""How connections to the source are made, and to which addresses.

A link's host is held against the allow-list by name (`links.py`); where that name leads is a name server's word, which
is checked here, at the moment of connecting and on the very address that is then connected to, so that no second
answer can slip in between. TLS goes on checking the certificate against the name. What is said over a connection is
`wire.py`'s business.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import httpx

from pipelines.ringcx.errors import LinkRefused

__all__ = ["Resolve", "connect", "is_address", "is_loopback", "is_public", "system_resolve"]

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""Host and port to the numeric addresses to try, in order; raises OSError where there are none."""

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_INSIDE: Final = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # metadata at Oracle; older Pythons call most of it global
    ipaddress.IPv4Network("168.63.129.16/32"),  # every Azure machine's own host, under a public number
)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, whatever a name server says."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
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


def connect(
    url: httpx.URL, *, public_only: bool, resolve: Resolve, tls: ssl.SSLContext, timeout_s: float
) -> socket.socket:
    """A connection to the host of an `https` or `http` address, with its certificate checked.

    Args:
        url: where to; its path does not matter.
        public_only: a name is connected to at public addresses only, `localhost` at loopback ones only. A host that is
            written as an address is taken as it is.
        resolve: asks for the addresses of a name.
        tls: how certificates are checked.
        timeout_s: seconds for each address, and for the handshake.

    Raises:
        LinkRefused: `address_not_public`.
        httpx.ConnectError, httpx.ConnectTimeout: there is no address, none answers, or the certificate is not good.
    """
    host = url.raw_host.decode("ascii").removesuffix(".")  # the root's dot
    port = url.port or (443 if url.scheme == "https" else 80)
    failure: httpx.TransportError = httpx.ConnectError("the name has no address")
    for address in _addresses(host, port, public_only, resolve):
        try:
            plain = socket.create_connection((address, port), timeout_s)
        except (OSError, OverflowError) as error:
            failure = _failed(error)
            continue
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return tls.wrap_socket(plain, server_hostname=host) if url.scheme == "https" else plain
        except BaseException as error:
            plain.close()
            if isinstance(error, (OSError, ValueError)):  # ValueError: a name that no certificate can have
                raise _failed(error) from error
            raise
    raise failure


def _failed(error: Exception) -> httpx.TransportError:
    return (httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError)(str(error))


def _addresses(host: str, port: int, public_only: bool, resolve: Resolve) -> Sequence[str]:
    if is_address(host):
        return [host]
    try:
        found = resolve(host, port)
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error
    except UnicodeError as error:  # a label that no name can have
        raise httpx.ConnectError("the name is none that can be looked up") from error
    if not public_only:
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
