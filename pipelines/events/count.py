"""How many events are stored, by date: to compare with what a sender or a proxy counted. No field is shown."""

from __future__ import annotations

from datetime import date
from typing import TextIO

from pipelines.events.event import field
from pipelines.events.frames import read_frames
from pipelines.events.stored import StoredEvents, day_folder
from pipelines.settings import S3Settings, SettingsError
from pipelines.storage import s3_client, stored_events


def print_counts(settings: S3Settings, out: TextIO) -> None:
    """Print a line a date, and the sum.

    Raises:
        SettingsError: no EVENTS_URL is set.
        EventsUnavailable: the events cannot be read.
    """
    stored = stored_events(settings, lambda: s3_client(settings, 4))
    if stored is None:
        raise SettingsError("EVENTS_URL is not set: name the place that the receiver keeps its events in")
    out.write(f"{'date':<12}{'events':>10}{'calls':>10}{'damaged':>10}\n")
    total = [0, 0, 0]
    for day in stored.days():
        counts = _counted(stored, day)
        total = [sum(pair) for pair in zip(total, counts, strict=True)]
        out.write(f"{day!s:<12}" + "".join(f"{count:>10}" for count in counts) + "\n")
    out.write(f"{'in all':<12}" + "".join(f"{count:>10}" for count in total) + "\n")


def _counted(stored: StoredEvents, day: date) -> tuple[int, int, int]:
    events = damaged = 0
    calls: set[tuple[str, str]] = set()
    for file in stored.files(day_folder(day)):
        frames = read_frames(stored.read(file.name))
        events += len(frames.records)
        damaged += frames.damaged
        for record in frames.records:
            calls.add((field(record["fields"], "account_id"), field(record["fields"], "call_id")))
    return events, len(calls), damaged
