"""A media client with a transport of the test's choice."""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient, MediaFault

HOST = "c02-recordings.virtualacd.biz"
FILE = "15300002/202007/30/202007302136360132130000036446-1.WAV"
LINK = (
    f"https://{HOST}/api/v1/calls/recordings/?v=1&accountId=15300002&bucket=c02-recordings&region=us-east-1"
    f"&compliance=false&file={FILE}"
)
WAV = b"RIFF" + struct.pack("<I", 36 + 4000) + b"WAVEfmt " + bytes(20) + b"data" + struct.pack("<I", 4000) + bytes(4000)
OTHER = "aws46-recordings.vacd.biz"


class Source:
    """Answers by host and path, or always the same; keeps the requests."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer if isinstance(self.answer, httpx.Response) else self.answer(request)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make(tmp_path: Path, stop: threading.Event) -> Iterator[Callable[..., MediaClient]]:
    """Builds a media client; without a handler it uses real connections. Nothing sleeps."""
    limiter = RateLimiter(tmp_path / "l")
    clients: list[SourceClient] = []

    def build(handler: Callable[[httpx.Request], httpx.Response] | None = None, **options: Any) -> MediaClient:
        client = SourceClient(
            limiter=limiter,
            limits={},
            stop=stop,
            transport=httpx.MockTransport(handler) if handler else None,
            attempts=3,
            read_timeout_s=0.5,
            sleep=lambda _: None,
        )
        clients.append(client)
        hosts = HostList(["*.virtualacd.biz", "*.vacd.biz", "127.0.0.1", "localhost"])
        return MediaClient(client, hosts, **({"auth": None} | options))

    yield build
    for client in clients:
        client.close()
    limiter.close()


def audio(body: bytes = WAV, *, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=body, headers={"Content-Type": "audio/wav"} | headers)


def fault_of(media: MediaClient, url: str = LINK) -> tuple[str, str, int | None]:
    with pytest.raises(MediaFault) as fault:
        media.fetch(url, "1", io.BytesIO())
    assert "file=" not in str(fault.value)
    status = re.search(r"HTTP (\d+)", str(fault.value))
    return fault.value.kind, fault.value.reason, int(status[1]) if status else None
