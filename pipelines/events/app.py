"""The receiver as an ASGI application: it answers 200 once an event is durable, and never before.

No answer and no log line holds a field of an event or a header. `server.py` limits connections.
"""

import asyncio
import hmac
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pipelines.calendar import local_day
from pipelines.events.event import NotAnEvent, call_start, read_event
from pipelines.events.files import Events, EventsUnavailable, Line, day_folder, frame, malformed_folder
from pipelines.serving import RateLimit
from pipelines.settings import ReceiverSettings

PATHS = ("/", "/events", "/events/")
# The beginning of a request that is not an event is kept for a person to inspect, up to this many bytes a day.
KEPT_OF_MALFORMED = 4096
MALFORMED_BYTES_A_DAY = 16 << 20
PROVE_EVERY = 30.0
GATHER_SECONDS = 0.02
FULL_BATCH = 256
# Beyond this the storage is slower than the senders: they are asked to try later, and memory stays bounded.
MOST_WAITING_BYTES = 32 << 20
_RETRY_SECONDS = 5
# A start that far ahead, or before the first date, is a defect of the event: it is filed under the day of its arrival.
_CLOCK_SKEW = timedelta(days=1)
_T = TypeVar("_T")


def is_admitted(headers: Iterable[tuple[bytes, bytes]], name: str, accepted: Sequence[bytes]) -> bool:
    """Return whether a request has the header `name` exactly once, with an accepted value.

    `accepted` are the SHA-256 digests of the values; if there are none, every request is admitted. All digests are
    compared each time, even without the header, so the time taken reveals nothing about them.
    """
    if not accepted:
        return True
    given = [value for header, value in headers if header == name.lower().encode("ascii")]
    digest = sha256(given[0] if given else b"").digest()
    same = [hmac.compare_digest(digest, value) for value in accepted]
    return (len(given) == 1) & any(same)


