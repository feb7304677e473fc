"""`python -m pipelines.events`: the receiver in the foreground, until SIGTERM. `--count`: what is stored, by date."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from datetime import date
from typing import TextIO

from pipelines.archive.client import make_s3_client
from pipelines.archive.errors import StorageError
from pipelines.events.event import field
from pipelines.events.files import Events, EventsUnavailable, day_folder, events_at, read_frames
from pipelines.events.server import run
from pipelines.settings import ReceiverSettings, S3Settings, SettingsError, load


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 with a sentence on stderr when the receiver could not start or the events could not be read."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.events", description=__doc__)
    parser.add_argument("--count", action="store_true", help="print how many events are stored, and end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipelines.events").setLevel(logging.INFO)
    try:
        if options.count:
            print_counts(load(S3Settings), sys.stdout)
        else:
            run(load(ReceiverSettings))
    except (SettingsError, StorageError, EventsUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def print_counts(settings: S3Settings, out: TextIO) -> None:
    """Print how many events are stored, a line a date, and the sum; no field is shown.

    Raises:
        SettingsError: no EVENTS_URL is set.
        EventsUnavailable: the events cannot be read.
    """
    if settings.events_url is None:
        raise SettingsError("EVENTS_URL is not set: name the folder or s3://<bucket>/<prefix> that keeps the events")
    stored = events_at(settings.events_url, lambda: make_s3_client(max_connections=4, options=settings.s3_options))
    out.write(f"{'date':<12}{'events':>10}{'calls':>10}{'damaged':>10}\n")
    total: Counter[str] = Counter()
    for day in stored.days():
        counts = _counts(stored, day)
        total += counts
        out.write(_row(str(day), counts))
    out.write(_row("in all", total))


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
    return f"{title:<12}{counts['events']:>10}{counts['calls']:>10}{counts['damaged']:>10}\n"


if __name__ == "__main__":
    sys.exit(main())
