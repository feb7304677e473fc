"""The network addresses to which the source's host names may lead.

`links.py` compares a link's host with the allow-list by name; this module checks what the name resolves to, at the
moment of connecting. `transport.py` connects to the same addresses, so that no second answer can slip in between.
"""

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

from pipelines.ringcx.errors import LinkRefused

FALLBACK_S: Final = 3.0

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_INSIDE: Final = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # metadata at Oracle; older Pythons call most of it global
    ipaddress.IPv4Network("168.63.129.16/32"),  # the host of every Azure machine, at a public address
)


@lru_cache(maxsize=256)
def as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host's numeric address, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine, whatever DNS returns."""
    address = as_address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_public(address: str) -> bool:
    """Return whether a numeric address, and any IPv4 address embedded in it, is public."""
    number = ipaddress.ip_address(address)
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
    """Return the addresses from the system's resolver, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def fit_addresses(host: str, port: int, *, public_only: bool) -> Sequence[str]:
    """Return the numeric addresses at which a host may be reached, in the order in which to try them.

    With `public_only`, a name may lead only to public addresses, and `localhost` only to loopback ones. Raises
    LinkRefused (`address_not_public`) if it leads to private addresses only, and OSError if it has no address.
    """
    if as_address(host) is not None:
        return [host]
    try:
        found = system_resolve(host, port)
    except UnicodeError as error:
        raise OSError("the name is not one that can be looked up") from error
    if not public_only:
        return found
    allowed = is_loopback if host == "localhost" else is_public
    fit = [address for address in found if allowed(address.partition("%")[0])]
    if found and not fit:
        raise LinkRefused(
            "address_not_public",
            f"{host} leads to an address in a private network, so it was not contacted; if the host is meant "
            "to be internal, give it a public name, or have the links contain its address and list that address in "
            "RINGCX_MEDIA_HOSTS.",
        )
    return fit


def connect(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    """Return a connection to the first of these addresses that answers.

    Each address but the last gets `FALLBACK_S` seconds, so that an IPv6 address that does not answer costs no more; the
    last gets `timeout_s`, and its failure is raised.
    """
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((address, port), min(timeout_s, FALLBACK_S))
    if not addresses:
        raise OSError("the name has no address")
    return socket.create_connection((addresses[-1], port), timeout_s)
