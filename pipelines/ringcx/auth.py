"""Log-ins: how a request to RingCX gets its token, and a fresh one before the old one expires.

Each log-in is an `httpx.Auth` for one origin, shared by all threads: the first that finds the token old renews it, and
the others wait for the new one. A RingCX token is valid for 5 minutes, and the exchange takes 5 requests a minute; it
counts against the client's limit `auth`, whose permits all processes share.
"""

import copy
import json
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

import httpx

from pipelines.ringcx.errors import CredentialsRefused, SourceError, shown_url
from pipelines.ringcx.http.addresses import is_loopback
from pipelines.ringcx.http.body import BombError, first_bytes
from pipelines.ringcx.http.client import SourceClient, origin_of

LOG_IN_LIMIT = "auth"
_DEFAULT_LIFE_S = 300  # of a token without a stated life; if it ends sooner, it is renewed after a 401
_RENEW_BEFORE_S = 60.0
_QUIET_AFTER_FAILURE_S = 30.0  # the threads that waited for a failed log-in must not repeat it one by one
_LONGEST_ANSWER = 1 << 20
_LONGEST_WORD = 24


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float


@dataclass(kw_only=True, eq=False, repr=False)
class OriginAuth(httpx.Auth, ABC):
    """An auth that puts a token on requests to one origin (the API's scheme, host and port) and on no others."""

    api_url: str
    variables: ClassVar[tuple[str, ...]] = ()
    """The settings that hold the credentials, for error messages."""
    _header: ClassVar = "Authorization"
    _scheme: ClassVar = "Bearer "

    def sign(self, request: httpx.Request) -> None:
        """Put the token on a request to its origin; log in if necessary, and raise SourceError if that fails."""
        if self._serves(request):
            request.headers[self._header] = self._scheme + self._value()

    def _serves(self, request: httpx.Request) -> bool:
        return origin_of(request.url) == origin_of(self.api_url)

    @abstractmethod
    def _value(self) -> str:
        """Return a token that does not expire soon."""


@dataclass(kw_only=True, eq=False, repr=False)
class ApiToken(OriginAuth):
    """A permanent API token that an administrator made. It cannot be renewed: a 401 is final."""

    variables = ("RINGCX_API_TOKEN",)
    _header = "X-Auth-Token"
    _scheme = ""

    token: str

    def __post_init__(self) -> None:
        if not _is_token(self.token.strip()):
            raise CredentialsRefused("RINGCX_API_TOKEN contains something other than a token; copy it again")

    def _value(self) -> str:
        return self.token.strip()


