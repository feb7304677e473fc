"""The receiver as an ASGI application: an event is answered 200 when it is durable, and never before.

No answer and no log line holds a field of an event, nor a header. Who may connect and for how long is `server.py`.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pipelines.calendar import local_day
from pipelines.events.commit import GroupCommit, Overloaded
from pipelines.events.event import NotAnEvent, call_start, read_event
from pipelines.events.files import Events, EventsUnavailable, day_folder, frame, malformed_folder

PATHS = ("/", "/events", "/events/")
# What is no event is kept to be looked at: its beginning, and no more a day than this by one receiver.
KEPT_OF_MALFORMED = 4096
MALFORMED_BYTES_A_DAY = 16 << 20
PROVE_EVERY = 30.0
_RETRY_SECONDS = 5
# A start that far ahead, or before the first date, is a defect of the event: it is filed under the day it came on.
_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the receiver accepts, and in which zones it reads and files."""

    zone: ZoneInfo
    events_zone: ZoneInfo
    first_date: date
    max_bytes: int
    rate: int
    timeout_seconds: float


@dataclass(slots=True)
class Tally:
    """What has happened since the start. No field of any event."""

    counts: Counter[str] = field(default_factory=Counter)
    last_event_at: datetime | None = None
    proven_at: float | None = None
    trouble: str = ""


class HeaderCheck:
    """Compares a request's header with the values that are accepted, in a time that tells nothing about them.

    Args:
        name: the header's name.
        accepted: the values; none lets everybody in.
    """

    def __init__(self, name: str, accepted: Sequence[str]) -> None:
        self._name = name.lower().encode("ascii")
        self._accepted = tuple(sha256(value.encode()).digest() for value in accepted)

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the header is there, once, with an accepted value. `headers`: as ASGI has them, names in lower case.

        Digests of one length are compared, all of them each time, also when the header is missing.
        """
        if not self._accepted:
            return True
        given = [value for name, value in headers if name == self._name]
        digest = sha256(given[0] if given else b"").digest()
        same = [hmac.compare_digest(digest, accepted) for accepted in self._accepted]
        return (len(given) == 1) & any(same)


class TokenBucket:
    """So many a second, and twice as many at once after a quiet time. For one thread."""

    def __init__(self, per_second: int, clock: Callable[[], float]) -> None:
        self._rate = per_second
        self._most = 2.0 * per_second
        self._clock = clock
        self._tokens = self._most
        self._at = clock()

    def take(self) -> int:
        """Take a token: 0, or the whole seconds after which there is one."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self._rate))


