"""`ringcx-archive receiver`: receives events in the foreground until SIGTERM, or counts the stored ones.

On SIGTERM the process accepts no new request, answers the others once their events are durable, and ends.
"""

import asyncio
import logging
import resource
import socket
from collections import Counter

import click

from pipelines.archive.client import make_s3_client
from pipelines.cli.options import subcommand
from pipelines.events.app import Receiver
from pipelines.events.files import Events, day_folder, events_at, read_frames
from pipelines.serving import listen, serve
from pipelines.settings import ReceiverSettings, S3Settings, SettingsError, load

log = logging.getLogger("pipelines.events")

_LOG_EVERY = 60.0
_ROW = "{:<12}{:>10}{:>10}"
_OTHER_FILES = 100  # event files, S3 connections, logs


@subcommand("receiver", "receiver --count", takes_dependencies=False)
@click.option("--count", is_flag=True, help="Print how many events are stored, by date, and exit.")
def command(*, count: bool) -> None:
    """Receive End Call Events from RingCX, in the foreground, until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    settings = load(S3Settings if count else ReceiverSettings)
    if settings.events_url is None:
        raise SettingsError("EVENTS_URL is not set: name the folder or s3://<bucket>/<prefix> that keeps the events")
    events = events_at(settings.events_url, lambda: make_s3_client(max_connections=4, options=settings.s3_options))
    if isinstance(settings, ReceiverSettings):
        _allow_connections(settings.events_max_connections)
        # In this order, a receiver that cannot listen and is started again and again puts no object each time.
        listener = listen(settings.events_host, settings.events_port, "EVENTS_HOST and EVENTS_PORT")
        events.probe(write=True)
        asyncio.run(_serve(Receiver(events, settings), settings, listener))
    else:
        _print_counts(events)


def _allow_connections(most: int) -> None:
    """Raise this process's limit on open files to what the connections need; raise SettingsError if it is fixed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    except ValueError:
        raise SettingsError(
            f"EVENTS_MAX_CONNECTIONS={most} needs {wanted} open files, and this process may open {hard}: lower it, or "
            "raise the limit (`ulimit -n`, or LimitNOFILE of the unit)"
        ) from None


def _print_counts(stored: Events) -> None:
    """Print the number of stored events for each date, and the sum; show no field of an event."""
    click.echo(_ROW.format("date", "events", "damaged"))
    total: Counter[str] = Counter()
    for day in stored.days():
        counts: Counter[str] = Counter()
        for name in stored.files(day_folder(day)):
            records, damaged = read_frames(stored.read(name))
            counts.update(events=len(records), damaged=damaged)
        total += counts
        click.echo(_ROW.format(str(day), counts["events"], counts["damaged"]))
    click.echo(_ROW.format("total", total["events"], total["damaged"]))


async def _serve(receiver: Receiver, settings: ReceiverSettings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    log.info("Receiving End Call Events at http://%s:%d/events", host, port)
    logging_task = asyncio.create_task(_log_counts(receiver))
    await serve(
        receiver.app(),
        listener,
        http="h11",
        limit_concurrency=settings.events_max_connections + 1,  # uvicorn refuses from this number on
        timeout_keep_alive=15,
        timeout_graceful_shutdown=25,
    )
    logging_task.cancel()
    _log(receiver, "Ended; in total", receiver.counts)


async def _log_counts(receiver: Receiver) -> None:
    """Log what happened, once a minute if something did."""
    before: Counter[str] = Counter()
    while True:
        await asyncio.sleep(_LOG_EVERY)
        if receiver.trouble:
            await receiver.probe()  # without events nothing else shows that it has passed
        counts = Counter(receiver.counts)
        if counts != before or receiver.unlogged:
            _log(receiver, "In the last minute", counts - before)
        before = counts


def _log(receiver: Receiver, when: str, counts: Counter[str]) -> None:
    log.info("%s: %s", when, ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing")
    if receiver.unlogged:
        log.error("%s", receiver.unlogged)
    receiver.unlogged = ""
