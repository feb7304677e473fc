"""Recordings: from a link that may be requested to a body that arrived whole, or to the name of what came instead.

Whether the bytes are a good WAV is decided later, by `archive.wav`; whether to try again, by the caller. Here a host is
held against the allow-list at every hop, and what is plainly no recording is told apart.
"""
# ruff: noqa: N818 - verdicts, as in errors.py

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

import httpx

from pipelines.ringcx.errors import BodyBroken, LinkRefused, SourceUnavailable, place
from pipelines.ringcx.http.client import (
    BombError,
    SourceClient,
    is_framed,
    origin_of,
    raise_if_account_unknown,
    start_of,
    unpacked,
)
from pipelines.ringcx.links import HostList

MEDIA_LIMIT = "media"
_BLOCK = 128 << 10  # measured: smaller ones wait for the GIL too often, gathering larger ones copies too much
_SNIFF = 512
_REDIRECTS = 5
_FIREWALLS = ("awselb", "cloudfront", "cloudflare", "akamaighost", "bigip", "imperva", "azure-", "google frontend")
_SAME_METHOD = frozenset({307, 308})
_RIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_WHOLE_RANGE = re.compile(r"bytes 0-(\d{1,18})/(\d{1,18})", re.ASCII)
FaultKind = Literal["not_there", "not_audio", "refused", "unavailable"]
Method = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body that was received.

    Attributes:
        size: bytes.
        sha256: in hexadecimal.
        media_type: as declared, without parameters, in lower case; empty when nothing was declared.
        framed: whether HTTP said where the body ends, by its length or in chunks. If not, a connection that broke in
            the middle looks like the end, and only the bytes themselves can prove that nothing is missing.
    """

    size: int
    sha256: str
    media_type: str
    framed: bool


class MediaFault(Exception):
    """Why there is no recording. Each kind asks for something else.

    Attributes:
        kind: `not_there` (yet, or any more), `not_audio` (something else came), `refused` (by the source; a redirect
            or an address by us), `unavailable` (the source is not well).
        reason: not_there: `not_found`, `still_encoding`, `http_<status>`; not_audio: `empty_body`, `html_body`,
            `json_body`, `mp3_body`, `text_body`, `cut_off`, `too_large`; refused: `unauthorized`, `forbidden`,
            `redirect_not_allowed`, `address_not_public`; unavailable: `source_unavailable`, `too_slow`.
        status: of the answer, if there was one.
        by_firewall: the refusal reads like one of a firewall or load balancer in front of the source (an HTML page, a
            `Server` such as `awselb/2.0`): it is about how often we ask, and not about the recording.
    """

    def __init__(
        self,
        kind: FaultKind,
        reason: str,
        status: int | None = None,
        *,
        url: httpx.URL | str = "",
        by_firewall: bool = False,
    ) -> None:
        where = f" at {place(url)}" if url else ""
        answer = f" (HTTP {status})" if status is not None else ""
        super().__init__(f"No recording{where}: {reason}{answer}.")
        self.kind: FaultKind = kind
        self.reason = reason
        self.status = status
        self.by_firewall = by_firewall


class MediaClient:
    """Fetches recordings; share one over all threads.

    Args:
        hosts: the allow-list.
        auth: for the hosts on it; never sent on to another one by a redirect.
        method: of the first request; a redirect is followed by GET, unless it asks for the same method again.
        ours: an origin that the settings name and no row does: it may be in a private network.
        max_bytes: a longer body is `too_large`. The default is the most that a WAV can hold.
        max_seconds: a body that takes longer is `too_slow`.
    """

    def __init__(
        self,
        client: SourceClient,
        hosts: HostList,
        *,
        auth: httpx.Auth | None,
        method: Method = "GET",
        limit: str = MEDIA_LIMIT,
        ours: tuple[str, str, int] | None = None,
        max_bytes: int = (1 << 32) - 1,
        max_seconds: float = 1800,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._hosts = hosts
        self._auth = auth
        self._method = method
        self._limit = limit
        self._ours = ours
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._clock = clock

    def fetch(self, link_url: str, account_id: str, sink: IO[bytes]) -> Fetched:
        """Write what the link gives into `sink` from its start; it holds the whole body when this returns.

        Raises:
            MediaFault: there is no recording; the sink holds what was received, of another kind of body nothing.
            LinkRefused: the link itself is not allowed; nothing was requested.
            CredentialsRefused: the log-in was refused: not this recording's fault.
            AccountUnknown: the source does not know the RingCentral account: not this recording's fault either.
            Stopped: the stop event was set.
        """
        link = self._hosts.require(link_url)
        try:
            return self._client.retry(lambda: self._follow(link, account_id, sink))
        except BodyBroken as broken:
            if broken.slow:
                raise MediaFault("unavailable", "too_slow", 200, url=link) from None
            raise MediaFault("not_audio", "cut_off", 200, url=link) from None
        except SourceUnavailable as gone:
            raise MediaFault("unavailable", "source_unavailable", url=link) from gone
        except LinkRefused as refusal:  # by where the host's name leads, which shows only now
            raise MediaFault("refused", refusal.reason, url=link) from None

    def _follow(self, link: httpx.URL, account_id: str, sink: IO[bytes]) -> Fetched:
        sink.seek(0)
        sink.truncate()
        url, auth, method = link, self._auth, self._method
        for _ in range(_REDIRECTS + 1):
            with self._client.stream(
                method,
                url,
                limit=self._limit,
                account_id=account_id,
                auth=auth,
                headers={"Accept": "audio/wav, audio/x-wav, */*;q=0.1"},
                public_only=origin_of(url) != self._ours,
            ) as response:
                if not response.has_redirect_location:
                    return self._receive(response, sink)
                target, status = self._target(response), response.status_code
            if origin_of(target) != origin_of(url):
                auth = None  # for good: a redirect back does not earn it again
            if status not in _SAME_METHOD:
                method = "GET"
            url = target
        raise MediaFault("refused", "redirect_not_allowed", status, url=link)

    def _target(self, response: httpx.Response) -> httpx.URL:
        try:
            return self._hosts.require(str(response.url.join(response.headers["Location"])))
        except (httpx.InvalidURL, LinkRefused) as error:
            raise MediaFault("refused", "redirect_not_allowed", response.status_code, url=response.url) from error

    def _receive(self, response: httpx.Response, sink: IO[bytes]) -> Fetched:
        status, url = response.status_code, response.url
        whole = _WHOLE_RANGE.fullmatch(response.headers.get("Content-Range", "")) if status == 206 else None
        if status != 200 and (whole is None or int(whole[1]) + 1 != int(whole[2])):
            raise self._refusal(response)
        declared = response.headers.get("Content-Length", "").partition(",")[0]
        length = int(whole[2]) if whole else int(declared) if declared.isdecimal() else 0
        if length > self._max_bytes and "Transfer-Encoding" not in response.headers:
            raise MediaFault("not_audio", "too_large", status, url=url)
        try:
            fetched = self._copy(response, sink)
        except BombError:
            raise MediaFault("not_audio", "too_large", status, url=url) from None
        if fetched.size == 0:
            raise MediaFault("not_audio", "empty_body", status, url=url)
        if whole and fetched.size != length:
            raise httpx.RemoteProtocolError("the range is not as long as it says")
        return fetched

    @staticmethod
    def _refusal(response: httpx.Response) -> MediaFault:
        status = response.status_code
        verdicts: dict[int, tuple[FaultKind, str]] = {
            202: ("not_there", "still_encoding"),
            401: ("refused", "unauthorized"),
            403: ("refused", "forbidden"),
            404: ("not_there", "not_found"),
            410: ("not_there", "not_found"),
        }
        kind, reason = verdicts.get(status, ("not_there", f"http_{status}"))
        explanation = start_of(response)
        raise_if_account_unknown(response, explanation)
        by_firewall = status in {401, 403} and _is_by_firewall(response, explanation)
        return MediaFault(kind, reason, status, url=response.url, by_firewall=by_firewall)

    def _copy(self, response: httpx.Response, sink: IO[bytes]) -> Fetched:
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        status, url = response.status_code, response.url
        sha256, size, reason = hashlib.sha256(), 0, None
        for block in _gathered(self._in_time(response)):
            if size == 0:
                reason = _not_audio(media_type, block[:_SNIFF])
            if reason and reason != "mp3_body":  # an MP3 is the call all the same: its bytes may be kept
                raise MediaFault("not_audio", reason, status, url=url)
            size += len(block)
            if size > self._max_bytes:
                raise MediaFault("not_audio", "too_large", status, url=url)
            sha256.update(block)
            sink.write(block)
        if reason:
            raise MediaFault("not_audio", reason, status, url=url)
        return Fetched(size, sha256.hexdigest(), media_type, is_framed(response))

    def _in_time(self, response: httpx.Response) -> Iterator[bytes]:
        started = self._clock()

        def check() -> None:
            self._client.check_stop()
            if self._clock() - started > self._max_seconds:
                raise MediaFault("unavailable", "too_slow", response.status_code, url=response.url)

        for block in unpacked(response, check):
            check()
            yield block


def _gathered(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes, small pieces joined to blocks."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def _is_by_firewall(response: httpx.Response, explanation: bytes) -> bool:
    media_type, server = (response.headers.get(name, "").lower() for name in ("Content-Type", "Server"))
    is_page = "html" in media_type or explanation.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    return is_page or server.startswith(_FIREWALLS)


def _not_audio(media_type: str, start: bytes) -> str | None:
    """What a body is that cannot be a WAV. Its bytes decide; the declared type only where they say nothing."""
    if start[:4] in _RIFF:
        return None  # `archive.wav` says what is wrong with it
    layer = start[1] & 0xE6 if len(start) > 1 and start[0] == 0xFF else 0
    if start.startswith(b"ID3") or layer in {0xE2, 0xE4}:  # a frame of MPEG layer III or II
        return "mp3_body"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "html_body"
    if text.startswith((b"{", b"[")):
        return "json_body"
    kind, _, subtype = media_type.partition("/")
    if subtype in {"html", "xhtml+xml"}:
        return "html_body"
    if subtype == "json" or subtype.endswith("+json"):
        return "json_body"
    if subtype in {"mpeg", "mp3", "mpeg3", "x-mpeg-3", "x-mp3"} and kind == "audio":
        return "mp3_body"
    return "text_body" if kind == "text" or subtype == "xml" or _is_text(start) else None


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", "ignore")  # the last letter may be cut
    return len(text.encode()) > len(start) - 4 and all(char.isprintable() or char.isspace() for char in text)