class Receiver(Collector):
    """The receiver's endpoints, which answer a request once its events are durable.

    `counts`: requests since the start, by outcome. `trouble`: why no event can be stored now, or empty.
    """

    def __init__(self, events: Events, settings: ReceiverSettings) -> None:
        self.counts: Counter[str] = Counter()
        self.trouble = ""
        self._last_event_at: datetime | None = None
        self._proven_at = -math.inf
        self._events = events
        self._commit = GroupCommit(events)
        self._settings = settings
        self._accepted = [sha256(value.encode()).digest() for value in settings.header_values]
        # Twice the rate at once after a quiet second. Refused senders do not use up the rate of others.
        self._rate = RateLimit(60 * settings.events_rate, 2 * settings.events_rate)
        self._malformed: tuple[date, int] = (date.min, 0)

    def app(self) -> Starlette:
        """Return the application; its lifespan tests the storage, and at the end waits until all events are stored."""
        routes = [Route(path, self._event, methods=["GET", "POST", "PUT"]) for path in PATHS]
        routes += [Route("/health", self._health), Route("/metrics", self._metrics)]
        refusals = {404: self._elsewhere, 405: self._elsewhere}
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=refusals)
        app.router.redirect_slashes = False  # it would send the event on, in plain HTTP, to any name that `Host` gives
        return app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self._probe()
        yield
        await self._commit.close()

    async def too_many_connections(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse every request of a connection above the limit; this method is an ASGI application."""
        self.counts["crowded_out"] += 1
        headers = {"Connection": "close", "Retry-After": str(_RETRY_SECONDS)}
        await _sentence(503, "Too many connections; send the event again.", headers)(scope, receive, send)

    async def _elsewhere(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for these alone
        self.counts["elsewhere"] += 1
        return _sentence(error.status_code, "Send events to /events, by POST or GET.", error.headers)

    async def _event(self, request: Request) -> Response:
        response = await self._response(request)
        self.counts[_NAMES[response.status_code]] += 1
        return response

    async def _response(self, request: Request) -> Response:
        limit, query = self._settings.events_max_bytes, request.scope["query_string"]
        if request.method == "HEAD":  # which Starlette takes for a GET
            return _sentence(405, "Send events by POST or GET.", {"Allow": "GET, POST, PUT"})
        if not is_admitted(request.scope["headers"], self._settings.events_header_name, self._accepted):
            if wait := self._rate.take("refused"):
                return _sentence(429, "Too many requests without the right header.", {"Retry-After": str(wait)})
            return _sentence(401, "The header that this receiver expects is missing or wrong.", _CHALLENGE)
        if wait := self._rate.take("admitted"):
            return _sentence(429, "Too many events a second; send this one again later.", {"Retry-After": str(wait)})
        try:
            async with asyncio.timeout(self._settings.events_timeout_seconds):
                body = await _body(request, limit) if len(query) <= limit else None
        except TimeoutError:
            return _sentence(408, "The body did not arrive in time.", {"Connection": "close"})
        except ClientDisconnect:
            return _sentence(400, "The body broke off.")
        if body is None:
            return _sentence(413, f"The event is larger than {limit} bytes.")
        try:
            return await self._stored(query, body, request.headers.get("content-type", ""))
        except EventsUnavailable as error:
            self.trouble = str(error)
        return _sentence(503, "The event could not be stored; send it again.", {"Retry-After": str(_RETRY_SECONDS)})

    async def _stored(self, query: bytes, body: bytes, content_type: str) -> Response:
        now = datetime.now(UTC)
        try:
            fields = read_event(query, body)
        except NotAnEvent as error:
            await self._set_aside(now, str(error), query, body, content_type)
            return _sentence(400, str(error))
        await self._store(day_folder(self._day(fields, now)), {"received_at": now.isoformat(), "fields": fields})
        self._last_event_at = now
        return Response()  # no body, which would be a second packet for each event

    async def _set_aside(self, now: datetime, why: str, query: bytes, body: bytes, content_type: str) -> None:
        day, kept_bytes = self._malformed
        kept_bytes = kept_bytes if day == now.date() else 0
        if kept_bytes > MALFORMED_BYTES_A_DAY:
            self.counts["malformed_not_kept"] += 1
            return
        record = {
            "received_at": now.isoformat(),
            "why": why,
            "bytes": len(query) + len(body),
            "content_type": content_type[:200],
            "query": query[:KEPT_OF_MALFORMED].decode("latin-1"),
            "body": body[:KEPT_OF_MALFORMED].decode("latin-1"),
        }
        self._malformed = now.date(), kept_bytes + len(frame(record))
        await self._store(malformed_folder(now.date()), record)

    async def _store(self, folder: str, record: Mapping[str, Any]) -> None:
        await self._commit.store((folder, frame(record)))
        self._proven_at, self.trouble = time.monotonic(), ""

    def _day(self, fields: Mapping[str, str], now: datetime) -> date:
        started_at, _ = call_start(fields, self._settings.events_zone)
        today = local_day(now, self._settings.zone)
        day = local_day(started_at, self._settings.zone) if started_at else today
        return day if self._settings.archive_start_date <= day <= today + _CLOCK_SKEW else today

    async def _probe(self) -> None:
        """Write a test file, to prove that events could be stored now."""
        await self._commit.in_turn(self._events.probe)
        self._proven_at, self.trouble = time.monotonic(), ""

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the values of `/health` as metrics for Prometheus."""
        name = "ringcx_archive_receiver"
        requests = CounterMetricFamily(f"{name}_requests", "Requests by result.", labels=["result"])
        for result, count in sorted(self.counts.items()):
            requests.add_metric([result], count)
        yield requests
        yield GaugeMetricFamily(f"{name}_storage_writable", "Whether events can be stored.", value=not self.trouble)
        waiting = self._commit.waiting_bytes
        yield GaugeMetricFamily(f"{name}_waiting_bytes", "Bytes of events that are not durable yet.", value=waiting)
        if self._last_event_at:
            at = self._last_event_at.timestamp()
            yield GaugeMetricFamily(f"{name}_last_event_timestamp_seconds", "When the last event came.", value=at)

    async def _metrics(self, _: Request) -> Response:
        await self._refresh_health()
        return Response(generate_latest(self), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _refresh_health(self) -> None:
        """Find out whether events can be stored, unless that was found out a moment ago."""
        if self.trouble or time.monotonic() - self._proven_at > PROVE_EVERY:
            try:
                await self._probe()
            except EventsUnavailable as error:
                self.trouble = str(error)

    async def _health(self, _: Request) -> Response:
        await self._refresh_health()
        health = {
            "storage": "unavailable" if self.trouble else "writable",
            "events": dict(sorted(self.counts.items())),
            "last_event_at": self._last_event_at.isoformat(timespec="seconds") if self._last_event_at else None,
            "waiting_bytes": self._commit.waiting_bytes,
        }
        return JSONResponse(health, 503 if self.trouble else 200)


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


async def _body(request: Request, limit: int) -> bytes | None:
    """Return the whole body; None if its declared or actual length exceeds `limit` bytes."""
    if int(request.headers.get("content-length", "0")) > limit:  # the server refuses anything but a number
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            return None
    return body


def _sentence(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{sentence}\n", status, headers=headers)


class GroupCommit:
    """A writer that makes lines durable in batches, in its own thread. Belongs to one event loop.

    Lines that arrive while a batch is being written form the next one, and share the cost of one sync or one put.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._turn = asyncio.Lock()
        self._lines: list[Line] = []
        self._batch: asyncio.Task[None] | None = None  # that will write these lines
        self.waiting_bytes = 0

    async def store(self, line: Line) -> None:
        """Return once a line is durable; raise EventsUnavailable if it may not be, or is not accepted."""
        if self.waiting_bytes > MOST_WAITING_BYTES:
            raise EventsUnavailable(
                "Events arrive faster than they can be stored; check the speed of the storage that EVENTS_URL names."
            )
        self._lines.append(line)
        self.waiting_bytes += len(line[1])
        if self._batch is None:
            self._batch = asyncio.create_task(self._write())
            # Retrieve the error even if every request of the batch was cancelled.
            self._batch.add_done_callback(lambda batch: batch.cancelled() or batch.exception())
        await asyncio.shield(self._batch)

    async def in_turn(self, act: Callable[[], _T]) -> _T:
        """Call a method of the events' storage between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    async def close(self) -> None:
        """Wait until every accepted line is durable."""
        if self._batch is not None:
            await asyncio.wait([self._batch])
        async with self._turn:
            self._thread.shutdown()

    async def _write(self) -> None:
        """Write the lines that gather until the batch before is durable."""
        async with self._turn:
            if len(self._lines) < FULL_BATCH:
                await asyncio.sleep(GATHER_SECONDS)
            lines, self._lines, self._batch = self._lines, [], None
            try:
                await self.in_turn(partial(self._events.write, lines))
            finally:
                self.waiting_bytes -= sum(len(text) for _, text in lines)
