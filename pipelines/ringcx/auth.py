"""Log-ins: how a request to RingCX gets its token, and a fresh one in time.

Each is an `httpx.Auth` that serves one origin and leaves a request to any other bare. One object is shared by all
threads: the first that finds the token old renews it, and the others wait for the new token. Recordings behind HTTP
basic auth need nothing from here: `httpx.BasicAuth` does.

A RingCX token lives 5 minutes, and the exchange takes 5 requests a minute; both kinds of it
count against the client's limit `auth`, whose permits all processes share.
"""

import base64
import copy
import json
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

import httpx

from pipelines.ringcx.errors import CredentialsRefused, SourceError, SourceRefused, place
from pipelines.ringcx.http.addresses import is_loopback
from pipelines.ringcx.http.client import BombError, Renewing, SourceClient, origin_of, unpacked

LOG_IN_LIMIT = "auth"
_INSTALLATION = ""  # log-ins are counted for the installation, not for one sub-account
_DEFAULT_LIFE_S = 300.0
_RENEW_BEFORE_S = 60.0
_QUIET_AFTER_FAILURE_S = 30.0  # the threads that waited for a failed log-in must not repeat it one by one
_LONGEST_ANSWER = 1 << 20
_LONGEST_WORD = 24


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    refresh: str | None = field(repr=False, default=None)


class OriginAuth(httpx.Auth):
    """Puts a token on the requests to one origin: the API's scheme, host and port.

    Attributes:
        variables: the settings that hold the credentials, for the sentence of an error.
    """

    variables: tuple[str, ...] = ()
    _header = "Authorization"
    _scheme = "Bearer "

    def __init__(self, *, api_url: str) -> None:
        self._origin = origin_of(secure_url(api_url, "RINGCX_API_URL"))

    def __repr__(self) -> str:
        scheme, host, port = self._origin
        return f"{type(self).__name__}(origin='{scheme}://{host}:{port}')"

    def serves(self, request: httpx.Request) -> bool:
        """Whether the request goes to this origin."""
        return origin_of(request.url) == self._origin


class ApiToken(OriginAuth):
    """A permanent API token that an administrator made. There is no other: a 401 stays."""

    variables = ("RINGCX_API_TOKEN",)
    _header = "X-Auth-Token"
    _scheme = ""

    def __init__(self, *, api_url: str, token: str) -> None:
        super().__init__(api_url=api_url)
        self._value = token.strip()
        if not self._value or not self._value.isascii() or not self._value.isprintable():
            raise ValueError("RINGCX_API_TOKEN holds something other than a token; copy it again.")

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign and send."""
        if self.serves(request):
            request.headers[self._header] = self._scheme + self._value
        yield request


class TokenAuth(OriginAuth, Renewing):
    """A token that runs out: renewed in time, and on a 401 one fresh token and one more request."""

    def __init__(self, *, api_url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(api_url=api_url)
        self._clock = clock
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._doubted: str | None = None
        self._failure: tuple[float, SourceError] | None = None

    def prepare(self, request: httpx.Request) -> None:
        """See to it that a token is at hand that still has some life in it; log in if need be.

        Raises:
            CredentialsRefused: the log-in was refused.
            SourceUnavailable: the log-in is not available now.
            SourceError: its answer holds no token.
        """
        if self.serves(request):
            self._fresh()

    def sign(self, request: httpx.Request) -> None:
        """Put a fresh token on the request, if it goes to the origin that the token is for; raises as `prepare`."""
        if self.serves(request):
            request.headers[self._header] = self._scheme + self._fresh().value

    def _fresh(self) -> _Token:
        """A token with some life in it; another thread may take it away from `_token` at any moment."""
        token = self._token
        if token is None or not self._usable(token):
            with self._lock:
                token = self._token  # another thread may have renewed it while we waited
                if token is None or not self._usable(token):
                    token = self._log_in()
        return token

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign, send, and on a 401 once more with a fresh token; the second 401 stays."""
        if not self.serves(request):
            yield request
            return
        self.sign(request)
        response = yield request
        used = request.headers[self._header]
        if response.status_code != 401:
            if self._doubted == used:
                self._doubted = None
            return
        response.read()  # gives its connection back: with all of them in this state, the log-in would find none
        if not self._renewed(used):
            return
        self.sign(request)
        response = yield request
        if response.status_code == 401:
            self._doubted = request.headers[self._header]

    def _usable(self, token: _Token) -> bool:
        return self._clock() < token.renew_at

    def _renewed(self, used: str) -> bool:
        """Whether there is a token other than the one that was used; gets it if nobody has yet."""
        if used == self._doubted:  # fresh, and refused all the same: another log-in changes nothing
            return False
        with self._lock:
            if self._token is None or self._scheme + self._token.value == used:
                self._log_in()
        return True

    def _log_in(self) -> _Token:
        """Get a token; called with the lock held."""
        if self._failure is not None:
            failed_at, failure = self._failure
            if 0 <= self._clock() - failed_at < _QUIET_AFTER_FAILURE_S:
                raise copy.copy(failure) from None
        try:
            token = self._token = self._obtain(self._token)
        except SourceError as failure:
            self._token = None
            self._failure = (self._clock(), failure)
            raise
        self._failure = None
        return token

    @abstractmethod
    def _obtain(self, before: _Token | None) -> _Token:
        """A fresh token; `before` is the one it takes the place of."""


