"""Every request that a run sends, and every answer of the sandbox, is what the OpenAPI document of the source says.

The document (`ringcx.yaml`) is written from the vendor's pages; openapi-core holds the recorded exchanges against it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.templating.paths.finders import APICallPathFinder
from openapi_core.testing import MockRequest, MockResponse
from openapi_spec_validator import validate as validate_document

from sandbox.config import Limits
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import (  # noqa: F401 - fixtures
    MakeWorld,
    World,
    _clean_environment,
    make_world,
    memory,
    recent,
)

DOCUMENT = Path(__file__).with_name("ringcx.yaml")
HOSTS = {"/restapi/": "https://platform.ringcentral.com"}
FREE = Limits(reports="none", exchange="none", metadata="none", download="none")


@dataclass
class Exchange:
    """A request as it arrived, and its answer."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""

    def request(self) -> MockRequest:
        host = next(
            (address for start, address in HOSTS.items() if self.path.startswith(start)),
            "https://ringcx.ringcentral.com",
        )
        return MockRequest(
            host,
            self.method,
            self.path,
            args={name: values[0] for name, values in parse_qs(self.query, keep_blank_values=True).items()},
            headers=self.headers,
            data=self.body or None,
            content_type=self.headers.get("content-type", ""),
        )

    def response(self) -> MockResponse:
        return MockResponse(
            self.answer, self.status, self.answer_headers, self.answer_headers.get("content-type", "text/plain")
        )


class Recorder:
    """Stands before the sandbox's application and writes down what goes in and out, `/sandbox/…` aside."""

    def __init__(self, app: Any, seen: list[Exchange]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/sandbox/"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        exchange = Exchange(scope["method"], scope["path"], scope["query_string"].decode(), headers, b"")
        messages = [await receive()]  # all of it: the application may refuse a request before its body has come
        while messages[-1].get("more_body"):
            messages.append(await receive())
        exchange.body = b"".join(message.get("body", b"") for message in messages)

        async def receiving() -> Any:
            return messages.pop(0) if messages else await receive()

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.answer_headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            exchange.answer += message.get("body", b"")
            await send(message)

        await self._app(scope, receiving, sending)
        self._seen.append(exchange)


@pytest.fixture(scope="module")
def openapi() -> OpenAPI:
    text = {kind: lambda data, **_: data.decode("latin-1") for kind in ("text/csv", "text/plain", "audio/wav")}
    return OpenAPI.from_file_path(str(DOCUMENT), config=Config(extra_media_type_deserializers=text))


@pytest.fixture
def recorded(make_world: MakeWorld) -> Callable[..., tuple[World, list[Exchange]]]:  # noqa: F811
    """A world whose sandbox is written down."""

    def make(**arguments: Any) -> tuple[World, list[Exchange]]:
        variables = {"RINGCX_LIMIT_METADATA": "none", "RINGCX_LIMIT_MEDIA": "none", **arguments}
        world = make_world(sandbox={"limits": FREE, "calls_per_day": (4, 5)}, **variables)
        seen: list[Exchange] = []
        world.sandbox._server.config.app.add_middleware(Recorder, seen=seen)
        return world, seen

    return make


def operations(openapi: OpenAPI, seen: list[Exchange]) -> Counter[tuple[str, int]]:
    """Hold each exchange against the document; (operation, status) -> how often."""
    found: Counter[tuple[str, int]] = Counter()
    for exchange in seen:
        request = exchange.request()
        openapi.validate_request(request)
        openapi.validate_response(request, exchange.response())
        operation = APICallPathFinder(openapi.spec).find(request.method, f"{request.host_url}{request.path}").operation
        found[str(operation["operationId"]), exchange.status] += 1
    return found


def test_the_document_is_openapi() -> None:
    validate_document(yaml.safe_load(DOCUMENT.read_text()))


def test_a_run_of_both_sources_sends_and_gets_what_the_document_says(
    recorded: Callable[..., tuple[World, list[Exchange]]],
    openapi: OpenAPI,
    recent: list[date],  # noqa: F811
) -> None:
    world, seen = recorded(RINGCX_SOURCE="both", faults=Faults(token_seconds=1.5))
    day = recent[0]
    reports = ["agent_segment_metadata", "global_call_type_detail", "interaction_metadata"]
    assert world.run(day, select=[*reports, "recording_links", "recordings"]).success
    assert world.run(day + timedelta(days=1), select=["interaction_metadata", "recording_links", "recordings"]).success
    found = operations(openapi, seen)
    assert {name for name, _ in found} >= {
        "ringcentralToken",
        "exchange",
        "report",
        "interactionMetadata",
        "download",
        "recordingByLink",
        "recordingByLinkWithSlash",
    }
    assert found["report", 200] == 3
    assert found["interactionMetadata", 200] == 16


def test_refusals_and_the_other_ways_to_ask_are_in_the_document_too(
    recorded: Callable[..., tuple[World, list[Exchange]]],
    openapi: OpenAPI,
    recent: list[date],  # noqa: F811
) -> None:
    faults = Faults(
        not_found=Where(share=0.3, first=1),
        unauthorized=Where(share=0.2, first=1),
        forbidden=Where(share=0.2, first=1),
        report_throttled=Where(share=0.5, first=1),
        report_unauthorized=Where(share=0.5, first=1),
    )
    world, seen = recorded(RINGCX_SOURCE="current", RINGCX_DOWNLOAD_METHOD="POST", faults=faults)
    world.run(recent[0], select=["interaction_metadata", "recording_links", "recordings"])
    found = operations(openapi, seen)
    assert {("interactionMetadata", 429), ("interactionMetadata", 401), ("downloadByPost", 200)} <= found.keys()
    assert {status for name, status in found if name == "downloadByPost"} & {401, 403, 404}


def test_a_legacy_log_in_is_in_the_document_too(
    recorded: Callable[..., tuple[World, list[Exchange]]],
    openapi: OpenAPI,
    recent: list[date],  # noqa: F811
) -> None:
    credentials = {"RINGCX_USERNAME": "archive@example.com", "RINGCX_PASSWORD": "sandbox-password"}
    world, seen = recorded(**credentials)
    assert world.run(recent[0], select=["agent_segment_metadata", "global_call_type_detail"]).success
    assert operations(openapi, seen) == {("legacyLogIn", 200): 1, ("report", 200): 3}


GOOD = Exchange(
    "POST",
    "/voice/api/cx/integration/v1/accounts/37439510/sub-accounts/15300002/interaction-metadata",
    "",
    {"content-type": "application/json", "authorization": "Bearer token"},
    b'{"segmentEndTime":"2026-11-18 00:00:00","timeInterval":10800,"timeZone":"UTC"}',
    200,
    {"content-type": "application/json"},
    b"[]",
)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"path": GOOD.path.replace("sub-accounts", "subaccounts")},
        {"path": GOOD.path.replace("15300002", "x")},
        {"headers": {"content-type": "application/json"}},
        {"body": GOOD.body.replace(b"10800", b"10801")},
        {"body": GOOD.body.replace(b" 00:", b"T00:")},
        {"body": GOOD.body.replace(b'"timeZone"', b'"timezone"')},
        {"answer": b'{"generalMessage":"no"}'},
        {"answer": json.dumps([{"dialogId": "s-1"}]).encode()},
        {"status": 202},
    ],
)
def test_what_the_document_does_not_say_is_found(openapi: OpenAPI, change: dict[str, Any]) -> None:
    operations(openapi, [GOOD])
    with pytest.raises(OpenAPIError):
        operations(openapi, [replace(GOOD, **change)])
