"""Links that nobody vouches for: what they say, and whether they may be requested.

Where a link leads is held against the allow-list at every hop; what is sent there is `media.py`'s business.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import httpx

from pipelines.ringcx.errors import LinkRefused, place
from pipelines.ringcx.http.addresses import is_address, is_loopback
from pipelines.ringcx.http.client import origin_of

LONGEST_LINK = 4096
NO_LINK = "(?i)^[ \t\r\n\u00a0]*(null|none|nil|n/?a|undefined|-+)?[ \t\r\n\u00a0]*$"
"""What a cell holds that names no recording."""
_NO_LINK = re.compile(NO_LINK)
# Blanks within a link belong to it (a published sample has some): only before the next address are they a separator.
_BETWEEN = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
# A link as the source writes it, before and after `file=`, in which nothing needs decoding and `file` comes once: a day
# has a hundred thousand of them with a few beginnings, and httpx takes ten times as long to say the same.
_BEFORE_FILE = re.compile(
    r"https://(?:[a-z0-9](?:-?[a-z0-9])*\.)+[a-z]+/[a-z0-9/]*\?(?:(?!(?i:file)=)[A-Za-z]+=[\w.-]*&)*", re.ASCII
)
_FROM_FILE = re.compile(r"([\w./-]+)(?:&(?!(?i:file)=)[A-Za-z]+=[\w.-]*)*", re.ASCII)
# Parameters of a signed link, in lower case: Amazon's, Google's, Azure's, CloudFront's, and tokens.
_TEMPORARY = re.compile(
    r"x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|sig|expires|se|st|sp|sv|sr|policy|key-pair-id"
    r"|(?:.*[-_])?token"
)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


class RecordingLink(NamedTuple):
    """What a link says.

    Attributes:
        url: the link without any white space; hidden in the repr, since some accounts' links open to anyone.
        account_id: the account whose report it stood in.
        file_path: where the file lies, decoded once. Data from outside, never a path to use.
        recording_id: `<account>/<file path>`: the same however the rest of the link is written.
        basename: the last part of the file path.
    """

    url: str
    account_id: str
    file_path: str
    recording_id: str
    basename: str

    def __repr__(self) -> str:
        return f"RecordingLink({self.recording_id!r})"


def links_in(cell: str | None) -> list[str]:
    """Return the links in a cell of a report: none for words such as `null`, and each of several."""
    if cell is None:
        return []
    if cell.startswith("https://") and "http" not in cell[8:].lower():  # as a day has a hundred thousand of them
        return [cell]
    return [link for link in _BETWEEN.split(cell) if not _NO_LINK.match(link)]


def parse_link(raw: str, account_id: str) -> RecordingLink:
    """Read a link as a report gives it; blanks inside, `&amp;`, the query's order and the last slash do not matter.

    A link without `file` in its query is known by its path and a hash of its query, which may hold a secret. Signatures
    and tokens are left out: they differ each time that a link is given. Where it leads, and credentials in it, are not
    judged here: see `HostList`. So a recording has the same id whichever hosts are allowed.

    Raises:
        LinkRefused: `too_long`, `malformed`, `not_https` (nor http), `no_file`, `several_files`.
    """
    if len(raw) > LONGEST_LINK:
        raise LinkRefused("too_long")
    text = raw
    before, _, rest = text.partition("file=")
    plain = _FROM_FILE.fullmatch(rest) if _is_plain(before) else None
    if plain:
        file_path = plain[1]
    else:
        text = _AMPERSAND.sub("&", "".join(raw.split()))
        file_path = _file_path(text)
    basename = file_path.rstrip("/").rpartition("/")[2]
    if not basename:
        raise LinkRefused("no_file")
    return RecordingLink(text, account_id, file_path, f"{account_id}/{file_path}", basename)


@lru_cache(maxsize=256)
def _is_plain(before_file: str) -> bool:
    return _BEFORE_FILE.fullmatch(before_file) is not None


def _file_path(text: str) -> str:
    url = _parsed(text)
    for separators in (b"&", b"[&;]"):  # a file's name may hold a semicolon, and one may stand where `&` should
        parts = _parameters(url.query, separators)
        files = {value for name, value in parts if name == "file" and value}
        if len(files) > 1:
            raise LinkRefused("several_files")
        if files:
            return files.pop()
    path = _decoded(url.raw_path.partition(b"?")[0]).lstrip("/")
    query = "&".join(f"{name}={value}" for name, value in sorted(parts) if name and not _TEMPORARY.fullmatch(name))
    return f"{path}?{sha256(query.encode()).hexdigest()[:32]}" if query else path


def _parameters(query: bytes, separators: bytes) -> list[tuple[str, str]]:
    pairs = (part.partition(b"=") for part in re.split(separators, query))
    return [(_decoded(name).lower(), _decoded(value)) for name, _, value in pairs]


class HostList:
    """The hosts that recordings may be fetched from.

    Args:
        entries: `host`, `host:port`, `*.domain` (its sub-domains at any depth, not itself), `[::1]:8080`. Without a
            port an entry means the scheme's own one, except that on this machine it means any.

    Raises:
        ValueError: an entry is none of these.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = [_entry(entry) for entry in entries if entry.strip()]

    def __repr__(self) -> str:
        return f"HostList({len(self._entries)} entries)"

    def require(self, url: str) -> httpx.URL:
        """Return the address, read, if it may be requested: https (http on this machine only), no credentials, host
        listed.

        Raises:
            LinkRefused: `malformed`, `credentials_in_url`, `not_https`, `host_not_allowed`.
        """
        parsed = _parsed(url)
        if parsed.userinfo:
            raise LinkRefused("credentials_in_url")
        host = _folded(parsed)
        if parsed.scheme != "https" and not is_loopback(host):
            raise LinkRefused("not_https")
        if not any(_covers(entry, parsed) for entry in self._entries):
            raise LinkRefused(
                "host_not_allowed",
                f"Recordings are not fetched from {place(url)}; if that host is RingCX's, add it to"
                " RINGCX_MEDIA_HOSTS.",
            )
        return parsed


