"""The source as an ASGI application: log-in and reports here, recordings in `media.py`, the current API in
`current.py`, `/sandbox/…` in `admin.py`.
"""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox import admin, current, media, refusals
from sandbox.calls import calls_between
from sandbox.config import SandboxConfig
from sandbox.links import MEDIA_PATH
from sandbox.reports import ReportRequest, ReportRequestError, Row, parse_request, render, rows_of, with_link
from sandbox.state import SandboxState, error_answer, throttled_answer
from sandbox.tokens import OAUTH_SECONDS

API_PREFIXES = ("/voice/api", "/api", "/voice/api/cx", "")
_KINDS = {"recordings": "media", "reportsStreaming": "report", "interaction-metadata": "metadata"}


def make_app(config: SandboxConfig) -> Starlette:
    """Build a sandbox with nothing remembered. Cut-off and reset answers need the server of `server.py`."""
    api = [
        route
        for prefix in API_PREFIXES
        for route in (
            Route(f"{prefix}/v1/auth/login", _legacy_login, methods=["POST"]),
            Route(f"{prefix}/v1/admin/accounts/{{account}}/reportsStreaming", _report, methods=["POST"]),
            Route(f"{prefix}{current.METADATA_PATH}", current.metadata, methods=["POST"]),
            Route(f"{prefix}{current.DOWNLOAD_PATH}", current.download, methods=["GET", "POST"]),
        )
    ]
    app = Starlette(
        routes=[
            Route("/restapi/oauth/token", _oauth, methods=["POST"]),
            Route("/api/auth/login/rc/accesstoken", _exchange, methods=["POST"]),
            Route("/api/auth/token/refresh", _refresh, methods=["POST"]),
            *api,
            Route(MEDIA_PATH, media.recording, methods=["GET"]),
            Route(f"{MEDIA_PATH}/", media.recording, methods=["GET"]),
            Route("/store/recordings", media.store, methods=["GET"]),
            Route("/sandbox/counters", admin.counters, methods=["GET"]),
            Route("/sandbox/reset", admin.reset, methods=["POST"]),
            Route("/sandbox/expire-tokens", admin.expire_tokens, methods=["POST"]),
            Route("/sandbox/faults", admin.faults, methods=["GET", "PUT", "PATCH"]),
            Route("/sandbox/limits", admin.limits, methods=["PUT"]),
            Route("/sandbox/truth", admin.truth, methods=["GET"]),
        ],
        middleware=[Middleware(_InFlight)],
    )
    app.router.redirect_slashes = False
    app.state.sandbox = SandboxState(config)
    return app


