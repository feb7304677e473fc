"""Telling people what is wrong: which message, when, and to whom. No Dagster here; `alert_sensors.py` feeds it.

One message a problem, never one a recording: what goes wrong in the same place is one message that lists its dates. A
problem that persists is not repeated for a day, unless a warning becomes an error; when it ends, one message says so. A
message stays in the outbox until every address of `ALERT_URLS` took it, so that a delivery that fails is late and not
lost. Delivery is Apprise's (Slack, Teams, e-mail, webhooks and a hundred others by address). The addresses hold tokens:
no log and no error ever shows one.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Self

import apprise
from pydantic import SecretStr

QUIET = timedelta(hours=24)
FORGET = timedelta(days=90)  # of a date that nobody looked at again
LONGEST_SENTENCE = 600
SHOWN_DATES = 10
SENT_PER_TICK = 20  # a service that hangs takes eight seconds a message
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ENTRY = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # within an address a comma is part of it
# What may name an address, or the path in it that is the token, while a message is sent.
_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")


class AlertsFailed(Exception):  # noqa: N818 - the verdict on a tick, whose text is what the tick shows
    """Some messages could not be delivered; they are kept. The text names the entry of ALERT_URLS by its place."""


class Severity(StrEnum):
    """`warning`: somebody should look. `error`: recordings are late, lost or unknown, or nothing works."""

    warning = "warning"
    error = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong on one date.

    Attributes:
        subject: what failed, the same for every date: `check recordings/every_link_is_held`, `step recordings`.
        date: the date that is concerned; empty where there is none.
        severity: how bad.
        sentence: what is wrong, with the counts. No personal data.
        todo: what a person does about it.
        where: where to look: an address of the UI, or words.
    """

    subject: str
    date: str
    severity: Severity
    sentence: str
    todo: str
    where: str

    @property
    def key(self) -> str:
        """What makes two problems one."""
        return problem_key(self.subject, self.date)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent."""

    title: str
    body: str
    severity: Severity | None

    @property
    def kind(self) -> apprise.NotifyType:
        """Apprise's word for it; no severity is good news."""
        kinds = {Severity.warning: apprise.NotifyType.WARNING, Severity.error: apprise.NotifyType.FAILURE}
        return kinds[self.severity] if self.severity else apprise.NotifyType.SUCCESS


def problem_key(subject: str, date: str) -> str:
    """The key under which a problem is remembered."""
    return f"{subject} @ {date}"


def compose(problems: Iterable[Problem]) -> list[Message]:
    """One message a subject, with all its dates; the worst severity counts."""
    by_subject = sorted(problems, key=lambda one: (one.subject, one.date))
    return [_composed(subject, list(group)) for subject, group in groupby(by_subject, key=lambda one: one.subject)]


def compose_over(ended: Iterable[tuple[str, str]]) -> list[Message]:
    """One message a subject for what is over: pairs of subject and date."""
    messages = []
    for subject, group in groupby(sorted(ended), key=lambda one: one[0]):
        dates = [date for _, date in group]
        messages.append(
            Message(f"RingCX Archive: over: {subject}{_for(dates)}", f"It is in order again{_listed(dates)}.", None)
        )
    return messages


def _composed(subject: str, problems: list[Problem]) -> Message:
    dates = [one.date for one in problems]
    worst = Severity.error if any(one.severity is Severity.error for one in problems) else Severity.warning
    word = "fails" if worst is Severity.error else "warns"
    lines = [f"When: {', '.join(filter(None, dates[:SHOWN_DATES])) or 'now'}{_more(len(dates))}", "What:"]
    for sentence, group in groupby(problems[:SHOWN_DATES], key=lambda one: _DATE.sub("<date>", one.sentence)):
        same = list(group)
        own = same[0].sentence if len(same) == 1 else sentence
        prefix = ", ".join(filter(None, (one.date for one in same)))
        lines.append(f"- {prefix}{': ' if prefix else ''}{_short(own)}")
    lines += [
        f"To do: {problems[-1].todo}",
        f"Where: {problems[-1].where}",
        f"This is not repeated for {QUIET // timedelta(hours=1)} hours unless it gets worse; its end is told as well.",
    ]
    return Message(f"RingCX Archive: {subject} {word}{_for(dates)}", "\n".join(lines), worst)


def _for(dates: list[str]) -> str:
    known = [date for date in dates if date]
    if not known:
        return ""
    return f" for {known[0]}" if len(known) == 1 else f" for {len(known)} dates"


def _listed(dates: list[str]) -> str:
    known = [date for date in dates if date]
    return f": {', '.join(known[:SHOWN_DATES])}{_more(len(known))}" if known else ""


def _more(count: int) -> str:
    return f" and {count - SHOWN_DATES} more" if count > SHOWN_DATES else ""


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= LONGEST_SENTENCE else f"{sentence[:LONGEST_SENTENCE]}…"


# --- memory


@dataclass(slots=True)
class _Told:
    subject: str
    date: str
    severity: str
    at: str


@dataclass(slots=True)
class _Outgoing:
    """A message on its way, and the places in ALERT_URLS (of `entries`) that have taken it."""

    title: str
    body: str
    severity: str | None
    taken: list[int] = field(default_factory=list)
    entries: int = 0


