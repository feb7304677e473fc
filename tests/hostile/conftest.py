"""A source that means harm, and what tests of it share."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.raw_http import Answer, RawServer, say

OURS = (
    "RINGCX_",
    "RINGCENTRAL_",
    "ARCHIVE_",
    "ALERT_",
    "LEDGER_",
    "RATE_LIMIT_",
    "DATA_DIR",
    "AWS_",
    "DAGSTER_",
    "SSL_",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def wav_of(frames: int, channels: int = 1) -> bytes:
    """A good recording: 16-bit PCM at 8 kHz."""
    audio = bytes(range(256)) * (frames * channels * 2 // 256 + 1)
    audio = audio[: frames * channels * 2]
    form = struct.pack("<HHIIHH", 1, channels, 8000, 16000 * channels, 2 * channels, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(audio)) + audio
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], RawServer]]:
    """Starts a raw server: `serve(lambda asked, connection: connection.sendall(…))`."""
    with contextlib.ExitStack() as stack:
        yield lambda answer: stack.enter_context(RawServer(answer))


@pytest.fixture
def speak() -> Callable[..., bytes]:
    return say


@pytest.fixture
def wav() -> Callable[..., bytes]:
    return wav_of
