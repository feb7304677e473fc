"""The sandbox's End Call Events: in the documented forms, lost and repeated by a seed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from sandbox.calls import calls_of_day
from sandbox.config import SandboxConfig
from sandbox.events import FORMS, EventRoute, EventSender, Form, RunningEvents
from sandbox.server import RunningSandbox
from tests.servers.scripted_http import Request, Response, ScriptedServer

DAY = date(2026, 11, 20)


class Customer(ScriptedServer):
    """Notes the fields of every request, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(self._note)
        self.received: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.status = 200

    @property
    def address(self) -> str:
        return f"{self.url}/events"

    def _note(self, request: Request) -> Response:
        body = request.body.decode()
        query = dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))
        form = dict(parse_qsl(body, keep_blank_values=True))
        fields = json.loads(body) if body.startswith("{") else query | form
        self.received.append((request.method, {k.lower(): v for k, v in request.headers.items()}, fields))
        return Response(self.status)


@pytest.fixture
def customer() -> Iterator[Customer]:
    with Customer() as customer:
        yield customer


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_the_same_of_each_call(customer: Customer, form: Form) -> None:
    config = SandboxConfig(calls_per_day=(12, 12))
    route = EventRoute(url=customer.address, form=form, header=("X-Key", "s3cret"))
    sent = EventSender(config, "http://127.0.0.1:1", route).send_day(DAY)
    calls = {call.uii: call for call in calls_of_day(config.plan(), "15300002", DAY)}
    assert sent.acknowledged == set(calls)
    assert {method for method, _, _ in customer.received} == {"GET" if form == "get" else "POST"}
    for _, headers, fields in customer.received:
        call = calls[fields["call_id"]]
        assert headers["x-key"] == "s3cret"
        assert fields["call_start"].replace("-", "").replace(" ", "").replace(":", "") == call.uii[:14]
        assert (fields["account_id"], fields["ani"], fields["dnis"]) == ("15300002", call.ani, call.dnis)
        assert bool(fields["recording_url"]) == bool(call.mono)
        assert ("agent_id" in fields) == (fields["call_state"] == "ANSWERED") == bool(call.segments)
        if call.mono:
            assert fields["recording_url"].endswith(f"file={call.mono[-1].path}")


def test_the_link_of_an_event_leads_to_the_recording(customer: Customer) -> None:
    import httpx

    with RunningSandbox(SandboxConfig(calls_per_day=(4, 4), talk_seconds=(1, 2))) as source:
        EventSender(source.config, source.url, EventRoute(url=customer.address)).send_day(DAY)
        links = [fields["recording_url"] for _, _, fields in customer.received if fields["recording_url"]]
        assert links
        for link in links:
            answer = httpx.get(link, headers={"User-Agent": "test/1"}, trust_env=False)
            assert answer.content[:4] == b"RIFF"


def test_shares_are_lost_and_doubled_by_the_seed_and_nothing_else_is(customer: Customer) -> None:
    config = SandboxConfig(calls_per_day=(200, 200))
    route = EventRoute(url=customer.address, lost=0.1, doubled=0.1, seed=3)
    sent = EventSender(config, "http://127.0.0.1:1", route).send_day(DAY)
    arrived = [fields["call_id"] for _, _, fields in customer.received]
    assert 8 < sent.calls["lost"] < 35
    assert 8 < sent.calls["twice"] < 35
    assert len(arrived) == sent.calls["once"] + 2 * sent.calls["twice"] == sum(sent.statuses.values())
    assert not sent.lost & set(arrived)
    again = EventSender(config, "http://127.0.0.1:1", route).send_day(DAY)
    assert again.lost == sent.lost
    other = EventRoute(url=customer.address, lost=0.1, seed=4)
    assert EventSender(config, "http://127.0.0.1:1", other).send_day(DAY).lost != sent.lost


def test_what_is_not_answered_well_is_not_counted_as_acknowledged(customer: Customer) -> None:
    customer.status = 503
    config = SandboxConfig(calls_per_day=(5, 5))
    sent = EventSender(config, "http://127.0.0.1:1", EventRoute(url=customer.address)).send_day(DAY)
    assert (dict(sent.statuses), sent.acknowledged) == ({503: 5}, set())
    customer.close()
    refused = EventSender(config, "http://127.0.0.1:1", EventRoute(url=customer.address)).send_day(DAY)
    assert dict(refused.statuses) == {0: 5}


def test_events_follow_the_ends_of_calls_while_the_sandbox_runs(customer: Customer) -> None:
    config = SandboxConfig(calls_per_day=(40, 40))
    calls = sorted(calls_of_day(config.plan(), "15300002", DAY), key=lambda call: call.ended_at)
    begin = calls[10].ended_at - timedelta(seconds=1)
    started = datetime.now(UTC)

    def hurried() -> datetime:  # an hour a second
        return begin + 3600 * (datetime.now(UTC) - started)

    config = SandboxConfig(calls_per_day=(40, 40), clock=hurried)
    sender = EventSender(config, "http://127.0.0.1:1", EventRoute(url=customer.address))
    with RunningEvents(sender):
        deadline = datetime.now(UTC) + timedelta(seconds=30)
        while len(customer.received) < 5 and datetime.now(UTC) < deadline:
            time.sleep(0.1)
    call_ids = [fields["call_id"] for _, _, fields in customer.received]
    ended = [call.uii for call in calls]
    first = ended.index(min(call_ids, key=ended.index))
    assert first >= 10
    assert sorted(call_ids, key=ended.index) == ended[first : first + len(call_ids)]  # none left out, none twice
