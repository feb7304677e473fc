"""The one HTTP client for requests to the source: permits, retries, `Retry-After`.

`auth.py` logs in; `reports/` and `media.py` interpret responses: the caller gets any status that a retry would not
change. The client follows no redirects, keeps no cookies and unpacks nothing but gzip (`body.py`).
"""

import hashlib
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Self, TypeVar

import httpx
import urllib3

from pipelines import __version__
from pipelines.ringcx.errors import AccountUnknown, BodyBroken, BodyStopped, SourceError, SourceUnavailable, shown_url
from pipelines.ringcx.http.body import GZIP, PLAIN, BombError, encoding_of, first_bytes, unpacked
from pipelines.ringcx.http.transport import Transport
from pipelines.ringcx.limits.limiter import LONGEST_HOLD_S, Rate, RateLimiter, check_stop

_log = logging.getLogger(__name__)
# With a browser's user agent the source sends an MP3 instead of the recording.
_HEADERS = {"User-Agent": f"ringcx-archive/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
T = TypeVar("T")

# As 5xx is. 407 asks for a proxy's log-in; with 421 and 425 the connection was the wrong one, or too early.
_TRANSIENT = frozenset({407, 408, 421, 425, 429})
_LONGEST_BACKOFF_S = 60.0
_CONNECT_S = 10.0
_BODY_ATTEMPTS = 3  # a body that breaks off may be of gigabytes
_EXPLAINED = 4096
_UNKNOWN_ACCOUNT = re.compile(rb"EvPlatform by rc_account_id=\S* not found", re.IGNORECASE)
_DECIMALS = re.compile(r"^\s*([0-9]+)\.[0-9]+\s*$")
_PAUSING = frozenset({429, 503})  # here Retry-After is meant for all processes


@dataclass(frozen=True, slots=True)
class Received:
    """A body that was received: its size in bytes, its SHA-256 in hex, and whether it was `framed`.

    HTTP marks the end of a framed body, with its length or in chunks. Otherwise a broken connection looks like the end,
    and only the bytes themselves can prove that nothing is missing.
    """

    size: int
    sha256: str
    framed: bool


@dataclass(kw_only=True, eq=False, repr=False)
class SourceClient:
    """A client that sends requests to the source, each with a permit; share one between all threads.

    `limits`: the rates of each limit (`reports`, `metadata`, `media`, `auth`); no rates mean no limit. `priority`: of
    its permits, including those for log-ins; lower goes first. `stop`: an event that ends every wait immediately.
    `backoff_s`: the wait before attempt n+1 is drawn from 0 to backoff_s * 2**(n-1) seconds, at most a minute.
    `max_connections`: the number kept open for later requests; at least the number of threads.
    """

    limiter: RateLimiter
    limits: Mapping[str, Sequence[Rate]]
    priority: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    transport: httpx.BaseTransport | None = None
    attempts: int = 5
    backoff_s: float = 1.0
    read_timeout_s: float = 60
    max_connections: int = 32
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] | None = None

    def __post_init__(self) -> None:
        # By `public_only`: such requests never use a connection that was opened without the check of addresses.
        self._transports = {
            only: self.transport or Transport(max_kept=self.max_connections, public_only=only) for only in (False, True)
        }

    def retry(self, work: Callable[[], T]) -> T:
        """Return the result of `work`; repeat it while a request that it makes with `stream` may succeed later.

        `work` covers the request and reading its whole response. A body that breaks off gets three attempts. Raises
        Stopped, or SourceUnavailable if the attempts are used up or the source asks for a pause longer than
        `LONGEST_HOLD_S`: as its subclass BodyBroken if the last response broke off.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return work()
            except TryAgain as failure:
                asked_s, reason = failure.asked_s, str(failure)
                is_body = isinstance(failure.error, BodyBroken)
                last = min(self.attempts, _BODY_ATTEMPTS) if is_body else self.attempts
                if attempt >= last or (asked_s or 0.0) > LONGEST_HOLD_S:
                    raise failure.error from None
            wait_s = random.uniform(0, min(self.backoff_s * 2 ** (attempt - 1), _LONGEST_BACKOFF_S))  # noqa: S311
            if asked_s is not None:
                wait_s = max(wait_s, asked_s, self.backoff_s)  # `Retry-After: 0` does not mean immediately
            self.limiter.announce(f"another attempt, because {reason}", wait_s)
            (self.sleep or self.stop.wait)(wait_s)
            check_stop(self.stop)

    @contextmanager
    def stream(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        limit: str,
        account_id: str,
        auth: httpx.Auth | None = None,
        json: object | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        public_only: bool = False,
    ) -> Iterator[httpx.Response]:
        """Send one request, with a permit, and yield the open response; call it inside `retry`.

        The request counts against the `limit` of that account, or against none if `limit` is empty. `public_only` is
        for an untrusted address: its host may lead only to public addresses.

        Raises TryAgain if there is no connection, after a timeout, a transient status or 5xx, or if the body breaks off
        while it is read; SourceError if HTTP cannot carry the address or a credential; ConnectionNotAllowed if a
        certificate, a proxy or a setting does not allow the connection; LinkRefused (`address_not_public`); or Stopped.
        """
        try:
            request = httpx.Request(
                method,
                url,
                json=json,
                data=data,
                headers={**_HEADERS, **(headers or {})},
                extensions={
                    "limit": limit,
                    "account_id": account_id,
                    "auth": auth,
                    "public_only": public_only,
                    "timeout": {"connect": _CONNECT_S, "read": self.read_timeout_s},
                },
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SourceError(f"{method} {shown_url(url)} cannot be requested: the address is malformed.") from error
        with closing(self._attempt(request)) as response:
            try:
                yield response
            except httpx.TimeoutException:
                raise TryAgain(request, "the response stopped in the middle", kind=BodyStopped) from None
            except (httpx.TransportError, httpx.DecodingError):
                raise TryAgain(request, "the response broke off", kind=BodyBroken) from None

    def receive(
        self, response: httpx.Response, write: Callable[[bytes], object], *, max_bytes: int, max_seconds: float
    ) -> Received:
        """Hand each block of a response's body to `write`.

        Raises BombError if the body is longer than `max_bytes` or unpacks to hundreds of times its size; TooSlowError
        if it takes longer than `max_seconds`; Stopped; and the errors of `unpacked` and of `write`.
        """
        until = time.monotonic() + max_seconds

        def check() -> None:
            check_stop(self.stop)
            if time.monotonic() > until:
                raise TooSlowError

        digest, size = hashlib.sha256(), 0
        for block in unpacked(response, check):
            check()
            size += len(block)
            if size > max_bytes:
                raise BombError
            digest.update(block)
            write(block)
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        return Received(size, digest.hexdigest(), is_chunked or "Content-Length" in response.headers)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _permit(self, request: httpx.Request) -> None:
        """Wait for a permit, and sign the request with a token that is then fresh."""
        limit, account_id, auth = (request.extensions[key] for key in ("limit", "account_id", "auth"))
        # A token may run out while its request waits for a permit: an auth that can sign does so then.
        sign = partial(getattr(auth, "sign", lambda _: None), request)
        check_stop(self.stop)
        if not limit:
            sign()
            return
        acquire = partial(self.limiter.acquire, account_id=account_id, stop=self.stop)
        # Wait for the host's pause first: a permit that is taken before it would be lost.
        acquire(hold_key(limit, request.url), rates=())
        acquire(limit, rates=self.limits.get(limit, ()), priority=self.priority, prepare=sign)

    def _attempt(self, request: httpx.Request) -> httpx.Response:
        """Send a request once. The exceptions raised here never carry the request, which carries credentials."""
        try:
            response = self._authenticated(request)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise SourceError(
                f"{_named(request)} cannot be sent ({type(error).__name__}); check the address and"
                " that no credential contains a line break or a space."
            ) from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise TryAgain(request, f"{type(error).__name__}: {error}") from None
        except httpx.TransportError as error:
            raise TryAgain(request, type(error).__name__) from None
        status, encoding = response.status_code, encoding_of(response)
        if status in {200, 206} and encoding not in PLAIN | GZIP:  # 64 KiB, unpacked twice, are 64 GiB in one piece
            response.close()
            raise TryAgain(request, f"the response is encoded as {encoding[:40]!a}, which was not requested")
        if status in _TRANSIENT or status >= 500:
            response.close()
            asked_s = retry_after(response.headers.get("Retry-After"))
            limit, account_id = request.extensions["limit"], request.extensions["account_id"]
            if asked_s and limit and status in _PAUSING:
                # No process sends requests to this host for a while; the account's requests to other hosts continue.
                message = "%s asked for a pause of %.0f s; requests to it for account %s wait for %.0f s"
                _log.warning(message, request.url.host, asked_s, account_id, min(asked_s, LONGEST_HOLD_S))
                self.limiter.hold_off(hold_key(limit, request.url), account_id, asked_s, stop=self.stop)
            pause = f", and it asked for a pause of {asked_s:.0f} s" if asked_s and asked_s > LONGEST_HOLD_S else ""
            raise TryAgain(request, f"HTTP {status}{pause}", asked_s)
        return response

    def _authenticated(self, request: httpx.Request) -> httpx.Response:
        """Send a request, then any request that its auth makes after the response, such as one with a fresh token."""
        auth = request.extensions["auth"] or httpx.Auth()
        with closing(auth.sync_auth_flow(request)) as flow:
            request = next(flow)
            while True:
                self._permit(request)  # also when an auth sends the request again after a 401
                response = self._transports[request.extensions["public_only"]].handle_request(request)
                response.request = request
                _log.debug("%s: HTTP %d", _named(request), response.status_code)
                try:
                    request = flow.send(response)
                except StopIteration:
                    return response
                except BaseException:
                    response.close()
                    raise
                response.close()


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header (seconds, or an HTTP date) asks for, or None if it is unclear."""
    try:
        # Against RFC 9110, gateways send decimals, too.
        whole = _DECIMALS.sub(lambda found: str(int(found[1]) + 1), value or "")
        return float(urllib3.Retry().parse_retry_after(whole))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def explanation_of(response: httpx.Response) -> bytes:
    """Return the first bytes of a refusal's body, if any; raise AccountUnknown if they mean an unknown account."""
    try:
        explanation = first_bytes(response, _EXPLAINED)
    except (httpx.TransportError, httpx.DecodingError, BombError):
        return b""  # the status has to be enough
    if response.status_code == 404 and _UNKNOWN_ACCOUNT.search(explanation):
        raise AccountUnknown(
            f"{_named(response.request)} was answered with HTTP 404: RingCX does not know"
            " this RingCentral account. Check RINGCX_RC_ACCOUNT_ID, and ask RingCentral whether the interaction"
            " metadata and recordings of this account are activated.",
        )
    return explanation


