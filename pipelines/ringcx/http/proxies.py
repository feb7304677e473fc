"""Which proxy a request to the source goes through: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY of the environment.

Through a proxy it is the proxy that resolves names: there the allow-list alone decides where a link may lead.
"""

import base64
import urllib.request
from dataclasses import dataclass, field
from typing import Self

import httpx

from pipelines.ringcx.errors import ConnectionNotAllowed


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy.

    Attributes:
        variable: the setting that names it.
        url: scheme, host and port; never credentials.
        authorization: what `Proxy-Authorization` says, or None.
    """

    variable: str
    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, variable: str, text: str) -> Self:
        """Read a variable's value; without a scheme it is `http`.

        Raises:
            ConnectionNotAllowed: it is no proxy that can be used.
        """
        try:
            parsed = httpx.URL(text if "://" in text else f"http://{text}")
        except (httpx.InvalidURL, ValueError):
            parsed = httpx.URL("")
        if parsed.scheme not in {"http", "https"} or not parsed.raw_host:
            raise ConnectionNotAllowed(
                f"{variable} does not name a usable proxy; write it as http://host:port or https://host:port."
            )
        authorization = None
        if parsed.userinfo:
            credentials = f"{parsed.username}:{parsed.password}".encode()
            authorization = f"Basic {base64.b64encode(credentials).decode('ascii')}"
        return cls(variable, f"{parsed.scheme}://{parsed.netloc.decode('ascii')}", authorization)

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.variable})"

    @property
    def headers(self) -> dict[str, str]:
        """What only the proxy is sent."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}

    def refusal(self, status: int, url: httpx.URL) -> ConnectionNotAllowed | httpx.ProxyError:
        """What an answer of the proxy itself means: a 4xx is a matter of settings, anything else may pass."""
        host = url.raw_host.decode("ascii")
        if status in {401, 407}:  # 401: tinyproxy
            remedy = f"check the user and password in {self.variable}"
        elif 400 <= status < 500:
            remedy = f"ask the operator of the proxy to allow {host}, or name it in NO_PROXY"
        else:
            return httpx.ProxyError(f"the proxy {self.url} answered HTTP {status} when asked for {host}")
        return ConnectionNotAllowed(f"The proxy {self.url} refused {host} with HTTP {status}; {remedy}.")


def proxy_for(url: httpx.URL) -> Proxy | None:
    """Return the proxy for an address, by the standard library's rules; None where the request goes directly.

    Raises:
        ConnectionNotAllowed: the environment names a proxy that cannot be used.
    """
    proxies = urllib.request.getproxies()
    name = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if name is None:
        return None
    host = url.raw_host.decode("ascii").removesuffix(".")
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    return Proxy.parse(f"{name.upper()}_PROXY", proxies[name])
