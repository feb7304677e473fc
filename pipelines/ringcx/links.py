"""The links of reports, which are not trusted: read, and allowed or refused. Also builds the current API's links.

`media.py` sends the requests, and checks the allow-list at every hop.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Self
from urllib.parse import quote, unquote_to_bytes

import httpx

from pipelines.ringcx.errors import LinkRefused, shown_url
from pipelines.ringcx.http.addresses import as_address, is_loopback
from pipelines.ringcx.http.client import origin_of

LONGEST_LINK = 4096
NO_LINK = "(?i)^[ \t\r\n\u00a0]*(null|none|nil|n/?a|undefined|-+)?[ \t\r\n\u00a0]*$"
"""The content of a cell that names no recording."""
_NO_LINK = re.compile(NO_LINK)
# Blanks within a link belong to it (a published sample has some): only before the next address are they a separator.
_BETWEEN = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_UNREADABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # httpx takes no address with one of these
# Parameters of a signed link, in lower case: Amazon's, Google's, Azure's, CloudFront's, and tokens.
_TEMPORARY = re.compile(
    r"x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|sig|expires|se|st|sp|sv|sr|policy|key-pair-id"
    r"|(?:.*[-_])?token"
)
_MAX_ID_LENGTH = 512  # those of the source have under 70 characters
_RECORDING_PATH = re.compile(r"/recordings/dialogs/([^/?#]+)/segments/([^/?#]+)", re.ASCII)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class RecordingLink:
    """The content of a link: its `url` without white space, and `<account>/<path of its file at the source>`, whatever
    else the link has. The path is decoded once, and untrusted: never use it as one.
    """

    url: str = field(repr=False)  # some accounts' links work for anyone
    recording_id: str


def links_in(cell: str | None) -> list[str]:
    """Return the links in a cell of a report: none for words such as `null`, and each one of several."""
    if cell and cell.startswith("http") and cell.count("://") == 1:  # nearly all of them
        return [cell]
    return [link for link in _BETWEEN.split(cell or "") if not _NO_LINK.match(link)]


def parse_link(raw: str, account_id: str) -> RecordingLink:
    """Read a link from a report; blanks inside, `&amp;`, the order of the query and a final slash do not matter.

    A link without `file` in its query is identified by its path and a hash of its query, which may hold a secret.
    Signatures and tokens are left out: they differ each time. Host and credentials are not judged here, so a recording
    has the same id whichever hosts are allowed (`HostList`). Raises LinkRefused with `too_long`, `malformed`,
    `not_https` (neither https nor http), `no_file` or `several_files`.
    """
    if len(raw) > LONGEST_LINK:
        raise LinkRefused("too_long")
    link = _AMPERSAND.sub("&", "".join(raw.split()))
    file_path = _file_path(link)
    if not file_path.strip("/"):
        raise LinkRefused("no_file")
    return RecordingLink(link, f"{account_id}/{file_path}")


def _file_path(link: str) -> str:
    if _UNREADABLE.search(link):
        raise LinkRefused("malformed")
    # Apart from the query, which differs from link to link: httpx takes ten times as long to read it.
    address, _, query = link.partition("#")[0].partition("?")
    url = _parsed(address)
    for separators in ("&", "[&;]"):  # a file's name may hold a semicolon, and one may stand where `&` should
        files = {value for name, value in _parameters(query, separators) if name == "file" and value}
        if len(files) > 1:
            raise LinkRefused("several_files")
        if files:
            return files.pop()
    path = _decoded(url.raw_path.decode("ascii")).lstrip("/")
    lasting = [
        f"{name}={value}"
        for name, value in sorted(_parameters(query, "[&;]"))
        if name and not _TEMPORARY.fullmatch(name)
    ]
    return f"{path}?{sha256('&'.join(lasting).encode()).hexdigest()[:32]}" if lasting else path


def _parameters(query: str, separators: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in re.split(separators, query)]
    return [(_decoded(name).lower(), _decoded(value)) for name, _, value in parts]


def _decoded(value: str) -> str:
    if "%" not in value:
        return value
    raw = unquote_to_bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class HostList:
    """The hosts from which recordings may be fetched.

    An entry is `host`, `host:port`, `*.domain` (sub-domains at any depth, not the domain itself) or `[::1]:8080`; any
    other raises ValueError. Without a port, the scheme's own port is meant, or any port on this machine.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = [_Entry.parse(entry.strip()) for entry in entries if entry.strip()]

    def require(self, url: str) -> httpx.URL:
        """Return `url`, parsed, if it may be requested: https (http on this machine), no credentials, a listed host;
        otherwise raise LinkRefused with `malformed`, `credentials_in_url`, `not_https`, `host_not_allowed`.
        """
        parsed = _parsed(url)
        if parsed.userinfo:
            raise LinkRefused("credentials_in_url")
        if parsed.scheme != "https" and not is_loopback(_folded(parsed)):
            raise LinkRefused("not_https")
        if not any(entry.covers(parsed) for entry in self._entries):
            raise LinkRefused(
                "host_not_allowed",
                f"Recordings are not fetched from {shown_url(url)}; if that host belongs to RingCX, add it to"
                " RINGCX_MEDIA_HOSTS.",
            )
        return parsed


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    port: int | None
    is_domain: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            url = _parsed(f"https://{text.removeprefix('*.')}")
        except LinkRefused:
            url = httpx.URL()
        if url.raw_path != b"/" or url.fragment or url.userinfo or not url.host:
            raise ValueError(f"RINGCX_MEDIA_HOSTS: {text!r} is not host, host:port or *.domain.")
        port = origin_of(url)[2] if re.search(r":\d+$", text) else None
        return cls(_folded(url), port, text.startswith("*."))

    def covers(self, url: httpx.URL) -> bool:
        host = _folded(url)
        is_below = host.endswith(f".{self.host}") and as_address(host) is None  # 127.0.0.1 is not below 0.0.1
        if not (is_below if self.is_domain else host == self.host):
            return False
        if self.port is not None:
            return origin_of(url)[2] == self.port
        return url.port is None or is_loopback(host)