def origin_of(url: httpx.URL | str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address: credentials belong to these."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii").rstrip(".")
    port = {"https": 443, "http": 80}.get(parsed.scheme, 0) if parsed.port is None else parsed.port
    return parsed.scheme, host, port


def hold_key(limit: str, url: httpx.URL) -> str:
    """Return the name of the limit under which a pause requested by a host is stored."""
    return f"{limit}@{url.raw_host.decode('ascii')}"


class TooSlowError(Exception):
    """The body takes too long."""


class TryAgain(Exception):  # noqa: N818 - named as in errors.py
    """A request failed, but a later attempt may succeed. The text is the same for every request to a host.

    `error` is what to raise after the last attempt, `asked_s` the pause that the source asked for, in seconds.
    """

    def __init__(
        self,
        request: httpx.Request,
        reason: str,
        asked_s: float | None = None,
        *,
        kind: type[SourceUnavailable] = SourceUnavailable,
    ) -> None:
        super().__init__(f"{request.url.host} is not available now ({reason})")
        self.error = kind(
            f"{_named(request)} is not available now ({reason}); the next run tries again. If the"
            " problem persists, ask RingCX."
        )
        self.asked_s = asked_s


def _named(request: httpx.Request) -> str:
    return f"{request.method} {shown_url(request.url)}"
