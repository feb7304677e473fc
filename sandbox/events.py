"""End Call Events: what the source posts to a URL of the customer's 1 to 3 seconds after each call.

In the documented JSON, or URL-encoded as the vendor's default is. A share can be lost and a share repeated, by a seed;
an event that is not answered with 2xx is lost too, for the source sends each only once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal, Self

import httpx

from sandbox.calls import EASTERN, Call, calls_between
from sandbox.config import SandboxConfig
from sandbox.faults import Faults, lot
from sandbox.links import LinkMaker

Form = Literal["json", "query", "body", "get"]
"""JSON body; POST with the query string; form body; GET with the query string."""

FORMS: tuple[Form, ...] = ("json", "query", "body", "get")
AFTER_CALL = timedelta(seconds=2)
_LOOK_EVERY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRoute:
    """Where events go, how they are written, and what happens to them on the way.

    Attributes:
        url: The address that the administrator entered.
        form: How an event is written.
        header: Name and value of the fixed header, if there is one.
        lost: Share of events that are never sent: of the same calls of every date.
        doubled: Share of events that are sent twice, likewise.
        seed: Another seed loses and doubles others.
    """

    url: str
    form: Form = "query"
    header: tuple[str, str] | None = None
    lost: float = 0.0
    doubled: float = 0.0
    seed: int = 0

    def copies(self, call: Call) -> int:
        """How often the event of a call is sent."""
        drawn = lot(f"{self.seed}/{call.uii}")
        if drawn < self.lost:
            return 0
        return 2 if drawn < self.lost + self.doubled else 1


@dataclass(slots=True)
class Sent:
    """What became of the events: calls by what happened, requests by status, and the UIIs that were answered 2xx."""

    calls: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


class EventSender:
    """Sends the events of a sandbox's calls.

    Args:
        config: The sandbox's own: the same calls.
        base_url: Where the sandbox's recordings are, for the links.
        route: Where the events go.
    """

    def __init__(self, config: SandboxConfig, base_url: str, route: EventRoute) -> None:
        self._config = config
        self._plan = config.plan()
        self._links = LinkMaker(base_url, config.evil_host or "localhost")
        self._route = route
        self._stop = threading.Event()

    def send_day(self, day: date) -> Sent:
        """Send the events of all calls that started on a UTC day and are over."""
        start = datetime.combine(day, time_of_day(), UTC)
        started = (call for call in self._over(start, start + timedelta(days=1)) if call.started_at.date() == day)
        return self.send(started)

    def send(self, calls: Iterable[Call]) -> Sent:
        """Send an event for each call, one after the other."""
        sent = Sent()
        with httpx.Client(trust_env=False, timeout=30) as client:
            for call in calls:
                copies = self._route.copies(call)
                sent.calls[("lost", "once", "twice")[copies]] += 1
                if not copies:
                    sent.lost.add(call.uii)
                for _ in range(copies):
                    status = self._post(client, event_of(call, self._links, self._config.faults))
                    sent.statuses[status] += 1
                    if 200 <= status < 300:
                        sent.acknowledged.add(call.uii)
        return sent

    def run(self) -> None:
        """Send the event of each call two seconds after its end, until `stop`."""
        told_to = self._config.clock() - AFTER_CALL
        while not self._stop.wait(_LOOK_EVERY):
            now = self._config.clock() - AFTER_CALL
            self.send(call for call in self._over(told_to, now) if told_to < call.ended_at <= now)
            told_to = now

    def stop(self) -> None:
        """Let `run` return."""
        self._stop.set()

    def _over(self, start: datetime, end: datetime) -> Iterator[Call]:
        now = self._config.clock()
        for account in self._config.accounts:
            yield from (call for call in calls_between(self._plan, account, start, end) if call.ended_at <= now)

    def _post(self, client: httpx.Client, event: Mapping[str, str | None]) -> int:
        """The answer's status; 0 when there was none."""
        headers = dict([self._route.header]) if self._route.header else {}
        plain = {name: value or "" for name, value in event.items()}
        try:
            match self._route.form:
                case "json":
                    answer = client.post(self._route.url, json=dict(event), headers=headers)
                case "query":
                    answer = client.post(self._route.url, params=plain, headers=headers)
                case "body":
                    answer = client.post(self._route.url, data=plain, headers=headers)
                case "get":
                    answer = client.get(self._route.url, params=plain, headers=headers)
        except httpx.HTTPError:
            return 0
        return answer.status_code


def event_of(call: Call, links: LinkMaker, faults: Faults) -> dict[str, str | None]:
    """The event of one call, as the vendor documents it; an unanswered one has no link and no agent."""
    inbound = call.direction == "inbound"
    last = call.segments[-1] if call.segments else None
    event: dict[str, str | None] = {
        "recording_url": links.link(call.mono[-1], faults) if call.mono else "",
        "queue_duration": str(call.queue_s),
        "agent_disposition": last.disposition if last else "",
        "gate_name": last.product_name if last else call.source_name,
        "call_state": "ANSWERED" if last else ("ABANDON" if inbound else "MACHINE"),
        "call_duration": str(int((call.ended_at - call.started_at).total_seconds())),
        "call_id": call.uii,
        "account_id": call.account_id,
        "event_type": "ACD-CALL" if inbound else "VPD-CALL",
        "gate_id": str(last.product_id if last else call.source_id),
        "call_start": call.started_at.astimezone(EASTERN).strftime("%Y-%m-%d %H:%M:%S"),
        "dnis": call.dnis,
        "ani": call.ani,
    }
    if last:
        event |= {"agent_id": str(last.agent_id), "external_agent_id": None, "username": last.username}
    return event


class RunningEvents:
    """Events of a running sandbox, as its calls end, for the length of a `with` block."""

    def __init__(self, sender: EventSender) -> None:
        self._sender = sender
        self._thread = threading.Thread(target=sender.run, name="events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.stop()
        self._thread.join(60)
