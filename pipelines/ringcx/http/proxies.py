"""The proxy for a request to the source: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY of the environment.

A proxy resolves names itself, so the allow-list alone decides where a link may lead.
"""

import base64
import urllib.request
from dataclasses import dataclass, field

import httpx

from pipelines.ringcx.errors import ConnectionNotAllowed


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: the variable that names it, its address without credentials, and the value of `Proxy-Authorization`."""

    variable: str
    url: str
    authorization: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.variable})"

    def refusal(self, status: int, url: httpx.URL) -> ConnectionNotAllowed | httpx.ProxyError:
        """Return the error for the proxy's own answer: a 4xx needs a changed setting, any other status may pass."""
        host = url.raw_host.decode("ascii")
        if not 400 <= status < 500:
            return httpx.ProxyError(f"the proxy {self.url} answered HTTP {status} when asked for {host}")
        return ConnectionNotAllowed(
            f"The proxy {self.url} refused {host} with HTTP {status}; check the user and password in {self.variable},"
            f" ask the operator of the proxy to allow {host}, or name it in NO_PROXY."
        )


def proxy_for(url: httpx.URL) -> Proxy | None:
    """Return the environment's proxy for an address, None without one; raise ConnectionNotAllowed for a bad one."""
    proxies = urllib.request.getproxies()
    name = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    host = url.raw_host.decode("ascii").removesuffix(".")
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    if name is None or urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    variable, text = f"{name.upper()}_PROXY", proxies[name]
    try:
        proxy = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, ValueError):
        proxy = httpx.URL("")
    if proxy.scheme not in {"http", "https"} or not proxy.raw_host:
        raise ConnectionNotAllowed(
            f"{variable} does not name a usable proxy; write it as http://host:port or https://host:port."
        )
    credentials = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode("ascii")
    authorization = f"Basic {credentials}" if proxy.userinfo else None
    return Proxy(variable, f"{proxy.scheme}://{proxy.netloc.decode('ascii')}", authorization)
