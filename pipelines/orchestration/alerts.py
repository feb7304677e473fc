"""Telling people what is wrong: which message, when, and to whom. No Dagster here; `sensors/alerts.py` feeds it.

What goes wrong in the same place is one message that lists its dates, never one a date or a recording. A problem that
persists is not repeated for a day, unless a warning becomes an error; when it ends, one message says so. A message
stays in the outbox until every address of `ALERT_URLS` took it, so that a delivery that fails is late and not lost.
Delivery is Apprise's. The addresses hold tokens: no log and no error ever shows one.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby

import apprise
from pydantic import AwareDatetime, BaseModel, SecretStr

QUIET = timedelta(hours=24)
FORGET = timedelta(days=90)  # of a date that nobody looked at again
LONGEST_SENTENCE = 600
SHOWN_DATES = 10
SENT_PER_TICK = 20  # a service that hangs takes eight seconds a message
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ENTRY = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # within an address a comma is part of it
# Their messages name an address, or the path in it that is the token.
_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")


class AlertsFailed(Exception):  # noqa: N818 - the verdict on a tick, whose text is what the tick shows
    """Some messages could not be delivered; they are kept. The text names the entry of ALERT_URLS by its place."""


class Severity(StrEnum):
    """`warning`: somebody should look. `error`: recordings are late, lost or unknown, or nothing works."""

    warning = "warning"
    error = "error"


_KINDS = {
    None: apprise.NotifyType.SUCCESS,
    Severity.warning: apprise.NotifyType.WARNING,
    Severity.error: apprise.NotifyType.FAILURE,
}


class Problem(BaseModel, frozen=True):
    """One thing that is wrong on one date. What is remembered of it has no words, but when people were told.

    Attributes:
        subject: what failed, the same for every date: `check recordings/every_link_is_held`, `step recordings`.
        date: the date that is concerned; empty where there is none.
        severity: how bad.
        sentence: what is wrong, with the counts. No personal data.
        todo: what a person does about it.
        where: where to look: an address of the UI, or words.
        told_at: when people were told.
    """

    subject: str
    date: str
    severity: Severity
    sentence: str = ""
    todo: str = ""
    where: str = ""
    told_at: AwareDatetime = datetime.max.replace(tzinfo=UTC)

    @property
    def key(self) -> str:
        """What makes two problems one."""
        return problem_key(self.subject, self.date)


def problem_key(subject: str, date: str) -> str:
    """The key under which a problem is remembered."""
    return f"{subject} @ {date}"


class Message(BaseModel):
    """What is sent; without a severity it is good news. `taken`: the entries of ALERT_URLS that have it."""

    title: str
    body: str
    severity: Severity | None
    taken: set[str] = set()


class Memory(BaseModel):
    """What ticks know from the ones before: what was told when, and what is still to be delivered.

    `position` is the caller's place in what it reads, None before the first tick; `entries` how many ALERT_URLS had.
    """

    position: int | None = None
    told: dict[str, Problem] = {}
    outbox: list[Message] = []
    entries: int = 0

    def take(self, found: Mapping[str, Problem | None], now: datetime) -> int:
        """Put into the outbox what the news makes necessary.

        Args:
            found: by key, the problem that there is, or None for one that there is no more.
            now: aware.

        Returns: how many messages.
        """
        self.told = {key: one for key, one in self.told.items() if now - one.told_at <= FORGET}
        fresh = [problem for key, problem in found.items() if problem is not None and self._is_news(key, problem, now)]
        ended = [self.told.pop(key) for key, problem in found.items() if problem is None and key in self.told]
        at = now.astimezone(UTC)
        self.told |= {
            one.key: Problem(subject=one.subject, date=one.date, severity=one.severity, told_at=at) for one in fresh
        }
        messages = [
            *(_message(subject, problems) for subject, problems in _by_subject(fresh)),
            *(_message_of_end(subject, told) for subject, told in _by_subject(ended)),
        ]
        self.outbox += messages
        return len(messages)

    def _is_news(self, key: str, problem: Problem, now: datetime) -> bool:
        told = self.told.get(key)
        if told is None or now - told.told_at >= QUIET:
            return True
        return problem.severity is Severity.error and told.severity is not Severity.error


def _by_subject(them: list[Problem]) -> list[tuple[str, list[Problem]]]:
    ordered = sorted(them, key=lambda one: (one.subject, one.date))
    return [(subject, list(group)) for subject, group in groupby(ordered, key=lambda one: one.subject)]


def _message(subject: str, problems: list[Problem]) -> Message:
    worst = Severity.error if any(one.severity is Severity.error for one in problems) else Severity.warning
    lines = [f"When: {_listed(problems) or 'now'}", "What:"]
    for sentence, group in groupby(problems[:SHOWN_DATES], key=lambda one: _DATE.sub("<date>", one.sentence)):
        same = list(group)
        dates = ", ".join(one.date for one in same if one.date)
        said = (same[0].sentence if len(same) == 1 else sentence)[:LONGEST_SENTENCE]
        lines.append(f"- {dates}{': ' if dates else ''}{said}{'…' if len(said) == LONGEST_SENTENCE else ''}")
    lines += [
        f"To do: {problems[-1].todo}",
        f"Where: {problems[-1].where}",
        (
            f"This message is not repeated for {QUIET // timedelta(hours=1)} hours unless the problem gets worse. "
            "You will be told when it is over."
        ),
    ]
    word = "fails" if worst is Severity.error else "warns"
    return Message(title=f"RingCX Archive: {subject} {word}{_for(problems)}", body="\n".join(lines), severity=worst)


def _message_of_end(subject: str, told: list[Problem]) -> Message:
    dates = _listed(told)
    body = f"It is in order again{': ' if dates else ''}{dates}."
    return Message(title=f"RingCX Archive: over: {subject}{_for(told)}", body=body, severity=None)


def _for(them: list[Problem]) -> str:
    dates = [one.date for one in them if one.date]
    return f" for {dates[0] if len(dates) == 1 else f'{len(dates)} dates'}" if dates else ""


def _listed(them: list[Problem]) -> str:
    dates = [one.date for one in them if one.date]
    more = f" and {len(dates) - SHOWN_DATES} more" if len(dates) > SHOWN_DATES else ""
    return f"{', '.join(dates[:SHOWN_DATES])}{more}"


class Destinations:
    """The addresses of ALERT_URLS, in their order.

    Raises:
        ValueError: Apprise does not know one of them; the sentence names its place, not the address.
    """

    def __init__(self, urls: SecretStr | None) -> None:
        # For good, and not while a message is sent: several threads tick at once.
        for name in _TALKATIVE:
            logging.getLogger(name).disabled = True
        written = [one for one in _ENTRY.split(urls.get_secret_value().strip(" ,\n\t")) if one] if urls else []
        self._services: dict[str, apprise.Apprise] = {}
        for place, url in enumerate(written, 1):
            service = apprise.Apprise()
            if not _succeeds(service.add, url):
                raise ValueError(f"ALERT_URLS: entry {place} is no address that Apprise knows; correct it.")
            self._services[f"entry {place} of ALERT_URLS ({url.partition('://')[0].lower()})"] = service

    def __repr__(self) -> str:
        return f"Destinations({len(self)} entries)"

    def __len__(self) -> int:
        return len(self._services)

    def deliver(self, memory: Memory, keep: Callable[[], None]) -> int:
        """Send what is in the outbox; `keep` is called whenever something was taken.

        Returns: how many messages every entry has taken.

        Raises:
            AlertsFailed: some entry did not take one; it is kept for the next time.
        """
        refused: Counter[str] = Counter()
        complete = sent = 0
        if memory.entries != len(self):  # the setting changed: better twice than not at all
            memory.entries = len(self)
            for message in memory.outbox:
                message.taken.clear()
        for message in list(memory.outbox):
            for name, service in self._services.items():
                if name in message.taken:
                    continue
                if name in refused:  # it is down: the others are not made to wait for it
                    refused[name] += 1
                elif sent < SENT_PER_TICK:
                    sent += 1
                    if _succeeds(service.notify, message.body, message.title, _KINDS[message.severity], "text"):
                        message.taken.add(name)
                        keep()
                    else:
                        refused[name] = 1
            if message.taken >= self._services.keys():
                memory.outbox.remove(message)
                complete += 1
                keep()
        if refused:
            told = " and ".join(f"{name} ({count} messages)" for name, count in refused.items())
            raise AlertsFailed(
                f"Not delivered to {told}: check that address and that its service answers. The messages are kept and"
                " tried again at the next tick."
            )
        return complete


def _succeeds(call: Callable[..., object], *arguments: object) -> bool:
    """Whether it went well; a plug-in may raise anything, with the address in its text."""
    try:
        return bool(call(*arguments))
    except Exception:  # noqa: BLE001 - what it was does not matter to the message, which is kept
        return False
