"""The events of a world's calls, and a place that holds them as a receiver would have left them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipelines.events.files import LocalEvents, day_folder, frame
from sandbox.calls import Call, calls_of_day
from sandbox.events import event_of
from sandbox.faults import Faults
from sandbox.links import LinkMaker
from tests.pipeline.conftest import World


def calls(world: World, day: date) -> list[Call]:
    return [
        call
        for account in world.sandbox.config.accounts
        for call in calls_of_day(world.sandbox.config.plan(), account, day)
    ]


def event_fields(world: World, of: Iterable[Call]) -> list[dict[str, Any]]:
    links = LinkMaker(world.sandbox.url, "localhost")
    return [{name: value for name, value in event_of(call, links, Faults()).items() if value} for call in of]


def store(folder: Path, day: date, events: Iterable[dict[str, Any]], *, at: datetime | None = None) -> None:
    """As a receiver does it."""
    received = (at or datetime.now(UTC)).isoformat()
    keeper = LocalEvents(folder)
    keeper.write([(day_folder(day), frame({"received_at": received, "fields": event})) for event in events])
