"""Fetching recordings: a link that may be requested leads to a whole body, or to the reason why there is none.

Every hop is checked against the allow-list, and bodies that are plainly no recordings are recognized.
"""
# ruff: noqa: N818 - named as in errors.py

import re
from dataclasses import KW_ONLY, dataclass
from typing import IO, Literal

import httpx

from pipelines.ringcx.errors import BodyBroken, BodyStopped, LinkRefused, SourceUnavailable, shown_url
from pipelines.ringcx.http.body import BombError
from pipelines.ringcx.http.client import Received, SourceClient, TooSlowError, explanation_of, origin_of
from pipelines.ringcx.links import HostList

MAX_BYTES = (1 << 32) - 1  # the most that a WAV can hold; a longer body is `too_large`
MAX_SECONDS = 1800.0  # a body that takes longer is `too_slow`
_REDIRECTS = 5
SNIFFED = 512  # a body's first bytes, which show whether it can be a recording
_FIREWALLS = ("awselb", "cloudfront", "cloudflare", "akamaighost", "bigip", "imperva", "azure-", "google frontend")
_WHOLE_RANGE = re.compile(r"bytes 0-(\d{1,18})/(\d{1,18})", re.ASCII)
RIFF_IDS = (b"RIFF", b"RIFX", b"RF64", b"BW64")  # how a WAV may begin
MediaFaultKind = Literal["not_there", "not_audio", "refused", "unavailable"]
Method = Literal["GET", "POST"]
_REFUSALS: dict[int, tuple[MediaFaultKind, str]] = {
    202: ("not_there", "still_encoding"),
    401: ("refused", "unauthorized"),
    403: ("refused", "forbidden"),
    404: ("not_there", "not_found"),
    410: ("not_there", "not_found"),
}


