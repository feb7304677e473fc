"""Sign-in: by password, by the headers of a trusted proxy, by OpenID Connect, or open to everybody.

Each way finds out which person sent a request. The person's rights are read from the current access file, so that a
revoked right is gone with the next request.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Protocol, cast

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pipelines.browser.guard import read_form
from pipelines.browser.people import AccessFile, Person, Role, read_access_file
from pipelines.serving import RateLimit
from pipelines.settings import BrowseAuth, BrowseSettings

_ATTEMPTS_A_MINUTE: Final = 10
_HASHES_AT_ONCE: Final = 2
_ENDED: Final = 10_000
_SENTENCE: Final = "The name or the password is wrong."


class Pages(Protocol):
    """What a way to sign in needs from the application."""

    def sign_in_form(self, sentence: str = "", status: int = 200) -> Response:
        """Return the form for a name and a password."""

    def signed_in(self, request: Request, name: str, *, failed: bool) -> None:
        """Write an attempt to sign in to the access log; raise StorageError if that fails."""


class Everybody:
    """No sign-in: everybody who reaches the page may do everything. Only with BROWSE_AUTH=open."""

    def person(self, request: Request) -> Person | None:  # noqa: ARG002 - as its siblings
        """Return a person with every right."""
        return Person("anyone", frozenset({Role.compliance}))

    def routes(self, pages: Pages) -> Sequence[BaseRoute]:  # noqa: ARG002 - as its siblings
        """Return no routes."""
        return ()


class Sessions:
    """Sessions in a signed cookie, with a fixed expiry; signing out ends a session for good."""

    def __init__(self, hours: float) -> None:
        self._seconds = hours * 3600
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, request: Request, name: str, groups: Sequence[str] = (), mark: str = "") -> Response:
        """Begin a session, valid while `mark` stays the same, and redirect to the page requested before."""
        page = request.session.get("next", "/")
        request.session.clear()
        request.session.update(
            {"id": secrets.token_urlsafe(16), "at": time.time(), "name": name, "groups": list(groups), "mark": mark}
        )
        return RedirectResponse(page, 303)

    def current(self, request: Request, mark_of: Callable[[str], str] = lambda _: "") -> tuple[str, list[str]] | None:
        """Return name and groups of the person signed in; None if nobody is, or if the mark has changed."""
        session = request.session
        if "name" not in session or session["id"] in self._ended or time.time() - session["at"] > self._seconds:
            return None
        if session.get("mark", "") != mark_of(session["name"]):
            return None
        return session["name"], session["groups"]

    def end(self, request: Request) -> None:
        """End the session of a request."""
        if "id" in request.session:
            self._ended[request.session["id"]] = None
            if len(self._ended) > _ENDED:
                self._ended.popitem(last=False)
        request.session.clear()


class ByPassword:
    """Sign-in with names and Argon2 hashes from the access file."""

    def __init__(self, settings: BrowseSettings) -> None:
        self._rules = _rules_of(settings)
        self._sessions = Sessions(settings.browse_session_hours)
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())
        self._hashing = ThreadPoolExecutor(_HASHES_AT_ONCE, thread_name_prefix="hashing")
        self._attempts = RateLimit(_ATTEMPTS_A_MINUTE)
        self._attempts_on_name = RateLimit(_ATTEMPTS_A_MINUTE)
        self._networks = settings.browse_proxy_addresses

    def person(self, request: Request) -> Person | None:
        """Return the person who is signed in, while the access file names that person."""
        rules = self._rules()
        found = self._sessions.current(request, partial(_password_mark, rules))
        return rules.person(found[0]) if found and found[0] in rules.users else None

    def routes(self, pages: Pages) -> Sequence[BaseRoute]:
        """Return the routes of the form, its submission and signing out."""

        def take_turn(attempts: RateLimit, name: str) -> None:
            if wait := attempts.take(name):
                raise HTTPException(429, f"Too many attempts: wait {wait} s.", {"Retry-After": str(wait)})

        async def sign_in(request: Request) -> Response:
            if request.method != "POST":
                return pages.sign_in_form()
            take_turn(self._attempts, _network(address_of(request, self._networks)))
            form = await read_form(request)
            name, password = form.get("name", ""), form.get("password", "")
            take_turn(self._attempts_on_name, hashlib.sha256(name.encode("utf-8", "replace")).hexdigest())
            loop = asyncio.get_running_loop()
            matches = await loop.run_in_executor(self._hashing, self._matches, name, password)
            # A name that nobody has may be a password in the wrong field, and is not kept.
            known = name if name in self._rules().users else "(unknown)"
            await run_in_threadpool(pages.signed_in, request, known, failed=not matches)
            if not matches:
                return pages.sign_in_form(_SENTENCE, 401)
            return self._sessions.begin(request, name, mark=_password_mark(self._rules(), name))

        return (Route("/sign-in", sign_in, methods=["GET", "POST"]), _way_out(self._sessions))

    def _matches(self, name: str, password: str) -> bool:
        grant = self._rules().users.get(name)
        try:
            # An unknown name takes as long as a wrong password. Each takes 64 MiB for a moment.
            return self._hasher.verify((grant and grant.password) or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False


class ByProxy:
    """Sign-in by a proxy that passes the user and groups in headers that only it can set."""

    def __init__(self, settings: BrowseSettings) -> None:
        self._rules = _rules_of(settings)
        self._settings = settings
        secret = settings.browse_proxy_secret
        self._secret = None if secret is None else secret.get_secret_value().encode()

    def person(self, request: Request) -> Person | None:
        """Return the person whom the proxy names, or None if it names nobody."""
        settings = self._settings
        users = request.headers.getlist(settings.browse_proxy_user_header)
        if len(users) != 1 or not users[0].strip() or not self._is_the_proxy(request):
            return None
        groups = ",".join(request.headers.getlist(settings.browse_proxy_groups_header)).split(",")
        return self._rules().person(users[0].strip(), [group.strip() for group in groups])

    def routes(self, pages: Pages) -> Sequence[BaseRoute]:  # noqa: ARG002 - as its siblings
        """Return a route that shows a sentence in place of a form."""

        def sign_in(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
            raise HTTPException(401, "Open this page through the proxy that signs you in.")

        return (Route("/sign-in", sign_in),)

    def _is_the_proxy(self, request: Request) -> bool:
        if self._settings.browse_proxy_addresses and not _is_in(request, self._settings.browse_proxy_addresses):
            return False
        if self._secret is None:
            return True
        given = request.headers.getlist(self._settings.browse_proxy_secret_header)
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), self._secret)


class ByOpenId:
    """Sign-in by OpenID Connect: code flow with PKCE, by Authlib."""

    def __init__(self, settings: BrowseSettings) -> None:
        from authlib.deprecate import AuthlibDeprecationWarning  # noqa: PLC0415 - for those who use it

        with warnings.catch_warnings():
            # It prefers a successor of httpx, and works with httpx.
            warnings.simplefilter("ignore", AuthlibDeprecationWarning)
            from authlib.integrations.starlette_client import OAuth  # noqa: PLC0415 - as above

        self._settings = settings
        self._rules = _rules_of(settings)
        self._sessions = Sessions(settings.browse_session_hours)
        secret = settings.browse_oidc_client_secret
        issuer = (settings.browse_oidc_issuer or "").rstrip("/")
        self._provider: Any = OAuth().register(
            "provider",
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_id=settings.browse_oidc_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            client_kwargs={"scope": settings.browse_oidc_scope, "code_challenge_method": "S256", "timeout": 10},
        )

    def person(self, request: Request) -> Person | None:
        """Return the person who is signed in, or None."""
        found = self._sessions.current(request)
        return self._rules().person(*found) if found else None

    def routes(self, pages: Pages) -> Sequence[BaseRoute]:
        """Return the routes to the provider, back from it, and for signing out."""
        from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 - as above
        from httpx import HTTPError  # noqa: PLC0415 - as above
        from joserfc.errors import JoseError  # noqa: PLC0415 - as above

        failures = (AuthlibBaseError, HTTPError, JoseError, ValueError, KeyError, RuntimeError)

        async def sign_in(request: Request) -> Response:
            try:
                back = f"{self._settings.browse_origin}/signed-in"
                response: Response = await self._provider.authorize_redirect(request, back)
            except failures:
                raise HTTPException(502, "The identity provider does not answer; try again later.") from None
            return response

        async def signed_in(request: Request) -> Response:
            try:
                token = await self._provider.authorize_access_token(request)
                claims = token["userinfo"]
            except failures:
                raise HTTPException(403, "The identity provider did not confirm who you are.") from None
            name = claims.get(self._settings.browse_oidc_user_claim)
            if not isinstance(name, str) or not name or claims.get("email_verified") is False:
                raise HTTPException(
                    403, "The identity provider sent no user name, or an e-mail address that is not verified."
                )
            known = self._rules().groups
            listed = claims.get(self._settings.browse_oidc_groups_claim) or []
            groups = [group for group in listed if group in known] if isinstance(listed, list) else []
            await run_in_threadpool(pages.signed_in, request, name[:200], failed=False)
            return self._sessions.begin(request, name, groups)

        return (Route("/sign-in", sign_in), Route("/signed-in", signed_in), _way_out(self._sessions))


WAYS_TO_SIGN_IN: Final[Mapping[BrowseAuth, Callable[[BrowseSettings], ByPassword | ByProxy | ByOpenId | Everybody]]] = {
    "password": ByPassword,
    "proxy": ByProxy,
    "oidc": ByOpenId,
    "open": lambda _: Everybody(),
}
"""The ways to sign in, by BROWSE_AUTH; each raises SettingsError if the access file cannot be used."""


def address_of(request: Request, networks: Sequence[str] = ()) -> str:
    """Return the client's address: the last address that a proxy in these networks forwarded, else the peer's."""
    peer = request.client.host if request.client else ""
    if networks and _is_in(request, networks):
        last = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        try:
            return str(ip_address(last))
        except ValueError:
            return peer
    return peer


def _rules_of(settings: BrowseSettings) -> Callable[[], AccessFile]:
    """Return a function that reads the access file; raise SettingsError if the file cannot be read now."""
    read = partial(read_access_file, cast("Path", settings.browse_access_file))  # without one, only "open" is allowed
    read()
    return read


def _is_in(request: Request, networks: Sequence[str]) -> bool:
    try:
        peer = ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return any(peer in ip_network(network) for network in networks)


def _network(address: str) -> str:
    """Return the key for counting attempts: an IPv4 address, or the /64 of an IPv6 address (one per customer line)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


def _password_mark(rules: AccessFile, name: str) -> str:
    """Return a mark that changes with a person's password but reveals nothing: the hash has a random salt."""
    grant = rules.users.get(name)
    return hashlib.sha256(((grant and grant.password) or "").encode()).hexdigest()[:32]


def _way_out(sessions: Sessions) -> Route:
    def sign_out(request: Request) -> Response:
        sessions.end(request)
        return RedirectResponse("/signed-out", 303)

    return Route("/sign-out", sign_out, methods=["POST"])
