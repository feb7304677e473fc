"""The way to the store: directly, or through the proxy that the environment names for it, as botocore goes."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

__all__ = ["Route"]

_CONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Route:
    """How requests to an address are sent.

    Attributes:
        to: the address.
        tls: how its certificate is checked; None for plain HTTP.
        proxy: the proxy's address, perhaps with credentials; None without one. It is spoken to in plain HTTP.
        login: headers for the proxy, with its credentials.
    """

    to: SplitResult
    tls: ssl.SSLContext | None
    proxy: SplitResult | None = field(repr=False)
    login: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, address: str, authority: str | None) -> Self:
        """The way to an address, whose certificate is to be issued by one of the file `authority`."""
        to = urlsplit(address)
        tls = ssl.create_default_context(cafile=authority) if to.scheme == "https" else None
        configured = ProxyConfiguration(get_environ_proxies(address))
        url = configured.proxy_url_for(address)
        return cls(to, tls, urlsplit(url) if url else None, configured.proxy_headers_for(url) if url else {})

    def connection(self) -> HTTPConnection:
        """A new connection, not opened yet."""
        near = self.proxy or self.to
        host = near.hostname or ""
        if self.tls is None:
            return HTTPConnection(host, near.port, timeout=_CONNECT_S)
        # A proxy is told where to before TLS begins, and hears no more.
        made = HTTPSConnection(host, near.port or (80 if self.proxy else None), timeout=_CONNECT_S, context=self.tls)
        if self.proxy:
            made.set_tunnel(self.to.hostname or "", self.to.port or 443, dict(self.login))
        return made

    def request(self, target: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
        """Target and headers as the next one on the way is to be sent them."""
        if self.proxy is None or self.tls is not None:
            return target, headers
        return f"{self.to.scheme}://{self.to.netloc}{target}", {**headers, **self.login}
