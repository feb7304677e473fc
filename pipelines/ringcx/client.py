"""One HTTP client for everything that is asked of the source: permits, tries, `Retry-After`, the error taxonomy.

Not for log-ins (`auth.py`), nor for what an answer means (`reports.py`, `media.py`): any status that another try does
not change is handed to the caller. It follows no redirects, keeps no cookies and takes no compressed bodies.
"""

import email.utils
import logging
import random
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC
from types import TracebackType
from typing import Self

import httpx
import tenacity

from pipelines.ringcx.errors import AccountUnknown, SourceError, SourceUnavailable, place
from pipelines.ringcx.limits import HeldOff, Rate, RateLimiter, check_stop
from pipelines.ringcx.network import Resolve, system_resolve
from pipelines.ringcx.wire import Transport

_log = logging.getLogger(__name__)

PATIENCE_S = 300.0  # a longer Retry-After ends the tries: a run that sleeps holds its date, and the next run knows
_TRANSIENT = frozenset({408, 429})
_INFLATED = 200  # a report packs to a twentieth, a bomb to a thousandth of its size
_INFLATED_FREE = 64 << 20  # ... and silence in a recording may pack like a bomb, but is no more than this
_EXPLAINED = 4096
_UNKNOWN_ACCOUNT = re.compile(rb"EvPlatform by rc_account_id=\S* not found", re.IGNORECASE)
_HOLDS_OFF = frozenset({429, 503})  # here Retry-After is meant for all of us, not only for the one who asked


class Renewing(httpx.Auth, ABC):
    """An auth whose token may have run out while its request waited for a permit."""

    @abstractmethod
    def prepare(self, request: httpx.Request) -> None:
        """See to it that a fresh token is at hand."""

    @abstractmethod
    def sign(self, request: httpx.Request) -> None:
        """Put the token that is at hand on the request."""


