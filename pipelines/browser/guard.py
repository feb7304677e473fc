"""What every request must pass, readers of its untrusted parts, limits per person, and headers of every response."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakValueDictionary

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
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
_PORTS: Final = {"http": 80, "https": 443}
_LARGEST_FORM: Final = 1 << 16
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_READINGS: Final = 2
_READINGS_ASKED: Final = 4  # by a person: a call's page may show several waveforms


class Guard:
    """An ASGI middleware that refuses a foreign `Host`, and requests sent by another site's page than `origin`.

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
        if method in {"GET", "HEAD"}:
            navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            return (
                ""
                if site not in {"cross-site", "same-site"} or navigates
                else "This request came from another site's page."
            )
        is_foreign = origin is not None and (urlsplit(origin).scheme, _authority(origin)) != (self._scheme, self._here)
        if is_foreign or site not in {None, "same-origin"} or not (site or origin):
            return "This request did not come from the page: use the page's own buttons."
        return ""


class ConcurrencyLimit:
    """A limit of `most` simultaneous tasks for each name; more are refused. Safe to share between threads."""

    def __init__(self, most: int, sentence: str) -> None:
        self._most = most
        self._sentence = sentence
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Count one task of `name` until the block ends; raise HTTPException (429) if it would exceed `most`."""
        with self._lock:
            if self._now[name] >= self._most:
                raise HTTPException(429, self._sentence)
            self._now[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._now[name] -= 1
                if not self._now[name]:
                    del self._now[name]

    def stream(self, name: str, blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
        """Yield blocks as one task of `name`; raise the errors of `task`."""
        with self.task(name):
            yield from blocks


@dataclass(frozen=True, slots=True)
class WholeRead:
    """A response for one person that needs a whole recording."""

    person: str
    read: Callable[[], Response]


class WholeReadQueue:
    """A queue that makes these answers: a few at once, and one per person. Belongs to one event loop.

    A waiting request holds no thread: threads are for pages, audio and health.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_READINGS, thread_name_prefix="reading")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked = ConcurrencyLimit(
            _READINGS_ASKED, "Other waveforms or checks of yours are still running: try again in a minute."
        )

    async def answer(self, reading: WholeRead) -> Response:
        """Wait for the reading's turn and return its response; raise HTTPException (429) if the person has too many."""
        with self._asked.task(reading.person):
            async with self._turns.setdefault(reading.person, asyncio.Lock()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, reading.read)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, the last value of each; raise HTTPException 413 (too large) or 400 (no form)."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        return dict(parse_qsl(body.decode("utf-8"), max_num_fields=50, strict_parsing=bool(body)))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the start and the exclusive end of the bytes in a `Range` header, or None for the whole body; a header
    that is malformed or asks for several ranges is ignored (RFC 9110). Raise HTTPException 416 for bytes after the end.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # that many bytes at the end
        start, end = max(0, size - int(last)), size
    elif not last:
        start, end = int(first), size
    elif int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1)
    if start >= size:
        raise HTTPException(416, "The recording has no such bytes.", {"Content-Range": f"bytes */{size}"})
    return start, end


def _authority(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None