class Receiver:
    """One receiver: takes requests, answers when their events are durable."""

    def __init__(
        self,
        events: Events,
        check: HeaderCheck,
        rules: Rules,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self._events = events
        self._check = check
        self._rules = rules
        self._clock = clock
        self._ticks = ticks
        self._tokens = TokenBucket(rules.rate, ticks)
        self._refusals = TokenBucket(rules.rate, ticks)
        self._malformed: tuple[date, int] = (date.min, 0)
        self._commit: GroupCommit | None = None

    def app(self) -> Starlette:
        """The application; its lifespan opens and closes what writes."""
        routes = [Route(path, self._event, methods=["GET", "POST", "PUT"]) for path in PATHS]
        app = Starlette(
            routes=[*routes, Route("/health", self._health, methods=["GET"])],
            lifespan=self._lifespan,
            exception_handlers={404: self._elsewhere, 405: self._elsewhere},
        )
        app.router.redirect_slashes = False  # it would send the event on, in plain HTTP, to any name that `Host` gives
        return app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._commit = GroupCommit(self._events)
        await self._prove()
        yield
        await self._commit.close()

    async def _event(self, request: Request) -> Response:
        answer = await self._answer(request)
        self.tally.counts[_NAMES[answer.status_code]] += 1
        return answer

    async def _elsewhere(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for these alone
        self.tally.counts["elsewhere"] += 1
        return _said(error.status_code, "Send events to /events, by POST or GET.", error.headers)

    async def crowded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer every request of a connection that is one too many; an ASGI application."""
        self.tally.counts["crowded_out"] += 1
        headers = {"Connection": "close", "Retry-After": str(_RETRY_SECONDS)}
        await _said(503, "Too many connections; send the event again.", headers)(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "HEAD":  # which Starlette takes for a GET
            return _said(405, "Send events by POST or GET.", {"Allow": "GET, POST, PUT"})
        if not self._check.admits(request.scope["headers"]):
            if wait := self._refusals.take():
                return _said(429, "Too many requests without the right header.", {"Retry-After": str(wait)})
            return _said(401, "The header that this receiver expects is missing or wrong.", _CHALLENGE)
        if wait := self._tokens.take():
            return _said(429, "Too many events a second; send this one again later.", {"Retry-After": str(wait)})
        query: bytes = request.scope["query_string"]
        try:
            async with asyncio.timeout(self._rules.timeout_seconds):
                body = await self._body(request) if len(query) <= self._rules.max_bytes else None
        except TimeoutError:
            return _said(408, "The body did not come in time.", {"Connection": "close"})
        except ClientDisconnect:
            return _said(400, "The body broke off.")
        if body is None:
            return _said(413, f"The event is larger than {self._rules.max_bytes} bytes.")
        try:
            return await self._stored(query, body, request.headers.get("content-type", ""))
        except EventsUnavailable as error:
            self.tally.trouble = str(error)
        except Overloaded:
            self.tally.trouble = "More events come than can be stored; look at the speed of EVENTS_URL."
        return _said(503, "The event could not be stored; send it again.", {"Retry-After": str(_RETRY_SECONDS)})

    async def _body(self, request: Request) -> bytes | None:
        """The whole body; None when it is too large, by its length or by what came."""
        limit = self._rules.max_bytes
        if int(request.headers.get("content-length", "0")) > limit:  # the server refuses what is no number
            return None
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _stored(self, query: bytes, body: bytes, content_type: str) -> Response:
        now = self._clock()
        try:
            fields = read_event(query, body)
        except NotAnEvent as verdict:
            await self._set_aside(now, str(verdict), query, body, content_type)
            return _said(400, str(verdict))
        line = frame({"received_at": now.isoformat(), "fields": fields})
        await self._committed((day_folder(self._day(fields, now)), line))
        self.tally.last_event_at = now
        return Response()  # no body, which would be a second packet for each event

    async def _set_aside(self, now: datetime, why: str, query: bytes, body: bytes, content_type: str) -> None:
        day, kept = self._malformed
        kept = kept if day == now.date() else 0
        if kept > MALFORMED_BYTES_A_DAY:
            self.tally.counts["malformed_not_kept"] += 1
            return
        record = {
            "received_at": now.isoformat(),
            "why": why,
            "bytes": len(query) + len(body),
            "content_type": content_type[:200],
            "query": query[:KEPT_OF_MALFORMED].decode("latin-1"),
            "body": body[:KEPT_OF_MALFORMED].decode("latin-1"),
        }
        line = frame(record)
        self._malformed = now.date(), kept + len(line)
        await self._committed((malformed_folder(now.date()), line))

    async def _committed(self, line: tuple[str, bytes]) -> None:
        assert self._commit is not None  # noqa: S101 - the lifespan opened it before any request
        await self._commit.store(line)
        self.tally.proven_at, self.tally.trouble = self._ticks(), ""

    def _day(self, fields: Mapping[str, str], now: datetime) -> date:
        started_at, _ = call_start(fields, self._rules.events_zone)
        today = local_day(now, self._rules.zone)
        if started_at is None:
            return today
        day = local_day(started_at, self._rules.zone)
        return day if self._rules.first_date <= day <= today + _CLOCK_SKEW else today

    async def _prove(self) -> None:
        """Show that events could be stored now."""
        assert self._commit is not None  # noqa: S101 - as in _committed
        await self._commit.in_turn(self._events.probe)
        self.tally.proven_at, self.tally.trouble = self._ticks(), ""

    async def _health(self, _: Request) -> Response:
        tally = self.tally
        if tally.trouble or tally.proven_at is None or self._ticks() - tally.proven_at > PROVE_EVERY:
            try:
                await self._prove()
            except EventsUnavailable as error:
                tally.trouble = str(error)
        told = {
            "storage": "unavailable" if tally.trouble else "writable",
            "events": {name: tally.counts[name] for name in sorted(tally.counts)},
            "last_event_at": tally.last_event_at.isoformat(timespec="seconds") if tally.last_event_at else None,
            "waiting_bytes": self._commit.waiting_bytes if self._commit else 0,
        }
        return JSONResponse(told, 503 if tally.trouble else 200)


_NAMES = {
    200: "stored",
    400: "malformed",
    401: "refused",
    405: "refused",
    408: "too_slow",
    413: "too_large",
    429: "throttled",
    503: "not_stored",
}
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="events"'}


def _said(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{sentence}\n", status, headers=headers)