@dataclass(slots=True)
class Memory:
    """What ticks know from the ones before: how far they read, what was told when, what is still to be delivered.

    Attributes:
        position: the caller's place in what it reads; None before the first tick.
    """

    position: int | None = None
    told: dict[str, _Told] = field(default_factory=dict)
    outbox: list[_Outgoing] = field(default_factory=list)

    @classmethod
    def of(cls, text: str | None) -> Self:
        """Read what `text` gave; nothing is an empty memory."""
        if not text:
            return cls()
        kept = json.loads(text)
        return cls(
            kept["position"],
            {key: _Told(**one) for key, one in kept["told"].items()},
            [_Outgoing(**one) for one in kept["outbox"]],
        )

    def text(self) -> str:
        """The memory as text, without any address."""
        return json.dumps(asdict(self), sort_keys=True)

    def open_dates(self, subject_begins: str) -> Iterator[tuple[str, str, datetime]]:
        """Subject, date and time of what was told and is not over, of the subjects that begin so."""
        for one in self.told.values():
            if one.subject.startswith(subject_begins):
                yield one.subject, one.date, datetime.fromisoformat(one.at)

    def take(self, found: Mapping[str, Problem | None], now: datetime) -> int:
        """Put into the outbox what the news makes necessary.

        Args:
            found: by key, the problem that there is, or None for one that there is no more.
            now: aware.

        Returns: how many messages.
        """
        for key, one in list(self.told.items()):
            if now - datetime.fromisoformat(one.at) > FORGET:
                del self.told[key]
        fresh = [problem for key, problem in found.items() if problem is not None and self._is_news(key, problem, now)]
        ended = [self.told.pop(key) for key, problem in found.items() if problem is None and key in self.told]
        for problem in fresh:
            self.told[problem.key] = _Told(
                problem.subject, problem.date, str(problem.severity), now.astimezone(UTC).isoformat()
            )
        messages = [*compose(fresh), *compose_over((one.subject, one.date) for one in ended)]
        self.outbox += [_Outgoing(one.title, one.body, one.severity and str(one.severity)) for one in messages]
        return len(messages)

    def _is_news(self, key: str, problem: Problem, now: datetime) -> bool:
        told = self.told.get(key)
        if told is None or now - datetime.fromisoformat(told.at) >= QUIET:
            return True
        return problem.severity is Severity.error and told.severity != Severity.error


# --- delivery


class Destinations:
    """The addresses of ALERT_URLS, in their order.

    Raises:
        ValueError: Apprise does not know one of them; the sentence names its place, not the address.
    """

    def __init__(self, urls: SecretStr | None) -> None:
        written = [one for one in _ENTRY.split(urls.get_secret_value().strip(" ,\n\t")) if one] if urls else []
        self._services: list[tuple[str, apprise.Apprise]] = []
        with _kept_quiet():
            for place, url in enumerate(written, 1):
                service = apprise.Apprise()
                if not _silently(lambda one=service, address=url: one.add(address)):  # type: ignore[misc]
                    raise ValueError(f"ALERT_URLS: entry {place} is no address that Apprise knows; correct it.")
                self._services.append((f"entry {place} of ALERT_URLS ({url.partition('://')[0].lower()})", service))

    def __repr__(self) -> str:
        return f"Destinations({len(self._services)} entries)"

    def __len__(self) -> int:
        return len(self._services)

    def deliver(self, memory: Memory, keep: Callable[[], None]) -> int:
        """Send what is in the outbox; `keep` is called whenever something was taken.

        Returns: how many messages every entry has taken.

        Raises:
            AlertsFailed: some entry did not take one; it is kept for the next time.
        """
        refused: dict[str, int] = {}
        complete = sent = 0
        for waiting in list(memory.outbox):
            if waiting.entries != len(self):  # the setting changed: better twice than not at all
                waiting.taken, waiting.entries = [], len(self)
            for place, (name, service) in enumerate(self._services):
                if place in waiting.taken:
                    continue
                if name in refused:  # it is down: the others are not made to wait for it
                    refused[name] += 1
                    continue
                if sent >= SENT_PER_TICK:
                    continue
                sent += 1
                if _sent(service, waiting):
                    waiting.taken.append(place)
                    keep()
                else:
                    refused[name] = 1
            if len(waiting.taken) == len(self):
                memory.outbox.remove(waiting)
                complete += 1
                keep()
        if refused:
            told = " and ".join(f"{name} ({count} messages)" for name, count in refused.items())
            raise AlertsFailed(
                f"Not delivered to {told}: check that address and that its service answers. The messages are kept and"
                " tried again at the next tick."
            )
        return complete


def _sent(service: apprise.Apprise, waiting: _Outgoing) -> bool:
    message = Message(waiting.title, waiting.body, Severity(waiting.severity) if waiting.severity else None)
    with _kept_quiet():
        return _silently(
            lambda: service.notify(
                body=message.body, title=message.title, notify_type=message.kind, body_format=apprise.NotifyFormat.TEXT
            )
        )


def _silently(call: Callable[[], object]) -> bool:
    """Whether it went well; a plug-in may raise anything, with the address in its text."""
    try:
        return bool(call())
    except Exception:  # noqa: BLE001 - what it was does not matter to the message, which is kept
        return False


class _Hush(logging.Filter):
    """Drops what the libraries that deliver say, while one is delivering."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._active = 0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's own signature
        return self._active == 0

    @contextmanager
    def active(self) -> Iterator[None]:
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)  # again is harmless
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1


_HUSH = _Hush()


@contextmanager
def _kept_quiet() -> Iterator[None]:
    with _HUSH.active():
        yield