class MediaFault(Exception):
    """The fault that left us without a recording; `reason` is a code listed in docs/troubleshooting.md.

    Each `kind` has its own consequence: `not_there` (not yet, or no longer), `not_audio` (something else came),
    `refused` (by the source, or a redirect or address by this module), `unavailable` (the source has a problem).
    `by_firewall`: the refusal looks like one of a firewall or load balancer in front of the source (an HTML page, a
    `Server` such as `awselb/2.0`): it is about the rate of requests, not about the recording.
    """

    def __init__(
        self,
        kind: MediaFaultKind,
        reason: str,
        status: int | None = None,
        *,
        url: httpx.URL | str = "",
        by_firewall: bool = False,
    ) -> None:
        where = f" at {shown_url(url)}" if url else ""
        answer = f" (HTTP {status})" if status is not None else ""
        super().__init__(f"No recording{where}: {reason}{answer}.")
        self.kind: MediaFaultKind = kind
        self.reason = reason
        self.by_firewall = by_firewall


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MediaClient:
    """A client that fetches recordings from the allowed `hosts`; share one between all threads.

    `auth`: the log-in for the allowed hosts, which a redirect never sends to another host. `method`: of the first
    request; a redirect is followed by GET, unless it asks for the same method. `limit`: the name of the requests' rate
    limit. `ours`: an origin from the settings, not from a row, so it may be in a private network.
    """

    client: SourceClient
    hosts: HostList
    _: KW_ONLY
    auth: httpx.Auth | None
    method: Method = "GET"
    limit: str = "media"
    ours: tuple[str, str, int] | None = None

    def fetch(self, link_url: str, account_id: str, sink: IO[bytes]) -> Received:
        """Write the recording at `link_url` into `sink`, from its start.

        Raises MediaFault if no recording was received (the sink holds the bytes of an MP3 or of a body that was cut
        off); LinkRefused, before any request, if the link itself is not allowed; Stopped; and two errors that say
        nothing about this recording: CredentialsRefused and AccountUnknown.
        """
        link = self.hosts.require(link_url)
        try:
            return self.client.retry(lambda: self._follow(link, account_id, sink))
        except BodyStopped:
            raise MediaFault("unavailable", "too_slow", 200, url=link) from None
        except BodyBroken:
            raise MediaFault("not_audio", "cut_off", 200, url=link) from None
        except SourceUnavailable as gone:
            raise MediaFault("unavailable", "source_unavailable", url=link) from gone
        except LinkRefused as refusal:  # by where the host's name leads, which shows only now
            raise MediaFault("refused", refusal.reason, url=link) from None

    def _follow(self, link: httpx.URL, account_id: str, sink: IO[bytes]) -> Received:
        sink.seek(0)
        sink.truncate()
        url, auth, method = link, self.auth, self.method
        for _ in range(_REDIRECTS + 1):
            with self.client.stream(
                method,
                url,
                limit=self.limit,
                account_id=account_id,
                auth=auth,
                headers={"Accept": "audio/wav, audio/x-wav, */*;q=0.1"},
                public_only=origin_of(url) != self.ours,
            ) as response:
                if not response.has_redirect_location:
                    return self._receive(response, sink)
                target, status = self._target(response), response.status_code
            if origin_of(target) != origin_of(url):
                auth = None  # permanently: a redirect back does not restore it
            if status not in {307, 308}:
                method = "GET"
            url = target
        raise MediaFault("refused", "redirect_not_allowed", status, url=link)

    def _target(self, response: httpx.Response) -> httpx.URL:
        where = response.url
        try:
            where = where.join(response.headers["Location"])
            return self.hosts.require(str(where))
        except (httpx.InvalidURL, LinkRefused) as error:
            raise MediaFault("refused", "redirect_not_allowed", response.status_code, url=where) from error

    def _receive(self, response: httpx.Response, sink: IO[bytes]) -> Received:
        status, url = response.status_code, response.url
        # Some servers answer so although no range was requested.
        whole = _WHOLE_RANGE.fullmatch(response.headers.get("Content-Range", "")) if status == 206 else None
        if status != 200 and (whole is None or int(whole[1]) + 1 != int(whole[2])):
            raise _refusal(response)
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > MAX_BYTES and "Transfer-Encoding" not in response.headers:
            raise MediaFault("not_audio", "too_large", status, url=url)
        try:
            received = self.client.receive(response, sink.write, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)
        except TooSlowError:
            raise MediaFault("unavailable", "too_slow", status, url=url) from None
        except BombError:
            raise MediaFault("not_audio", "too_large", status, url=url) from None
        if whole and received.size != int(whole[2]):
            raise httpx.RemoteProtocolError("the range is not as long as it says")
        sink.seek(0)
        if reason := not_audio(sink.read(SNIFFED)):
            raise MediaFault("not_audio", reason, status, url=url)
        return received


def _refusal(response: httpx.Response) -> MediaFault:
    status = response.status_code
    explanation = explanation_of(response)
    kind, reason = _REFUSALS.get(status, ("not_there", f"http_{status}"))
    media_type, server = (response.headers.get(name, "").lower() for name in ("Content-Type", "Server"))
    is_page = "html" in media_type or explanation.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    by_firewall = status in {401, 403} and (is_page or server.startswith(_FIREWALLS))
    return MediaFault(kind, reason, status, url=response.url, by_firewall=by_firewall)


def not_audio(start: bytes) -> str | None:
    """Return a code for a body whose bytes cannot be a WAV, whatever its declared type."""
    if not start:
        return "empty_body"
    if start[:4] in RIFF_IDS:
        return None  # `archive.wav` finds what is wrong with it
    layer = start[1] & 0xE6 if len(start) > 1 and start[0] == 0xFF else 0
    if start.startswith(b"ID3") or layer in {0xE2, 0xE4}:  # a frame of MPEG layer III or II
        return "mp3_body"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "html_body"
    if text.startswith((b"{", b"[")):
        return "json_body"
    decoded = start.decode("utf-8", "ignore")  # the last letter may be cut
    is_whole = len(decoded.encode()) > len(start) - 4
    return "text_body" if is_whole and all(char.isprintable() or char.isspace() for char in decoded) else None