@lru_cache(maxsize=256)
def _parsed(text: str) -> httpx.URL:
    """Parse an address as httpx does, so that the address that is checked is the address that is requested."""
    try:
        url = httpx.URL(text)
        has_host = bool(url.host)  # httpx decodes it for each request, and `xn--` before nonsense cannot be decoded
    except (httpx.InvalidURL, ValueError):
        raise LinkRefused("malformed") from None
    if url.scheme not in {"http", "https", ""}:
        raise LinkRefused("not_https")
    host = _folded(url)
    if not url.scheme or not has_host or not (":" in host or _HOST.fullmatch(host)):
        raise LinkRefused("malformed")
    return url


def _folded(url: httpx.URL) -> str:
    """Return the host in its form for comparison: IDNA, lower case, without the root's dot."""
    host = url.raw_host.decode("ascii").removesuffix(".")
    return str(as_address(host) or host)


def segment_recording_id(account_id: str, dialog_id: str, segment_id: str) -> str:
    """Return `<account>/<dialogId>/<segmentId>`, with both ids percent-encoded except letters, digits and `-._~`; raise
    LinkRefused with `no_segment` (an id is empty), `malformed` (it cannot be part of an address).
    """
    return f"{account_id}/{_part(dialog_id)}/{_part(segment_id)}"


@dataclass(frozen=True, slots=True)
class SegmentLinks:
    """The addresses of a RingCentral account's recordings in the current API, at `base_url` (`RINGCX_CURRENT_URL`)."""

    base_url: str
    rc_account_id: str

    def link(self, account_id: str, dialog_id: str, segment_id: str) -> str:
        """Return the address of a segment's recording; raise LinkRefused like `segment_recording_id`."""
        account_url = sub_account_url(self.base_url, self.rc_account_id, account_id)
        return f"{account_url}/recordings/dialogs/{_part(dialog_id)}/segments/{_part(segment_id)}"

    def owns(self, link: str, account_id: str) -> bool:
        """Return whether `link` is the address of a recording of this sub-account under the current settings."""
        account_url = sub_account_url(self.base_url, self.rc_account_id, account_id)
        if not link.startswith(account_url):
            return False
        ids = _RECORDING_PATH.fullmatch(link.removeprefix(account_url))
        return ids is not None and not {ids[1], ids[2]} & {".", ".."}


def sub_account_url(base_url: str, rc_account_id: str, account_id: str, version: str = "v1") -> str:
    """Return the address of a sub-account in the current API."""
    account, sub_account = quote(rc_account_id, safe=""), quote(account_id, safe="")
    return f"{base_url.rstrip('/')}/cx/integration/{version}/accounts/{account}/sub-accounts/{sub_account}"


def is_segment_link(link: str) -> bool:
    """Return whether an address has the form of a segment recording's address, at any host."""
    return _RECORDING_PATH.search(link) is not None


def _part(text: str) -> str:
    if not text:
        raise LinkRefused("no_segment")
    try:
        part = quote(text, safe="")
    except UnicodeEncodeError:
        raise LinkRefused("malformed") from None
    if len(part) > _MAX_ID_LENGTH or part in {".", ".."}:
        raise LinkRefused("malformed")
    return part
