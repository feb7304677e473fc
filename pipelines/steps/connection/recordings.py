"""The check of one recording by its first bytes: may the log-in fetch it, and may anyone who has its link?"""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

from pipelines.errors import ExpectedError
from pipelines.ledger.files import LedgerError
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.links import is_segment_link
from pipelines.ringcx.media import RIFF_IDS, SNIFFED, MediaClient, MediaFault, not_audio
from pipelines.steps.connection.result import Graded, Result, check

_LINKS = 3
_DATES = 7
_NO_LOG_IN = frozenset({"unauthorized", "forbidden"})
_PAGES = frozenset({"html_body", "json_body", "text_body"})
_NETWORK = "check the network: outbound HTTPS to the hosts of recordings"
_FIREWALL = "a firewall in front of the source seems to refuse it: send fewer requests, or ask RingCX"
_REMEDIES = {
    "redirect_not_allowed": "links redirect there; if that host belongs to RingCX, add it to RINGCX_MEDIA_HOSTS",
    "address_not_public": "its name leads to a private network: check DNS and RINGCX_MEDIA_HOSTS",
    "source_unavailable": _NETWORK,
    "too_slow": _NETWORK,
}

AccountLink = tuple[str, str]
"""An account id and a link."""


class _FirstBytes(io.BytesIO):
    """A sink that ends the fetch with EOFError once it has what tells a web page from a recording."""

    def write(self, block: object, /) -> int:
        written = super().write(block)  # type: ignore[arg-type] # whatever a BytesIO takes
        if self.tell() >= SNIFFED:
            raise EOFError
        return written


@dataclass(slots=True)
class RecordingCheck:
    """A check that requests a recording with the log-in of runs (if `has_log_in`) and without any (`anonymous`).

    `subject` and `plural` name the recordings in the results; `remedy` is for a refusal.
    """

    media: MediaClient
    anonymous: MediaClient
    has_log_in: bool
    subject: str
    plural: str
    remedy: str
    _given: AccountLink | None = field(default=None, init=False)

    def results(self, links: Sequence[AccountLink]) -> Iterator[Result]:
        """Yield the results with the log-in, then without. A missing one proves little: at most three are tried."""
        why = "" if links else "no link is known yet: neither the reports just read nor the ledger has one"
        yield check(self.subject, lambda: self._with_log_in(links[:_LINKS]), not_tried=why)
        why = "" if self._given else "no recording could be fetched, so it is unknown whether links are open to all"
        yield check(self.plural, self._without_log_in, not_tried=why)

    def _with_log_in(self, links: Sequence[AccountLink]) -> Graded:
        outcome: Graded = "not tried", ""
        for link in links:
            try:
                if _is_wav(self.media, link):
                    self._given = link
                    return "ok", "could be fetched, and is a WAV; its first bytes were read and discarded"
                outcome = "warning", "could be fetched, but is not a WAV; run a date and check its reasons"
            except MediaFault as fault:
                outcome = self._explained(fault)
                if outcome[0] == "failed" and fault.reason not in _PAGES:
                    return outcome
        return outcome

    def _without_log_in(self) -> Graded:
        """Request the received recording once more; if runs use no log-in, that was done already."""
        unknown = "it is unknown whether they are open to anyone; check again later"
        try:
            if self._given and self.has_log_in and not _is_wav(self.anonymous, self._given):
                return "warning", unknown
        except (ExpectedError, LinkRefused, MediaFault) as error:
            if isinstance(error, MediaFault) and error.reason in _NO_LOG_IN | _PAGES:
                return "ok", "are refused without the log-in for recordings"
            return "warning", unknown
        return "warning", (
            "anyone who has a link can download its recording without a log-in: keep links secret (the ledger and the "
            "reports contain them), and ask RingCentral to put the recordings behind a log-in"
        )

    def _explained(self, fault: MediaFault) -> Graded:
        remedies = _REMEDIES | dict.fromkeys(_NO_LOG_IN, self.remedy)
        remedies |= dict.fromkeys(_PAGES, f"often a log-in page: {self.remedy}")
        found = str(fault).rstrip(".")
        if fault.by_firewall:
            return "failed", f"{found}; {_FIREWALL}"
        if fault.reason in remedies:
            return "failed", f"{found}; {remedies[fault.reason]}"
        return "warning", f"{found}; it may not be ready yet, or may have been purged: check again later"


def _is_wav(media: MediaClient, link: AccountLink) -> bool:
    body = _FirstBytes()
    with suppress(EOFError):
        media.fetch(link[1], link[0], body)
    start = body.getvalue()
    if (reason := not_audio(start)) in _PAGES:
        raise MediaFault("not_audio", reason, 200, url=link[1])
    return start[:4] in RIFF_IDS and start[8:12] == b"WAVE"


def ledger_links(ledger: Ledger, *, segments: bool) -> list[AccountLink]:
    """Return links of archived recordings of the newest date that has any, or else of pending ones, which the source
    may not have yet; `segments`: of the current API.
    """
    with suppress(LedgerError):
        newest = ledger.days("recording_states")[: -_DATES - 1 : -1]
        for status, day in product((Status.archived, Status.pending), newest):
            states = [state for state in ledger.states([day]).values() if state.status is status]
            if found := [state for state in states if is_segment_link(state.link) == segments]:
                return [(state.account_id, state.link) for state in found[:_LINKS]]
    return []