class _InFlight:
    """Counts requests as being answered until their last byte, which an endpoint does not see."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/")
        kind = _KINDS.get(path.rpartition("/")[2]) or ("media" if "/recordings/dialogs/" in path else None)
        if kind is None:
            await self._app(scope, receive, send)
            return
        with scope["app"].state.sandbox.counters.flight(kind):
            await self._app(scope, receive, send)


async def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True))


async def _oauth(request: Request) -> Response:
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["oauth"] += 1
    form = await _form(request)
    wanted = state.config.credentials
    try:
        client = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic "), validate=True)
    except binascii.Error:
        client = b""
    if client != f"{wanted.client_id}:{wanted.client_secret}".encode():
        return _oauth_error(state, "invalid_client", "Wrong client id or secret")
    if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
        return _oauth_error(state, "unsupported_grant_type", "Unsupported grant type")
    if form.get("assertion") != wanted.jwt:
        return _oauth_error(state, "invalid_grant", "Invalid JWT")
    token = state.tokens.oauth()
    return JSONResponse({"access_token": token, "token_type": "bearer", "expires_in": int(OAUTH_SECONDS)})


def _oauth_error(state: SandboxState, error: str, description: str) -> Response:
    state.counters.refused["bad_login"] += 1
    return JSONResponse({"error": error, "error_description": description}, 400)


async def _exchange(request: Request) -> Response:
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["exchange"] += 1
    if (wait := state.windows["exchange"].admit("")) is not None:
        return throttled_answer(request, wait)
    form = await _form(request)
    if form.get("rcTokenType") != "Bearer":
        return error_answer(request, 400, "rcTokenType is not supported")
    pair = state.tokens.exchange(form.get("rcAccessToken", ""), state.faults.token_seconds)
    if pair is None:
        state.counters.refused["bad_login"] += 1
        return error_answer(request, 401, "Invalid RingCentral token")
    wants_refresh = request.query_params.get("includeRefresh") == "true"
    return _pair_answer(state, pair[0], pair[1] if wants_refresh else None)


async def _refresh(request: Request) -> Response:
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["refresh"] += 1
    form = await _form(request)
    pair = state.tokens.refresh(form.get("refresh_token", ""), state.faults.token_seconds)
    if pair is None:
        state.counters.refused["spent_refresh"] += 1
        return error_answer(request, 401, "Invalid refresh token")
    return _pair_answer(state, *pair)


def _pair_answer(state: SandboxState, access: str, refresh: str | None) -> Response:
    accounts = state.config.accounts
    return JSONResponse(
        {
            "accessToken": access,
            "refreshToken": refresh,
            "tokenType": "Bearer",
            "mainAccountId": accounts[0],
            "agentDetails": [{"agentId": 1_300_000 + n, "accountId": account} for n, account in enumerate(accounts)],
        }
    )


async def _legacy_login(request: Request) -> Response:
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["legacy_login"] += 1
    form = await _form(request)
    wanted = state.config.credentials
    if (form.get("username"), form.get("password")) != (wanted.username, wanted.password):
        state.counters.refused["bad_login"] += 1
        return error_answer(request, 401, "Invalid username or password")
    return JSONResponse({"authToken": state.tokens.legacy(), "accounts": [int(a) for a in state.config.accounts]})


async def _report(request: Request) -> Response:
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["report"] += 1
    answer = await _report_answer(state, request)
    state.counters.statuses[f"report {answer.status_code}"] += 1
    return answer


async def _report_answer(state: SandboxState, request: Request) -> Response:
    validity = state.tokens.judge(request.headers.get("authorization", ""), request.headers.get("x-auth-token", ""))
    if validity != "good":
        state.counters.refused[f"{validity}_token"] += 1
        return PlainTextResponse("Jwt is expired" if validity == "expired" else "Jwt verification fails", 401)
    account = request.path_params["account"]
    if account not in state.config.accounts:
        return error_answer(request, 403, "READ on Account is needed")
    if (wait := state.windows["reports"].admit(account)) is not None:
        return throttled_answer(request, wait)
    try:
        asked = parse_request(json.loads(await request.body()))
    except ReportRequestError as error:
        return error_answer(request, 400, "Bad report request", details=str(error))
    except ValueError:
        return error_answer(request, 400, "Bad report request", details="the body is not JSON")
    if state.config.recent_periods == "refuse" and asked.end > state.newest_start():
        return error_answer(request, 400, "The period must have ended five minutes ago")
    return _rendered(state, request, account, asked)


def _rendered(state: SandboxState, request: Request, account: str, asked: ReportRequest) -> Response:
    subject = f"{account}/{asked.subject}"
    state.counters.reports[subject] += 1
    earlier = state.report_progress[subject]
    state.report_progress[subject] += 1
    faults = state.faults.report_faults(asked.subject, earlier)
    for fault in sorted(faults):
        state.counters.statuses[f"fault {fault}"] += 1
    refused = refusals.refusal(state, request, faults, right="READ on Account", media_type="text/csv")
    if refused is not None:
        return refused
    links = state.links(request)
    table = []
    for row in _rows(state, account, asked):
        pulls = state.row_progress[row.key]
        state.row_progress[row.key] += 1
        if state.faults.acts("late_rows", row.subject, pulls):
            continue
        link = None
        if row.recording is not None and not state.faults.acts("late_links", row.subject, pulls):
            link = links.link(row.recording, state.faults, variant=row.link_variant)
        table.append(with_link(row, link))
    body, media_type = render(asked.report, table, faults)
    return refusals.sent(body, media_type, faults)


def _rows(state: SandboxState, account: str, asked: ReportRequest) -> list[Row]:
    newest = state.newest_start()
    rows = []
    for call in calls_between(state.plan, account, asked.start, asked.end):
        if not state.is_over(call):
            continue
        for row in rows_of(asked, call):
            inside = asked.start <= row.started_at < asked.end
            at_the_end = state.config.end_inclusive and row.started_at == asked.end
            if (inside or at_the_end) and row.started_at <= newest:
                rows.append(row)
    return rows
