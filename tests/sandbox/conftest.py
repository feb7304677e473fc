"""A sandbox on a fixed morning, and a client that knows how to ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from sandbox import Limits, RunningSandbox, SandboxConfig

NOW = datetime(2026, 3, 10, 18, 0, tzinfo=UTC)
ACCOUNT = "15300002"
FREE = Limits(reports="none", exchange="none", media="none")


@dataclass
class Clock:
    """A present and a number of seconds that only move when told to."""

    now: datetime = NOW
    seconds: float = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def ticks(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


def plain_config(clock: Clock, **settings: Any) -> SandboxConfig:
    """No limits, short recordings, the given clock; and whatever else is asked for."""
    plain = {"talk_seconds": (3, 8), "limits": FREE, "clock": clock, "ticks": clock.ticks}
    return SandboxConfig(**{**plain, **settings})


@dataclass
class Asker:
    """A client of one sandbox that uses the permanent token."""

    sandbox: RunningSandbox
    http: httpx.Client

    def report(self, body: dict[str, Any], *, account: str = ACCOUNT, token: str | None = None) -> httpx.Response:
        url = f"{self.sandbox.url}/voice/api/v1/admin/accounts/{account}/reportsStreaming"
        headers = {"X-Auth-Token": token or self.sandbox.config.credentials.api_token}
        return self.http.post(url, json=body, headers=headers)

    def agents(self, direction: str, start: str, end: str, zone: str = "UTC") -> httpx.Response:
        return self.report(agents_body(direction, start, end, zone))

    def calls(self, start: str, end: str, **criteria: Any) -> httpx.Response:
        return self.report(calls_body(start, end, **criteria))

    def media(self, file: str, **arguments: Any) -> httpx.Response:
        query = f"v=1&accountId={ACCOUNT}&bucket=b&region=r&file={file}"
        headers = {"User-Agent": "tests/1"} | arguments.pop("headers", {})
        return self.http.get(f"{self.sandbox.url}/api/v1/calls/recordings?{query}", headers=headers, **arguments)


def agents_body(direction: str, start: str, end: str, zone: str) -> dict[str, Any]:
    name = f"{direction.capitalize()}_Agent_Segment_Metadata_Report"
    criteria = {
        "criteriaType": "CASPER_CRITERIA",
        "reportName": name,
        "returnType": "CSV",
        "startTimestamp": start,
        "endTimestamp": end,
        "timezoneName": zone,
    }
    return {"reportType": "CASPER_REPORT", "reportTypeName": name, "reportCriteria": criteria}


def calls_body(start: str, end: str, **criteria: Any) -> dict[str, Any]:
    period = {"criteriaType": "GLOBAL_CALL_TYPE_CRITERIA", "startDate": start, "endDate": end}
    return {"reportType": "GLOBAL_CALL_TYPE_DELIMITED", "reportCriteria": period | criteria}


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[Clock, Asker]]:
    """A clock, and a sandbox that runs by it and is started once: most tests change nothing but knobs."""
    clock = Clock()
    with RunningSandbox(plain_config(clock)) as sandbox, httpx.Client(trust_env=False, timeout=10) as http:
        yield clock, Asker(sandbox, http)


@pytest.fixture
def clock(shared: tuple[Clock, Asker]) -> Clock:
    """The fixed morning, again for each test."""
    shared[0].now, shared[0].seconds = NOW, 1000.0
    return shared[0]


@pytest.fixture
def start(shared: tuple[Clock, Asker], clock: Clock) -> Iterator[Callable[..., Asker]]:
    """A sandbox with these settings; without any, the shared one as if it had just been started."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> Asker:
            if not settings:
                shared[1].sandbox.reset()
                return shared[1]
            return Asker(stack.enter_context(RunningSandbox(plain_config(clock, **settings))), shared[1].http)

        yield begin