class SourceClient:
    """Sends requests to the source, each with a permit; share one over all threads.

    Args:
        limiter: shared by all processes.
        limits: the rates of each limit (`reports`, `metadata`, `media`, `auth`). One that is not named is free.
        priority: of its permits, log-ins too; lower goes first.
        stop: ends every wait at once when set.
        transport: for tests; takes every request, also those that may go to public addresses only.
        resolve: asks for the addresses of a name.
        user_agent: `name/version`. Something like a browser's would be sent an MP3 instead of the recording.
        attempts: tries of one request, the first included.
        backoff_s: the wait before try n+1 is drawn from 0 to backoff_s * 2**(n-1) seconds, at most `backoff_cap_s`.
        connect_timeout_s: seconds for a connection.
        read_timeout_s: seconds without a byte.
        max_connections: kept open for the next requests; at least the number of threads.
        clock: seconds since the epoch.
        sleep: used for waits instead of a wait on the stop event; for tests.
    """

    def __init__(
        self,
        *,
        limiter: RateLimiter,
        limits: Mapping[str, Sequence[Rate]],
        priority: int = 0,
        stop: threading.Event | None = None,
        transport: httpx.BaseTransport | None = None,
        resolve: Resolve = system_resolve,
        user_agent: str = "ringcx-archive/0.1",
        attempts: int = 5,
        backoff_s: float = 1.0,
        backoff_cap_s: float = 60.0,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        max_connections: int = 32,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        if "mozilla" in user_agent.lower():
            raise ValueError("A user agent like a browser's is sent MP3 instead of WAV; give name/version.")
        self._limiter = limiter
        self._limits = {name: tuple(rates) for name, rates in limits.items()}
        self._priority = priority
        self._stop = stop or threading.Event()
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._backoff_cap_s = backoff_cap_s
        self._clock = clock
        self._sleep = sleep
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._timeout = {"connect": connect_timeout_s, "read": read_timeout_s}
        # Requests that may go to public addresses only have connections of their own: none that was opened without
        # that check is ever used for them.
        self._anywhere, self._public = (
            transport or Transport(max_kept=max_connections, public_only=only, resolve=resolve)
            for only in (False, True)
        )

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
        attempts: int | None = None,
        public_only: bool = False,
    ) -> Iterator[httpx.Response]:
        """Send a request, again while that may help, and yield the open response whatever its other status is.

        Connection errors, timeouts, 408, 429 and 5xx are tried again, each try with a permit of its own. What goes
        wrong while the body is read is raised to the reader as an `httpx.TransportError`.

        Args:
            method: GET or POST.
            url: absolute.
            limit: which limit it counts against; an empty one is free.
            account_id: whose limit that is.
            auth: adds the credentials. A `Renewing` one is asked for a fresh token once the permit is there.
            json: the body, as JSON.
            data: the body, as a form.
            headers: added to the client's own.
            attempts: tries of this request, instead of the client's.
            public_only: for an address from outside: a name is followed to public addresses only.

        Raises:
            SourceUnavailable: the tries are used up, or the source asked for a silence above `PATIENCE_S`.
            SourceError: the request cannot be made (an address or a credential that HTTP cannot carry).
            LinkRefused: `address_not_public`.
            Stopped: the stop event was set.
        """
        try:
            request = httpx.Request(
                method,
                url,
                json=json,
                data=data,
                headers={**self._headers, **(headers or {})},
                extensions={
                    "limit": limit,
                    "account_id": account_id,
                    "auth": auth,
                    "public_only": public_only,
                    "timeout": self._timeout,
                },
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SourceError(f"{method} {place(url)} cannot be requested: the address is malformed.") from error
        tries = attempts or self._attempts
        retrying = tenacity.Retrying(
            stop=lambda state: state.attempt_number >= tries or (_failure(state).asked_s or 0.0) > PATIENCE_S,
            wait=self._wait_before,
            sleep=self.pause,
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            reraise=True,
        )
        try:
            response: httpx.Response = retrying(self._try, request, auth)
        except _TryAgainError as last:
            raise SourceUnavailable(
                f"{method} {place(url)} is not available now ({last.verdict}); the next run tries again, and if it"
                " lasts, ask RingCX."
            ) from None
        with closing(response):
            yield response

    def back_off(self, failures: int) -> None:
        """Wait as before a retry, after so many failures; for a caller that repeats what broke while it was read."""
        self.pause(self._backoff(failures))

    def pause(self, seconds: float) -> None:
        """Wait; raise Stopped as soon as the stop event is set."""
        self.check_stop()
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            self._stop.wait(seconds)
        self.check_stop()

    def check_stop(self) -> None:
        """Raise Stopped when the stop event is set."""
        check_stop(self._stop)

    def close(self) -> None:
        """Close all connections."""
        self._anywhere.close()
        self._public.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _permit(self, request: httpx.Request) -> None:
        name, account_id, auth = (request.extensions[key] for key in ("limit", "account_id", "auth"))
        if not name:
            self.check_stop()
            return
        renewing = auth if isinstance(auth, Renewing) else None
        self._limiter.acquire(
            name,
            account_id,
            self._limits.get(name, ()),
            priority=self._priority,
            stop=self._stop,
            patience_s=PATIENCE_S,
            prepare=None if renewing is None else lambda: renewing.prepare(request),
        )
        if renewing is not None:  # the wait may have been longer than the life of the token it was signed with
            renewing.sign(request)

    def _try(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        """One try. The exceptions raised here never carry the request, which carries credentials."""
        try:
            response = self._authenticated(request, auth)
        except HeldOff as held:
            raise _TryAgainError(str(held).rstrip("."), held.seconds) from None
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise SourceError(
                f"{request.method} {place(request.url)} cannot be sent ({type(error).__name__}); check the address and"
                " that no credential holds a line break or a blank."
            ) from None
        except httpx.ConnectError as error:
            raise _TryAgainError(f"ConnectError: {error}") from None
        except httpx.TransportError as error:
            raise _TryAgainError(type(error).__name__) from None
        if response.status_code not in _TRANSIENT and response.status_code < 500:
            return response
        response.close()
        asked_s = retry_after(response.headers.get("Retry-After"), self._clock())
        limit, account_id = request.extensions["limit"], request.extensions["account_id"]
        if asked_s is not None and limit and response.status_code in _HOLDS_OFF:
            self._limiter.hold_off(limit, account_id, asked_s, stop=self._stop)
        verdict = f"HTTP {response.status_code}"
        if asked_s is not None and asked_s > PATIENCE_S:
            verdict += f", and it asked for {asked_s:.0f} s of silence"
        raise _TryAgainError(verdict, asked_s)

    def _authenticated(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        """Send a request, and again what its auth makes of the answer, such as a request with a fresh token."""
        if auth is None:
            return self._send(request)
        flow = auth.sync_auth_flow(request)
        try:
            request = next(flow)
            while True:
                response = self._send(request)
                try:
                    request = flow.send(response)
                except StopIteration:
                    return response
                except BaseException:
                    response.close()
                    raise
                with closing(response):
                    response.read()
        finally:
            flow.close()

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send one request, with a permit: also the one that an auth sends again after a 401."""
        self._permit(request)
        transport = self._public if request.extensions["public_only"] else self._anywhere
        response = transport.handle_request(request)
        response.request = request
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s %s: HTTP %d", request.method, place(request.url), response.status_code)
        if "," in response.headers.get("Content-Encoding", ""):
            # Asked for none, given several: 64 KiB, unpacked twice, are 64 GiB in one piece.
            response.close()
            raise httpx.RemoteProtocolError("The answer is compressed more than once.", request=request)
        return response

    def _wait_before(self, state: tenacity.RetryCallState) -> float:
        asked_s = _failure(state).asked_s
        return self._backoff(state.attempt_number) if asked_s is None else asked_s

    def _backoff(self, failures: int) -> float:
        longest = min(self._backoff_cap_s, self._backoff_s * 2 ** (failures - 1))
        return random.uniform(0, longest)  # noqa: S311 - spreads tries, protects nothing


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a `Retry-After` header (seconds, or an HTTP date); None when there is none to obey."""
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", text, re.ASCII):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):  # OverflowError: an hour of fifteen digits
        return None


def is_bomb(response: httpx.Response, size: int) -> bool:
    """Whether what was received, unpacked to `size` bytes by now, is compressed as no honest body is."""
    return size > _INFLATED_FREE + _INFLATED * response.num_bytes_downloaded


def is_framed(response: httpx.Response) -> bool:
    """Whether HTTP says where the body ends. If not, a connection that broke looks like the end."""
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower() or "Content-Length" in response.headers


def start_of(response: httpx.Response) -> bytes:
    """The first bytes of a refusal's body, to tell what it is about; empty where none can be read."""
    start = b""
    try:
        for block in response.iter_bytes():
            start += block
            if len(start) >= _EXPLAINED:
                break
    except (httpx.TransportError, httpx.DecodingError):
        pass  # the status alone must do
    return start[:_EXPLAINED]


def raise_if_account_unknown(response: httpx.Response, explanation: bytes) -> None:
    """Raise AccountUnknown for the 404 that RingCX gives when it does not know the RingCentral account."""
    if response.status_code == 404 and _UNKNOWN_ACCOUNT.search(explanation):
        raise AccountUnknown(
            f"{response.request.method} {place(response.request.url)} was answered with HTTP 404: RingCX does not know"
            " this RingCentral account. Check RINGCX_RC_ACCOUNT_ID, and ask RingCentral whether the interaction"
            " metadata and recordings of this account are activated.",
            status=404,
        )


def origin_of(url: httpx.URL | str) -> tuple[str, str, int]:
    """Scheme, host and port of an address: what credentials belong to."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii").rstrip(".")
    port = {"https": 443, "http": 80}.get(parsed.scheme, 0) if parsed.port is None else parsed.port
    return parsed.scheme, host, port


class _TryAgainError(Exception):
    def __init__(self, verdict: str, asked_s: float | None = None) -> None:
        super().__init__(verdict)
        self.verdict = verdict
        self.asked_s = asked_s


def _failure(state: tenacity.RetryCallState) -> _TryAgainError:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, _TryAgainError) else _TryAgainError("")