@dataclass(kw_only=True, eq=False, repr=False)
class TokenAuth(OriginAuth):
    """An auth whose token expires: it is renewed in time; a 401 leads to one fresh token and one more request."""

    client: SourceClient
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _token: _Token | None = field(default=None, init=False)
    _refused: str | None = field(default=None, init=False)  # the header of a token that was fresh and still refused
    _failure: tuple[float, SourceError] | None = field(default=None, init=False)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and after a 401 once more with a fresh token; the client signs both requests."""
        response = yield request
        if not self._serves(request):
            return
        used = request.headers[self._header]
        if response.status_code != 401:
            if self._refused == used:
                self._refused = None
            return
        response.read()  # releases its connection: if every thread kept one here, the log-in would find none
        if self._refused == used:  # another log-in changes nothing
            return
        with self._lock:
            if self._token is None or self._scheme + self._token.value == used:  # nobody else has renewed it yet
                self._log_in()
        response = yield request
        if response.status_code == 401:
            self._refused = request.headers[self._header]

    def _value(self) -> str:
        with self._lock:
            token = self._token
            if token is None or self.client.clock() >= token.renew_at:
                token = self._log_in()
            return token.value

    def _log_in(self) -> _Token:
        """Get a token; call this with the lock held."""
        if self._failure is not None:
            failed_at, failure = self._failure
            if 0 <= self.client.clock() - failed_at < _QUIET_AFTER_FAILURE_S:
                raise copy.copy(failure) from None
        try:
            token = self._token = self._obtain()
        except SourceError as failure:
            self._token = None
            self._failure = (self.client.clock(), failure)
            raise
        self._failure = None
        return token

    @abstractmethod
    def _obtain(self) -> _Token:
        """Return a fresh token."""

    def _request_token(
        self,
        url: str,
        form: Mapping[str, str],
        *,
        name: str,
        variable: str,
        remedy: str,
        app: httpx.BasicAuth | None = None,
    ) -> _Token:
        """Post a log-in and return the token of its response.

        `name` is the response field with the token, `variable` the setting with the address, `remedy` what to check if
        the log-in is refused. `app` is for RingCentral's OAuth, which counts against no limit here. Raises
        CredentialsRefused after HTTP 400, 401 or 403; SourceError after any other but 200, or without a token.
        """
        asked_at = self.client.clock()
        request = f"POST {shown_url(url)}"
        status, answer = self.client.retry(lambda: self._post(url, form, app))
        if status in {400, 401, 403}:
            explanation = _explanation(answer) if app else ""
            raise CredentialsRefused(f"{request} refused the log-in{explanation}; {remedy}.")
        if status != 200:
            raise SourceError(f"{request} answered HTTP {status} to the log-in; check {variable}.")
        value = answer.get(name)
        if not isinstance(value, str) or not _is_token(value):
            raise SourceError(f"{request} answered the log-in without a usable {name}; check {variable}.")
        life_s = answer.get("expires_in") or answer.get("expiresIn")
        if not isinstance(life_s, int) or life_s <= 0:
            life_s = _DEFAULT_LIFE_S
        return _Token(value, renew_at=asked_at + life_s - min(_RENEW_BEFORE_S, life_s / 5))

    def _post(self, url: str, form: Mapping[str, str], app: httpx.BasicAuth | None) -> tuple[int, Mapping[str, object]]:
        """Return the status and the JSON object of the response to a log-in, empty if the body is no JSON object."""
        limit = "" if app else LOG_IN_LIMIT
        # Log-ins are counted for the installation, not for one sub-account.
        with self.client.stream("POST", url, limit=limit, account_id="", auth=app, data=form) as response:
            try:
                answer = json.loads(first_bytes(response, _LONGEST_ANSWER))
            except (BombError, ValueError, RecursionError):
                answer = None
            return response.status_code, answer if isinstance(answer, dict) else {}


@dataclass(kw_only=True, eq=False, repr=False)
class RingCentralJwt(TokenAuth):
    """The default log-in: RingCentral JWT gives a token for an hour, which `auth_url` exchanges for those of RingCX."""

    variables = ("RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET")

    ringcentral_url: str
    auth_url: str
    client_id: str
    client_secret: str
    jwt: str
    _ringcentral_token: _Token | None = field(default=None, init=False)

    def _obtain(self) -> _Token:
        if self._ringcentral_token and self.client.clock() < self._ringcentral_token.renew_at:
            with suppress(CredentialsRefused):
                return self._exchange(self._ringcentral_token)
        self._ringcentral_token = self._request_token(
            f"{self.ringcentral_url}/restapi/oauth/token",
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": self.jwt.strip()},
            name="access_token",
            variable="RINGCENTRAL_URL",
            remedy=f"check {', '.join(self.variables)}",
            app=httpx.BasicAuth(self.client_id.strip(), self.client_secret.strip()),
        )
        return self._exchange(self._ringcentral_token)

    def _exchange(self, token: _Token) -> _Token:
        return self._request_token(
            f"{self.auth_url}/api/auth/login/rc/accesstoken?includeRefresh=true",  # as documented
            {"rcAccessToken": token.value, "rcTokenType": "Bearer"},
            name="accessToken",
            variable="RINGCX_AUTH_URL",
            remedy="check that the user of RINGCENTRAL_JWT has access to RingCX",
        )


@dataclass(kw_only=True, eq=False, repr=False)
class LegacyPassword(TokenAuth):
    """The legacy log-in: user name and password give a token for an hour, which every use renews."""

    variables = ("RINGCX_USERNAME", "RINGCX_PASSWORD")
    _header = "X-Auth-Token"
    _scheme = ""

    username: str
    password: str

    def _obtain(self) -> _Token:
        token = self._request_token(
            f"{self.api_url}/v1/auth/login",
            {"username": self.username, "password": self.password},
            name="authToken",
            variable="RINGCX_API_URL",
            remedy=f"check {' and '.join(self.variables)}",
        )
        return replace(token, renew_at=math.inf)  # its end is unknown, since each use extends it: a 401 shows it


def is_secure(url: str) -> bool:
    """Return whether credentials may be sent to an address: https, or http on this machine, with none in it."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return False
    secure = parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(parsed.raw_host.decode()))
    return secure and bool(parsed.raw_host) and not parsed.userinfo


def _explanation(answer: Mapping[str, object]) -> str:
    """Return OAuth's own words for a refusal, without anything that may be a secret."""
    text = str(answer.get("error_description") or answer.get("error") or "")[:200]
    if not text.strip() or not text.isprintable():
        return ""
    words = ["…" if len(word) > _LONGEST_WORD or "@" in word else word for word in text.split()]
    return f" ({' '.join(words)})"


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()
