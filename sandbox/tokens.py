"""Who is logged in: RingCentral and RingCX tokens, refresh tokens that are spent by use, legacy tokens."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sandbox.config import Credentials

LEGACY_SECONDS = 3600.0
OAUTH_SECONDS = 3600.0
Validity = Literal["good", "expired", "unknown"]


@dataclass(slots=True)
class Tokens:
    """The tokens that were given out and are known. Only the server's event loop touches it."""

    credentials: Credentials
    ticks: Callable[[], float]
    _oauth: dict[str, float] = field(default_factory=dict)
    _bearer: dict[str, float] = field(default_factory=dict)
    _refresh: set[str] = field(default_factory=set)
    _legacy: dict[str, float] = field(default_factory=dict)

    def oauth(self) -> str:
        """A RingCentral access token."""
        token = secrets.token_urlsafe(24)
        self._oauth[token] = self.ticks() + OAUTH_SECONDS
        return token

    def exchange(self, oauth_token: str, life_s: float) -> tuple[str, str] | None:
        """A RingCX pair for a RingCentral token, None if that one is not good."""
        if self._oauth.get(oauth_token, float("-inf")) <= self.ticks():
            return None
        return self._pair(life_s)

    def refresh(self, refresh_token: str, life_s: float) -> tuple[str, str] | None:
        """A new pair; the refresh token is spent. None if it was already, or never was one."""
        if refresh_token not in self._refresh:
            return None
        self._refresh.remove(refresh_token)
        return self._pair(life_s)

    def legacy(self) -> str:
        """A legacy token: an hour, renewed by use."""
        token = secrets.token_urlsafe(24)
        self._legacy[token] = self.ticks() + LEGACY_SECONDS
        return token

    def judge(self, authorization: str, api_token: str) -> Validity:
        """Whether the two headers of a request log it in."""
        now = self.ticks()
        if authorization.startswith("Bearer "):
            ends = self._bearer.get(authorization.removeprefix("Bearer "))
            if ends is None:
                return "unknown"
            return "good" if now < ends else "expired"
        if api_token and secrets.compare_digest(api_token.encode(), self.credentials.api_token.encode()):
            return "good"
        ends = self._legacy.get(api_token)
        if ends is None:
            return "unknown"
        if now >= ends:
            return "expired"
        self._legacy[api_token] = now + LEGACY_SECONDS
        return "good"

    def revoke(self) -> None:
        """Every access token given out so far is expired at once; refresh tokens stay."""
        now = self.ticks()
        self._bearer = dict.fromkeys(self._bearer, now)
        self._legacy = dict.fromkeys(self._legacy, now)

    def _pair(self, life_s: float) -> tuple[str, str]:
        token = _jwt(life_s)
        self._bearer[token] = self.ticks() + life_s
        renewal = secrets.token_urlsafe(24)
        self._refresh.add(renewal)
        return token, renewal


def _jwt(life_s: float) -> str:
    """A token in JWT's form, with a true `exp`; nobody checks its signature."""
    now = int(time.time())
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iat": now, "exp": int(now + life_s), "jti": secrets.token_hex(8)})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*coded, secrets.token_urlsafe(16)))
