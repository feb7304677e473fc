"""A clean environment, a receiver in this process for each test, and an S3."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipelines.events.app import Receiver
from pipelines.events.event import field
from pipelines.events.files import Events, LocalEvents, day_folder, read_frames
from pipelines.settings import ReceiverSettings
from tests.events.receivers import AUTHORIZATION

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have httpx2, which nothing else here needs
    from starlette.testclient import TestClient

OURS = ("RINGCX_", "RINGCENTRAL_", "ARCHIVE_", "EVENTS_", "LEDGER_", "DATA_DIR", "AWS_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def events_folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def receiver(events_folder: Path) -> Iterator[Callable[..., TestClient]]:
    """Make a client of a receiver in this process: `receiver(rate=5, accepted=[…], keeper=…)`."""
    with ExitStack() as stack:

        def make(
            *,
            accepted: tuple[str, ...] = (AUTHORIZATION,),
            name: str = "Authorization",
            keeper: Events | None = None,
            **changed: Any,
        ) -> TestClient:
            values = dict(zip(("events_header_value", "events_header_value_next"), accepted, strict=False))
            settings = ReceiverSettings.model_validate(
                {
                    "events_url": str(events_folder),
                    "events_header_name": name,
                    **values,
                    **{f"events_{setting}": value for setting, value in changed.items()},
                }
            )
            made = Receiver(keeper or LocalEvents(events_folder), settings)
            return stack.enter_context(TestClient(made.app(), raise_server_exceptions=True))

        yield make


def stored_fields(stored: Events) -> list[dict[str, str]]:
    """The fields of every stored event, whatever its date."""
    found = []
    for day in stored.days():
        for name in stored.files(day_folder(day)):
            found += [dict(frame["fields"]) for frame in read_frames(stored.read(name))[0]]
    return found


def stored_calls(stored: Events) -> list[str]:
    return [field(fields, "call_id") for fields in stored_fields(stored)]