class RingCentralJwt(TokenAuth):
    """The default log-in: RingCentral JWT, exchanged for a RingCX token that is refreshed every few minutes.

    `ringcentral_url` is the base of RingCentral's OAuth, `auth_url` that of RingCX's exchange and refresh; the token is
    sent to the origin of `api_url` only.
    """

    variables = ("RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET")

    def __init__(
        self,
        *,
        client: SourceClient,
        api_url: str,
        ringcentral_url: str,
        auth_url: str,
        client_id: str,
        client_secret: str,
        jwt: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(api_url=api_url, clock=clock)
        self._client = client
        ringcentral = secure_url(ringcentral_url, "RINGCENTRAL_URL").rstrip("/")
        ringcx = secure_url(auth_url, "RINGCX_AUTH_URL").rstrip("/")
        self._oauth_url = f"{ringcentral}/restapi/oauth/token"
        self._exchange_url = f"{ringcx}/api/auth/login/rc/accesstoken?includeRefresh=true"
        self._refresh_url = f"{ringcx}/api/auth/token/refresh"
        self._app = httpx.BasicAuth(client_id.strip(), client_secret.strip())
        self._jwt = jwt.strip()
        self._ringcentral_token: _Token | None = None

    def _obtain(self, before: _Token | None) -> _Token:
        if before is not None and before.refresh is not None and (token := self._refreshed(before.refresh)):
            return token
        if self._ringcentral_token and self._usable(self._ringcentral_token) and (token := self._exchanged()):
            return token
        self._ringcentral_token = self._asked_ringcentral()
        if token := self._exchanged():
            return token
        raise CredentialsRefused(
            f"POST {place(self._exchange_url)} refused RingCentral's token; check that the user of RINGCENTRAL_JWT has"
            " access to RingCX.",
            status=401,
        )

    def _asked_ringcentral(self) -> _Token:
        """RingCentral's own token, good for about an hour."""
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": self._jwt}
        asked_at = self._clock()
        status, answer = _post(self._client, self._oauth_url, form, limit="", auth=self._app)
        if status in {400, 401, 403}:
            cause = {
                "invalid_client": "check RINGCENTRAL_CLIENT_ID and RINGCENTRAL_CLIENT_SECRET",
                "invalid_grant": "check RINGCENTRAL_JWT: it may be expired, revoked, or made for another app",
                "unauthorized_client": "check that the app of RINGCENTRAL_CLIENT_ID has the JWT grant",
            }.get(str(answer.get("error")), f"check {', '.join(self.variables)}")
            raise CredentialsRefused(
                f"POST {place(self._oauth_url)} refused the log-in{_explanation(answer)}; {cause}.", status=status
            )
        _require_success(self._oauth_url, status, "RINGCENTRAL_URL")
        return _token(answer, "access_token", asked_at, self._oauth_url, "RINGCENTRAL_URL")

    def _exchanged(self) -> _Token | None:
        """A RingCX token for RingCentral's; None when that one is no longer taken."""
        if self._ringcentral_token is None:
            return None
        form = {"rcAccessToken": self._ringcentral_token.value, "rcTokenType": "Bearer"}
        asked_at = self._clock()
        status, answer = _post(self._client, self._exchange_url, form, limit=LOG_IN_LIMIT)
        if status in {400, 401, 403}:
            self._ringcentral_token = None
            return None
        _require_success(self._exchange_url, status, "RINGCX_AUTH_URL")
        return _token(answer, "accessToken", asked_at, self._exchange_url, "RINGCX_AUTH_URL")

    def _refreshed(self, refresh: str) -> _Token | None:
        """A new pair for a refresh token; None when the refresh failed and a log-in is due."""
        asked_at = self._clock()
        try:
            status, answer = _post(
                self._client, self._refresh_url, {"refresh_token": refresh}, limit=LOG_IN_LIMIT, attempts=2
            )
            _require_success(self._refresh_url, status, "RINGCX_AUTH_URL")
            return _token(answer, "accessToken", asked_at, self._refresh_url, "RINGCX_AUTH_URL")
        except SourceError:
            return None


class LegacyPassword(TokenAuth):
    """The legacy log-in: user name and password for a token of an hour, which every use renews.

    User name, password and token are sent to the origin of `api_url` only.
    """

    variables = ("RINGCX_USERNAME", "RINGCX_PASSWORD")
    _header = "X-Auth-Token"
    _scheme = ""

    def __init__(
        self,
        *,
        client: SourceClient,
        api_url: str,
        username: str,
        password: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(api_url=api_url, clock=clock)
        self._client = client
        self._url = f"{api_url.rstrip('/')}/v1/auth/login"
        self._form = {"username": username, "password": password}

    def _obtain(self, before: _Token | None) -> _Token:  # noqa: ARG002 - there is nothing to refresh it with
        status, answer = _post(self._client, self._url, self._form, limit=LOG_IN_LIMIT)
        if status in {400, 401, 403}:
            raise CredentialsRefused(
                f"POST {place(self._url)} refused the log-in; check {' and '.join(self.variables)}.", status=status
            )
        _require_success(self._url, status, "RINGCX_API_URL")
        value = _text(answer, "authToken", self._url, "RINGCX_API_URL")
        return _Token(value, renew_at=math.inf)  # its end is not known, as use puts it off: a 401 tells


def secure_url(url: str, variable: str) -> str:
    """The address, if credentials may be sent to it: https, or http on this machine.

    Raises:
        ValueError: it is neither, or it holds credentials; the sentence names the setting.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ValueError(f"{variable} is not an address; give one such as https://ringcx.ringcentral.com.") from None
    secure = parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(parsed.raw_host.decode()))
    if not secure or not parsed.raw_host or parsed.userinfo:
        raise ValueError(f"{variable} must be an https address without credentials in it.")
    return url


def _post(
    client: SourceClient,
    url: str,
    form: Mapping[str, str],
    *,
    limit: str,
    auth: httpx.Auth | None = None,
    attempts: int | None = None,
) -> tuple[int, Mapping[str, object]]:
    """Status and JSON object of a log-in's answer; an empty one when it is not a JSON object."""

    def work() -> tuple[int, bytes]:
        body = bytearray()
        with client.stream("POST", url, limit=limit, account_id=_INSTALLATION, auth=auth, data=form) as response:
            try:
                for chunk in unpacked(response):
                    body += chunk
                    if len(body) > _LONGEST_ANSWER:
                        break
            except BombError:
                body.clear()
            return response.status_code, bytes(body)

    status, body = client.retry(work, attempts=attempts)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    return status, answer if isinstance(answer, dict) else {}


def _require_success(url: str, status: int, variable: str) -> None:
    if status != 200:
        raise SourceRefused(f"POST {place(url)} answered HTTP {status} to the log-in; check {variable}.", status=status)


def _token(answer: Mapping[str, object], name: str, asked_at: float, url: str, variable: str) -> _Token:
    value = _text(answer, name, url, variable)
    life_s = _jwt_life_s(value) or _seconds(answer.get("expires_in")) or _seconds(answer.get("expiresIn"))
    life_s = life_s or _DEFAULT_LIFE_S
    refresh = answer.get("refreshToken")
    return _Token(
        value,
        renew_at=asked_at + life_s - min(_RENEW_BEFORE_S, life_s / 5),
        refresh=refresh if isinstance(refresh, str) and refresh else None,
    )


def _text(answer: Mapping[str, object], name: str, url: str, variable: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise SourceError(f"POST {place(url)} answered the log-in without a usable {name}; check {variable}.")
    return value


def _explanation(answer: Mapping[str, object]) -> str:
    """OAuth's own words for a refusal, without anything in them that may be a secret."""
    text = str(answer.get("error_description") or "")[:200]
    words = ["…" if len(word) > _LONGEST_WORD or "@" in word else word for word in text.split()]
    return f" ({' '.join(words)})" if words and text.isprintable() else ""


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int | float) or not 0 < value <= 86_400:
        return None
    return float(value)


def _jwt_life_s(token: str) -> float | None:
    """`exp` less `iat` of a JWT: no clock but the issuer's takes part. None when it is no JWT, or does not say."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "==="))
        return _seconds(claims["exp"] - claims["iat"])
    except (ValueError, TypeError, KeyError):
        return None
