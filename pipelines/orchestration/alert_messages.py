"""Alerts: which message is sent, when, and to which address. No Dagster here; `sensors/alerts.py` finds the problems.

A message stays in the outbox until every address of `ALERT_URLS` has accepted it, so that a failed delivery is late and
not lost. The addresses hold tokens: no log and no error ever shows one.
"""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from textwrap import shorten
from zlib import crc32

import apprise
from pydantic import AwareDatetime, BaseModel, SecretStr

from pipelines.errors import ExpectedError
from pipelines.settings import SettingsError
from pipelines.steps.check.result import Level
from pipelines.wording import number

QUIET = timedelta(hours=24)
LONGEST_SENTENCE = 600
SHOWN_DATES = 10
_NOT_REPEATED = (
    f"This message is not repeated for {QUIET // timedelta(hours=1)} hours unless the problem gets worse. Another"
    " message follows when it is resolved."
)
_ENTRY = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # within an address a comma is part of it
# Their messages name an address, or the path in it that is the token.
_LOGGERS = ("apprise", "urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")


class AlertProblem(BaseModel, frozen=True):
    """A problem with one date, or with none (an empty `date`); with the severity `ok`, it is over. The texts hold no
    personal data, and are not stored.

    `subject`: what failed, the same for each date, as `step recordings`. `alerted_at`: when the last message was made.
    """

    subject: str
    date: str
    severity: Level
    sentence: str = ""
    todo: str = ""
    where: str = ""
    alerted_at: AwareDatetime = datetime.max.replace(tzinfo=UTC)

    @property
    def key(self) -> str:
        """The key that two problems share if they have the same subject and date."""
        return f"{self.subject} @ {self.date}"


class Message(BaseModel):
    """A message. `taken`: the checksums of the addresses that have accepted it."""

    title: str
    body: str
    kind: apprise.NotifyType = apprise.NotifyType.FAILURE
    taken: set[str] = set()


class AlertState(BaseModel):
    """What ticks keep: open problems, messages to deliver, and `position`, how far was read (None: nothing yet)."""

    position: int | None = None
    open_problems: dict[str, AlertProblem] = {}
    outbox: list[Message] = []

    def update(self, found: Mapping[str, AlertProblem], now: datetime) -> int:
        """Add the messages for `found` (key -> problem) to the outbox; return their number."""
        remembered = {"alerted_at": now.astimezone(UTC), "sentence": "", "todo": "", "where": ""}
        ended: list[AlertProblem] = []
        fresh: list[AlertProblem] = []
        for key, problem in found.items():
            if problem.severity is Level.ok:
                if key in self.open_problems:
                    ended.append(self.open_problems.pop(key))
            elif _is_news(problem, self.open_problems.get(key), now):
                fresh.append(problem)
                self.open_problems[key] = problem.model_copy(update=remembered)
        messages = [*_by_subject(_message, fresh), *_by_subject(_message_of_end, ended)]
        self.outbox += messages
        return len(messages)


def _is_news(problem: AlertProblem, before: AlertProblem | None, now: datetime) -> bool:
    if before is None or now - before.alerted_at >= QUIET:
        return True
    return problem.severity is Level.error and before.severity is not Level.error


def _by_subject(message: Callable[[str, list[AlertProblem]], Message], problems: list[AlertProblem]) -> list[Message]:
    ordered = sorted(problems, key=lambda problem: (problem.subject, problem.date))
    return [message(subject, list(group)) for subject, group in groupby(ordered, key=lambda problem: problem.subject)]


def _message(subject: str, problems: list[AlertProblem]) -> Message:
    is_error = any(problem.severity is Level.error for problem in problems)
    lines = [f"When: {_dates(problems) or 'now'}", "What:"]
    for problem in problems[:SHOWN_DATES]:
        sentence = shorten(problem.sentence, LONGEST_SENTENCE, placeholder="…")
        lines.append(f"- {problem.date}: {sentence}" if problem.date else f"- {sentence}")
    lines += [f"To do: {problems[-1].todo}", f"Where: {problems[-1].where}", _NOT_REPEATED]
    return Message(
        title=f"RingCX Archive: {subject} {'fails' if is_error else 'warns'}{_for(problems)}",
        body="\n".join(lines),
        kind=apprise.NotifyType.FAILURE if is_error else apprise.NotifyType.WARNING,
    )


def _message_of_end(subject: str, problems: list[AlertProblem]) -> Message:
    dates = _dates(problems)
    body = f"The problem is resolved{' for ' if dates else ''}{dates}."
    title = f"RingCX Archive: resolved: {subject}{_for(problems)}"
    return Message(title=title, body=body, kind=apprise.NotifyType.SUCCESS)


def _for(problems: list[AlertProblem]) -> str:
    count = sum(bool(problem.date) for problem in problems)
    return f" for {f'{count} dates' if count > 1 else _dates(problems)}" if count else ""


def _dates(problems: list[AlertProblem]) -> str:
    dates = [problem.date for problem in problems if problem.date]
    more = f" and {len(dates) - SHOWN_DATES} more" if len(dates) > SHOWN_DATES else ""
    return f"{', '.join(dates[:SHOWN_DATES])}{more}"


class Destinations:
    """The addresses of ALERT_URLS, in order; raises SettingsError with the position of one that Apprise cannot use."""

    def __init__(self, urls: SecretStr | None) -> None:
        # Once, and not while a message is sent: several threads tick at once.
        for name in _LOGGERS:
            logging.getLogger(name).disabled = True
        entries = _ENTRY.split(urls.get_secret_value().strip(" ,\n\t")) if urls else []
        # By a checksum of the address: if the setting changes, a new address gets every message that waits.
        self._services: dict[str, tuple[str, apprise.Apprise]] = {}
        for position, url in enumerate(filter(None, entries), 1):
            service = apprise.Apprise()
            if not _succeeds(service.add, url):
                raise SettingsError(f"ALERT_URLS: entry {position} is not an address that Apprise knows; correct it.")
            name = f"entry {position} of ALERT_URLS ({url.partition('://')[0].lower()})"
            self._services[f"{crc32(url.encode()):08x}"] = name, service

    def __len__(self) -> int:
        return len(self._services)

    def deliver(self, state: AlertState, keep: Callable[[], None]) -> int:
        """Send the messages of the outbox; return how many every entry has accepted. Call `keep` after each. Raise
        ExpectedError, with the entry's number, if one did not accept a message, which is kept for the next time.
        """
        refused: dict[str, int] = {}
        for address, (name, service) in self._services.items():
            waiting = [message for message in state.outbox if address not in message.taken]
            for taken, message in enumerate(waiting):
                if not _succeeds(service.notify, message.body, message.title, message.kind, "text"):
                    refused[name] = len(waiting) - taken  # it is down: the other entries must not wait for it
                    break
                message.taken.add(address)
                keep()
        outbox = [message for message in state.outbox if not message.taken >= self._services.keys()]
        complete, state.outbox = len(state.outbox) - len(outbox), outbox
        keep()
        if refused:
            names = " and ".join(f"{name} ({number(count, 'message')})" for name, count in refused.items())
            raise ExpectedError(
                f"Not delivered to {names}: check the address and that its service answers. The messages are kept and"
                " sent at the next tick."
            )
        return complete


def _succeeds(call: Callable[..., object], *arguments: object) -> bool:
    """Return whether the call succeeded; a plug-in may raise any error, with the address in its text."""
    try:
        return bool(call(*arguments))
    except Exception:  # noqa: BLE001 - whatever the error, the message is kept
        return False
