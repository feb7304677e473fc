"""The receiver as an ASGI application: it answers 200 once an event is durable, and never before.

No answer and no log line holds a field of an event or a header. uvicorn limits the connections (`cli/receiver.py`).
"""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.calendar import local_day
from pipelines.events.event import NotAnEvent, call_start, read_event
from pipelines.events.files import Events, EventsUnavailable, Line, day_folder, frame, malformed_folder
from pipelines.serving import RateLimit
from pipelines.settings import ReceiverSettings

PATHS = ("/", "/events", "/events/")
# The beginning of a request that is not an event is kept for a person to inspect, up to this many bytes a day.
KEPT_OF_MALFORMED = 4096
MALFORMED_BYTES_A_DAY = 16 << 20
GATHER_SECONDS = 0.02
# How long a probe's result holds, by whether storage works. Clients of `/health` wait for about 5 s.
_WORKS_SECONDS = 30.0
_FAILS_SECONDS = 2.0
_HANGS_SECONDS = 4.0
# A start that far ahead, or before the first date, is a defect of the event: it is filed under the day of its arrival.
_CLOCK_SKEW = timedelta(days=1)
_RESULTS = {
    400: "malformed",
    401: "refused",
    404: "elsewhere",
    405: "elsewhere",
    408: "too_slow",
    413: "too_large",
    429: "throttled",
    503: "not_stored",
}


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

    `counts`: requests since the start, by outcome. `trouble`: why no event can be stored now, or empty. `unlogged`: the
    last trouble that is not in the log yet.
    """

    def __init__(self, events: Events, settings: ReceiverSettings) -> None:
        self.counts: Counter[str] = Counter()
        self.trouble = self.unlogged = ""
        self._last_event_at: datetime | None = None
        self._events = events
        # Two, since a batch that fails is stored for nobody.
        self._commit, self._commit_aside = GroupCommit(events), GroupCommit(events)
        self._settings = settings
        self._accepted = [sha256(value.encode()).digest() for value in settings.header_values]
        # Twice the rate at once after a quiet second.
        self._rate = RateLimit(60 * settings.events_rate, 2 * settings.events_rate)
        self._bytes_aside: Counter[date] = Counter()
        self._believed_until = 0.0
        self._probing: asyncio.Task[None] | None = None

    def app(self) -> Starlette:
        """Return the application."""
        routes = [Route(path, self._event, methods=["GET", "POST", "PUT"]) for path in PATHS]
        routes += [Route("/health", self._health), Route("/metrics", self._metrics)]
        app = Starlette(routes=routes, exception_handlers={HTTPException: self._refuse})
        app.router.redirect_slashes = False  # it would send the event on, in plain HTTP, to any name that `Host` gives
        return app

    async def _refuse(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for these alone
        self.counts[_RESULTS[error.status_code]] += 1
        detail = "Send events to /events with GET, POST or PUT." if error.status_code in {404, 405} else error.detail
        return PlainTextResponse(f"{detail}\n", error.status_code, headers=error.headers)

    async def _event(self, request: Request) -> Response:
        self._admit(request)
        if request.method == "HEAD":  # which Starlette permits wherever GET is
            raise HTTPException(405, headers={"Allow": "GET, POST, PUT"})
        query, body = request.scope["query_string"], await self._body(request)
        now = datetime.now(UTC)
        try:
            fields = read_event(query, body)
        except NotAnEvent as error:
            await self._set_aside(now, str(error), query, body, request.headers.get("content-type", ""))
            raise HTTPException(400, str(error)) from error
        folder = day_folder(self._day(fields, now))
        await self._store(self._commit, folder, {"received_at": now.isoformat(), "fields": fields})
        self._last_event_at = now
        self.counts["stored"] += 1
        return Response()  # no body, which would be a second packet for each event

    def _admit(self, request: Request) -> None:
        is_known = is_admitted(request.scope["headers"], self._settings.events_header_name, self._accepted)
        # Refused senders do not use up the rate of others.
        if wait := self._rate.take("admitted" if is_known else "refused"):
            raise HTTPException(429, "Too many requests a second; try again later.", {"Retry-After": str(wait)})
        if not is_known:
            challenge = {"WWW-Authenticate": 'Basic realm="events"'}
            raise HTTPException(401, "The header that this receiver expects is missing or wrong.", challenge)

    async def _body(self, request: Request) -> bytes:
        """Return the whole body, which must come in time and, with the query, within the limit."""
        limit, body = self._settings.events_max_bytes - len(request.scope["query_string"]), b""
        try:
            async with asyncio.timeout(self._settings.events_timeout_seconds):
                async for part in request.stream():  # which ends with an empty part
                    body += part
                    if len(body) > limit:
                        raise HTTPException(413, f"The event is larger than {self._settings.events_max_bytes} bytes.")
        except TimeoutError as error:
            raise HTTPException(408, "The body did not arrive in time.", {"Connection": "close"}) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "The body broke off.") from error
        return body

    async def _set_aside(self, now: datetime, why: str, query: bytes, body: bytes, content_type: str) -> None:
        if self._bytes_aside[now.date()] > MALFORMED_BYTES_A_DAY:
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
        self._bytes_aside[now.date()] += len(frame(record))
        await self._store(self._commit_aside, malformed_folder(now.date()), record)

    async def _store(self, commit: "GroupCommit", folder: str, record: Mapping[str, Any]) -> None:
        try:
            await commit.store((folder, frame(record)))
        except (EventsUnavailable, asyncio.CancelledError) as error:  # the latter when the time to end is up
            self._believe(str(error))
            raise HTTPException(503, "The event could not be stored; send it again.", {"Retry-After": "5"}) from error
        self._believe("")

    def _day(self, fields: Mapping[str, str], now: datetime) -> date:
        started_at, _ = call_start(fields, self._settings.events_zone)
        today = local_day(now, self._settings.zone)
        day = local_day(started_at, self._settings.zone) if started_at else today
        return day if self._settings.archive_start_date <= day <= today + _CLOCK_SKEW else today

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
        await self.probe()
        return Response(generate_latest(self), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: Request) -> Response:
        await self.probe()
        health = {
            "storage": "unavailable" if self.trouble else "writable",
            "events": dict(sorted(self.counts.items())),
            "last_event_at": self._last_event_at.isoformat(timespec="seconds") if self._last_event_at else None,
            "waiting_bytes": self._commit.waiting_bytes,
        }
        return JSONResponse(health, 503 if self.trouble else 200)

    async def probe(self) -> None:
        """Find out whether events could be stored now. All who ask share a probe, and what was found lately."""
        if time.monotonic() < self._believed_until:
            return
        self._probing = self._probing or asyncio.create_task(self._probe())
        try:
            await asyncio.wait_for(asyncio.shield(self._probing), _HANGS_SECONDS)
        except TimeoutError:
            if time.monotonic() >= self._believed_until:  # no event was stored meanwhile
                self._believe(f"the storage has not answered for {_HANGS_SECONDS:.0f} s; check EVENTS_URL.")

    async def _probe(self) -> None:
        write = bool(self.trouble)
        try:
            await asyncio.to_thread(self._events.probe, write=write)
            if write or not self.trouble:  # a listing is no answer to a write that has failed meanwhile
                self._believe("")
        except EventsUnavailable as error:
            self._believe(str(error))
        finally:
            self._probing = None

    def _believe(self, trouble: str) -> None:
        self.trouble, self.unlogged = trouble, trouble or self.unlogged
        self._believed_until = time.monotonic() + (_FAILS_SECONDS if trouble else _WORKS_SECONDS)


class GroupCommit:
    """A writer that makes lines durable in batches. Belongs to one event loop.

    Lines that arrive while a batch is being written form the next one, and share the cost of one sync or one put.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._turn = asyncio.Lock()
        self._lines: list[Line] = []
        self._batch: asyncio.Task[None] | None = None  # that will write these lines
        self.waiting_bytes = 0

    async def store(self, line: Line) -> None:
        """Return once a line is durable; raise EventsUnavailable if that is uncertain."""
        self._lines.append(line)
        self.waiting_bytes += len(line[1])
        if self._batch is None:
            self._batch = asyncio.create_task(self._write())
        await asyncio.shield(self._batch)

    async def _write(self) -> None:
        """Write the lines that gather until the batch before is durable."""
        async with self._turn:
            await asyncio.sleep(GATHER_SECONDS)
            lines, self._lines, self._batch = self._lines, [], None
            try:
                await asyncio.to_thread(self._events.write, lines)
            finally:
                self.waiting_bytes -= sum(len(text) for _, text in lines)