@lru_cache(maxsize=256)
def _parsed(text: str) -> httpx.URL:
    """An address as httpx will read it: to judge one reading of it and to request another would be no judgement."""
    try:
        url = httpx.URL(text)
        readable = bool(url.host)  # httpx decodes it for each request, and `xn--` before nonsense cannot be
    except (httpx.InvalidURL, ValueError):
        raise LinkRefused("malformed") from None
    if url.scheme not in {"http", "https"} and url.scheme:
        raise LinkRefused("not_https")
    if not url.scheme or not readable or not _is_host(_folded(url)):
        raise LinkRefused("malformed")
    return url


def _folded(url: httpx.URL) -> str:
    """The host as names are compared: IDNA, lower case, without the root's dot."""
    return _folded_host(url.raw_host)


@lru_cache(maxsize=256)
def _folded_host(raw_host: bytes) -> str:
    host = raw_host.decode("ascii").removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _is_host(host: str) -> bool:
    return ":" in host or _HOST.fullmatch(host) is not None


def _decoded(value: bytes) -> str:
    raw = unquote_to_bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    port: int | None
    below: bool


def _entry(text: str) -> _Entry:
    name = text.strip()
    below = name.startswith("*.")
    try:
        url = _parsed(f"https://{name.removeprefix('*.')}")
        plain = url.raw_path == b"/" and not url.fragment and not url.userinfo
    except LinkRefused:
        plain = False
    if not plain:
        raise ValueError(f"RINGCX_MEDIA_HOSTS: {text!r} is not host, host:port or *.domain.")
    explicit = re.search(r":(\d+)$", name) is not None and not name.endswith("]")
    port = (443 if url.port is None else url.port) if explicit else None
    return _Entry(_folded(url), port, below)


def _covers(entry: _Entry, url: httpx.URL) -> bool:
    _, _, port = origin_of(url)
    host = _folded(url)
    below = host.endswith("." + entry.host) and not is_address(host)  # 127.0.0.1 is not below 0.0.1
    if not (below if entry.below else host == entry.host):
        return False
    if entry.port is not None:
        return port == entry.port
    return url.port is None or is_loopback(host)
