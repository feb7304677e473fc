"""The checks that every request must pass before anything reads it, and the headers that every answer carries.

This ASGI middleware refuses a foreign `Host` and requests sent by another site's page.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEALTH: Final = "/health"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_READS: Final = frozenset({"GET", "HEAD"})
_PORTS: Final = {"http": 80, "https": 443}


class Guard:
    """A filter that passes requests sent to `origin` by a person or by the page itself.

    The path of the health check is open, because probes send a container's address as `Host`.
    """

    def __init__(self, app: ASGIApp, origin: str) -> None:
        self._app = app
        self._origin = origin
        self._here = _authority(origin)
        self._scheme = urlsplit(origin).scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if self._scheme == "https":
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        app = self._app
        if scope["path"] != HEALTH and (sentence := self._refusal(scope["method"], Headers(scope=scope))):
            app = PlainTextResponse(f"{sentence}\n", 403)
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _authority(f"{self._scheme}://{hosts[0]}") != self._here:
            return f"This page is served at {self._origin} only: open that address, or correct BROWSE_URL."
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if method in _READS:
            navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            return "" if site not in {"cross-site", "same-site"} or navigates else "Another site's page sent this."
        is_foreign = origin is not None and (urlsplit(origin).scheme, _authority(origin)) != (self._scheme, self._here)
        if is_foreign or site not in {None, "same-origin"} or not (site or origin):
            return "This was not sent by the page itself: use the page's own buttons."
        return ""


class AtOnce:
    """A limit of `most` simultaneous tasks for each name; more are refused. Safe to share between threads."""

    def __init__(self, most: int, sentence: str, *, retry_after_s: int) -> None:
        self._most = most
        self._sentence = sentence
        self._headers = {"Retry-After": str(retry_after_s)}
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Count one task of `name` until the block ends; raise HTTPException (429) if it would exceed `most`."""
        with self._lock:
            if self._now[name] >= self._most:
                raise HTTPException(429, self._sentence, self._headers)
            self._now[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._now[name] -= 1
                if not self._now[name]:
                    del self._now[name]

    def each(self, name: str, blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
        """Yield blocks as one task of `name`; raise the errors of `one`."""
        with self.one(name):
            yield from blocks


def _authority(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None
