"""`ringcx-archive receiver`: receives events in the foreground until SIGTERM, or counts the stored ones."""

import logging
from collections import Counter
from datetime import date

import click

from pipelines.archive.client import make_s3_client
from pipelines.cli.options import subcommand
from pipelines.events.event import field
from pipelines.events.files import Events, day_folder, events_at, read_frames
from pipelines.events.server import run
from pipelines.settings import ReceiverSettings, S3Settings, SettingsError, load


@subcommand("receiver", "receiver --count", takes_outside=False)
@click.option("--count", is_flag=True, help="Print how many events are stored, by date, and exit.")
def command(*, count: bool) -> None:
    """Receive End Call Events from RingCX, in the foreground, until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipelines.events").setLevel(logging.INFO)
    if count:
        _print_counts(load(S3Settings))
    else:
        run(load(ReceiverSettings))


def _print_counts(settings: S3Settings) -> None:
    """Print the number of stored events for each date, and the sum; show no field of an event."""
    if settings.events_url is None:
        raise SettingsError("EVENTS_URL is not set: name the folder or s3://<bucket>/<prefix> that keeps the events")
    stored = events_at(settings.events_url, lambda: make_s3_client(max_connections=4, options=settings.s3_options))
    click.echo(f"{'date':<12}{'events':>10}{'calls':>10}{'damaged':>10}")
    total: Counter[str] = Counter()
    for day in stored.days():
        counts = _counts(stored, day)
        total += counts
        click.echo(_row(str(day), counts))
    click.echo(_row("total", total))


def _counts(stored: Events, day: date) -> Counter[str]:
    counts: Counter[str] = Counter()
    calls: set[tuple[str, str]] = set()
    for file in stored.files(day_folder(day)):
        frames = read_frames(stored.read(file.name))
        counts.update(events=len(frames.records), damaged=frames.damaged)
        fields = [record["fields"] for record in frames.records]
        calls.update((field(event, "account_id"), field(event, "call_id")) for event in fields)
    counts["calls"] = len(calls)
    return counts


def _row(title: str, counts: Counter[str]) -> str:
    return f"{title:<12}{counts['events']:>10}{counts['calls']:>10}{counts['damaged']:>10}"
