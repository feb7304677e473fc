"""A source that sends for each path exactly the bytes that a test names, and runs over it."""

from __future__ import annotations

import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from pipelines.ledger.states import RecordingState
from tests.pipeline.conftest import MakeWorld, World
from tests.pipeline.test_steps import fetched, some_state
from tests.servers.scripted_http import Request, ScriptedServer

DAY = date(2026, 11, 19)
NOW = datetime.now(UTC)
Answer = Callable[[int], bytes]
"""How often it was asked before -> the whole answer."""


def answer(body: bytes, *, status: str = "200 OK", kind: str = "audio/wav", framed: bool = True) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if framed else ""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n".encode() + body


def wav(seconds: float = 0.5, *, channels: int = 1, riff: int | None = None, data: int | None = None) -> bytes:
    audio = b"\x10\x20" * int(8000 * seconds * channels)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, 8000, 16000 * channels, 2 * channels, 16)
    sizes = (36 + len(audio) if riff is None else riff, len(audio) if data is None else data)
    return b"RIFF" + struct.pack("<I", sizes[0]) + b"WAVE" + form + b"data" + struct.pack("<I", sizes[1]) + audio


PAGE = answer(b"<html>Come back later</html>", kind="text/html")
NOT_FOUND = answer(b"", status="404 Not Found")
FIREWALL = answer(b"<html>no</html>", status="403 Forbidden", kind="text/html")
REFUSED = answer(b"no", status="401 Unauthorized", kind="text/plain")


class Source(ScriptedServer):
    """Answers `/<name>` by `answers[name]`."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _answer(self, request: Request) -> bytes:
        name = request.path.rpartition("=")[2]
        with self._lock:
            before, self.asked[name] = self.asked[name], self.asked[name] + 1
        return self.answers[name](before)

    def always(self, answers: dict[str, bytes]) -> None:
        self.answers = {name: constantly(response) for name, response in answers.items()}


def constantly(response: bytes) -> Answer:
    return lambda _: response


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        yield source


@pytest.fixture
def make_archiver(source: Source, make_world: MakeWorld) -> Callable[..., Archiver]:
    def make(**variables: str) -> Archiver:
        world = make_world(RINGCX_MEDIA_HOSTS=source.host, **variables)
        return Archiver(world, source)

    return make


class Archiver:
    """Runs over the recordings that the source has answers for; each run asks for all that are pending."""

    def __init__(self, world: World, source: Source) -> None:
        self.world = world
        self.source = source

    def register(self, *, age: timedelta, layout: str = "mono") -> None:
        now = datetime.now(UTC)  # not NOW: the file's tests may take longer than a recording is young
        states = [
            some_state(
                f"15300002/{name}",
                DAY,
                layout=layout,
                link=f"http://{self.source.host}/r?file={name}",
                started_at=now - age,
                first_seen_at=now,
                written_at=now,
                next_attempt_at=now,
            )
            for name in self.source.answers
        ]
        self.world.services().ledger.append_states(states)

    def run(self, *, hours: float = 0.0) -> None:
        """A run, and then time passes."""
        try:
            fetched(self.world.services(), *self.states.values())
        finally:
            self.world.passed += timedelta(hours=hours)

    @property
    def states(self) -> dict[str, RecordingState]:
        return {key.rpartition("/")[2]: state for key, state in self.world.states(DAY).items()}

    def stored(self, name: str) -> bytes:
        return bytes(self.world.s3.get_object(Bucket=self.world.bucket, Key=self.states[name].key)["Body"].read())


def after(bad: Sequence[bytes], good: bytes) -> Answer:
    return lambda before: bad[before] if before < len(bad) else good


MONTH = timedelta(days=30)
