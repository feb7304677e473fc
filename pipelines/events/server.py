"""The receiver's server (uvicorn): its limits on connections and requests, and how the process ends.

On SIGTERM the process accepts no new request, answers the others once their events are durable, and ends.
"""

import asyncio
import logging
import resource
import socket
from collections import Counter

from uvicorn.protocols.http.h11_impl import H11Protocol

from pipelines.archive.client import make_s3_client
from pipelines.events.app import Receiver
from pipelines.events.files import events_at
from pipelines.serving import listen, serve
from pipelines.settings import ReceiverSettings

log = logging.getLogger("pipelines.events")

LOG_EVERY = 60.0
_GRACE_SECONDS = 25
_KEEP_ALIVE_SECONDS = 15


def run(settings: ReceiverSettings) -> None:
    """Receive events until SIGTERM or SIGINT; raise SettingsError or EventsUnavailable if that cannot begin."""
    events = events_at(
        settings.events_url or "", lambda: make_s3_client(max_connections=4, options=settings.s3_options)
    )
    events.probe()
    _allow_connections(settings.events_max_connections)
    listener = listen(settings.events_host, settings.events_port, "EVENTS_HOST and EVENTS_PORT")
    asyncio.run(_serve(Receiver(events, settings), settings, listener))


async def _serve(receiver: Receiver, settings: ReceiverSettings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    log.info("Receiving End Call Events at http://%s:%d/events", host, port)
    logging_task = asyncio.create_task(_log_counts(receiver))
    try:
        await serve(
            receiver.app(),
            listener,
            http=_protocol(receiver, settings.events_timeout_seconds, settings.events_max_connections),
            lifespan="on",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    finally:
        logging_task.cancel()
    log.info("Ended; in total: %s", _counts_text(receiver.counts))


async def _log_counts(receiver: Receiver) -> None:
    """Log the receiver's counts, once a minute if there were requests."""
    before: Counter[str] = Counter()
    while True:
        await asyncio.sleep(LOG_EVERY)
        counts = Counter(receiver.counts)
        if counts != before:
            log.info("In the last minute: %s", _counts_text(counts - before))
        if receiver.trouble:
            log.error("%s", receiver.trouble)
        before = counts


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"


def _protocol(receiver: Receiver, seconds: float, most: int) -> type[H11Protocol]:
    """Return uvicorn's own protocol with a time limit for a request, a limit on connections, and counts."""
    counts = receiver.counts

    class Patient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            # Those above the limit are answered 503; those above twice the limit are dropped without an answer.
            if len(self.connections) > 2 * most:
                counts["dropped_crowd"] += 1
                transport.abort()
                return
            if len(self.connections) > most:
                self.app = receiver.too_many_connections
            self._wait()

        def send_400_response(self, msg: str) -> None:
            counts["not_http"] += 1
            super().send_400_response(msg)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_progress():
                self._stop_waiting()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _in_progress(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._timer = self.loop.call_later(seconds, self._waited)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _waited(self) -> None:
            self._timer = None
            if not self._in_progress() and self.timeout_keep_alive_task is None:
                counts["dropped_silent"] += 1
                self.transport.abort()

    return Patient


def _allow_connections(most: int) -> None:
    """Raise the limit on open files to what the connections need; a process usually may open 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * most + 100
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
