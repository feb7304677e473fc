"""One recording: is it given to the log-in of the recordings, and is it given to anybody who has its link?

Its first bytes are read and thrown away. Links come from the reports just asked for, else from the ledger.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.ledger.files import LedgerError
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import LinkRefused, SourceError
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.ringcx.media import MediaClient, MediaFault
from pipelines.ringcx.reports.interactions import is_segment_link
from pipelines.steps.connection.lines import Line, failed, not_tried, ok, warning

_TRIES = 3
_DATES = 7
_ENOUGH = 12
_NO_LOG_IN = frozenset({"unauthorized", "forbidden"})
_PAGES = frozenset({"html_body", "json_body", "text_body"})
_UNTOLD = "could not be told whether they are open to anybody; check again later."

Link = tuple[str, str]
"""Account id, link."""


class _EnoughError(Exception):
    """The first bytes are there; the rest is not wanted."""

    def __init__(self, start: bytes) -> None:
        super().__init__("enough")
        self.start = start


class _FirstBytes(io.BytesIO):
    """Ends the fetch that writes into it as soon as a WAV would have shown itself."""

    def write(self, block: object, /) -> int:
        written = super().write(block)  # type: ignore[arg-type] # whatever a BytesIO takes
        if self.tell() >= _ENOUGH:
            raise _EnoughError(self.getvalue()[:_ENOUGH])
        return written


@dataclass(frozen=True, slots=True)
class RecordingCheck:
    """Asks for a recording with the log-in that runs use, and without any (`anonymous`).

    `has_log_in`: whether runs use one; without it the two are the same. `subject` and `plural` are what the lines call
    the recordings, `remedy` says what to do where they are refused.
    """

    media: MediaClient
    anonymous: MediaClient
    has_log_in: bool
    subject: str
    plural: str
    remedy: str

    def lines(self, links: Sequence[Link]) -> Iterator[Line]:
        """Ask for one after the other until one decides, three at most."""
        line = not_tried(
            self.subject, "no link is known yet: neither the reports just asked for nor the ledger has one."
        )
        taken: Link | None = None
        for account_id, link in links[:_TRIES]:
            line, decided = self._asked(self.media, account_id, link)
            if decided:
                taken = (account_id, link) if line.verdict == "ok" else None
                break
        yield line
        if taken is None:
            yield not_tried(
                self.plural, "no recording could be fetched, so it is unknown whether links are open to all."
            )
        else:
            yield self._is_open(*taken)

    def _asked(self, media: MediaClient, account_id: str, link: str) -> tuple[Line, bool]:
        """The line, and whether another recording would not say something else."""
        try:
            media.fetch(link, account_id, _FirstBytes())
        except _EnoughError as enough:
            if _is_wav(enough.start):
                return ok(self.subject, "is given, and is a WAV; its first bytes were read and thrown away."), True
            return warning(self.subject, "is given, but is not a WAV; run one date and look at its reasons."), False
        except MediaFault as fault:
            return self._judged(fault)
        except (LinkRefused, LimiterBroken, SourceError) as error:
            return failed(self.subject, error), True
        return warning(
            self.subject, "is given, and is shorter than any WAV; run one date and look at its reasons."
        ), False

    def _is_open(self, account_id: str, link: str) -> Line:
        """Ask for the recording that was given again, without the log-in; where none is set that was done already."""
        try:
            if self.has_log_in:
                self.anonymous.fetch(link, account_id, _FirstBytes())
        except _EnoughError as enough:
            if not _is_wav(enough.start):
                return warning(self.plural, _UNTOLD)
        except MediaFault as fault:
            if fault.reason in _NO_LOG_IN | _PAGES:
                return ok(self.plural, "are refused without the log-in of the recordings.")
            return warning(self.plural, _UNTOLD)
        except (LinkRefused, LimiterBroken, SourceError):
            return warning(self.plural, _UNTOLD)
        return warning(
            self.plural,
            "the account's recordings are open to anyone who has the link, without any log-in: keep links secret (the "
            "ledger and the reports hold them), and ask RingCentral to put the recordings behind a log-in.",
        )

    def _judged(self, fault: MediaFault) -> tuple[Line, bool]:
        said = str(fault).rstrip(".")
        if fault.by_firewall:
            remedy = "a firewall in front of the source seems to refuse it: send fewer requests, or ask RingCX"
            return failed(self.subject, f"{said}; {remedy}"), True
        if fault.reason in _NO_LOG_IN:
            return failed(self.subject, f"{said}; {self.remedy}"), True
        if fault.reason in _PAGES:
            return failed(self.subject, f"{said}; often a log-in page: {self.remedy}"), False
        if fault.reason == "redirect_not_allowed":
            remedy = "add the host it leads to to RINGCX_MEDIA_HOSTS if it is RingCX's"
            return failed(self.subject, f"{said}; {remedy}"), True
        if fault.reason == "address_not_public":
            remedy = "its name leads into a private network: check the name server and RINGCX_MEDIA_HOSTS"
            return failed(self.subject, f"{said}; {remedy}"), True
        if fault.kind == "unavailable":
            remedy = "look at the network: outbound HTTPS to the hosts of recordings"
            return failed(self.subject, f"{said}; {remedy}"), True
        return warning(self.subject, f"{said}; it may not be ready, or be purged: check again later."), False


def _is_wav(start: bytes) -> bool:
    return start[:4] in {b"RIFF", b"RF64"} and start[8:] == b"WAVE"


def ledger_links(ledger: Ledger, *, segments: bool) -> list[Link]:
    """Links of the newest dates of the ledger, those first that were given before; none where it cannot be read.

    `segments`: those of the current API instead of the reports'.
    """
    try:
        newest = ledger.recording_days()[: -_DATES - 1 : -1]
        for day in newest:
            known = [one for one in ledger.states([day]).values() if is_segment_link(one.link) is segments]
            held = [one for one in known if one.status is Status.archived]
            if held:
                return [(one.account_id, one.link) for one in islice(held, _TRIES)]
        waiting = [one for day in newest[:1] for one in ledger.pending(day) if is_segment_link(one.link) is segments]
    except LedgerError:
        return []  # its own line says so
    return [(one.account_id, one.link) for one in waiting[:_TRIES]]
