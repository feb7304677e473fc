"""The recordings' side: `GET /api/v1/calls/recordings`, with every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import base64
import binascii

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from sandbox.audio import header_only, mp3_bytes
from sandbox.calls import Recording, find_recording
from sandbox.links import asked_account, asked_file
from sandbox.state import SandboxState, error_answer, throttled_answer
from sandbox.wire import ConnectionReset, CutOff, in_blocks

_HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form action='/login'></form></body></html>\n"
_FRAMING = {"cut_off": "length", "cut_off_chunked": "chunked", "cut_off_unframed": "none"}


async def recording(request: Request) -> Response:
    """Answer for a link of a report's row."""
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["media"] += 1
    state.counters.user_agents[request.headers.get("user-agent", "")] += 1
    _note_leaks(state, request, "media")
    if state.is_foreign(request):
        return await _foreign(state, request)
    answer = await _answer(state, request)
    state.counters.statuses[f"media {answer.status_code}"] += 1
    return answer


async def store(request: Request) -> Response:
    """Answer for a redirect's target: the file, without faults."""
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["store"] += 1
    if state.is_foreign(request):
        return await _foreign(state, request)
    _note_leaks(state, request, "store")
    if not _may_fetch(state, request):
        return _unauthorized()
    return await _sound(state, request)


async def _answer(state: SandboxState, request: Request) -> Response:
    file = asked_file(request.url.query)
    account = asked_account(request.url.query)
    if (wait := state.windows["media"].admit(account)) is not None:
        return throttled_answer(request, wait)
    if file is None:
        return error_answer(request, 400, "file is missing or malformed")
    state.counters.media_by_path[file] += 1
    if not _may_fetch(state, request):
        return _unauthorized()
    found = find_recording(state.plan, account, file) if account in state.config.accounts else None
    return _not_found() if found is None else await deliver(state, request, found, str(request.url))


async def deliver(state: SandboxState, request: Request, found: Recording, link: str) -> Response:
    """Answer with a recording, or with what the knobs put in its place; `link` is where a redirect starts from."""
    file = found.path
    if not state.is_retained(found):
        return _not_found()
    if not state.is_ready(found):
        state.counters.refused["media_not_ready"] += 1
        return _not_ready(state.faults.not_ready_answer(file))
    if state.config.media_latency_s:
        await asyncio.sleep(state.config.media_latency_s)
    if "mozilla" in request.headers.get("user-agent", "").lower():
        return Response(mp3_bytes(found), media_type="audio/mpeg")
    earlier = state.media_progress[file]
    state.media_progress[file] += 1
    fault = state.faults.media_fault(file, earlier)
    if fault is not None:
        state.counters.statuses[f"fault {fault}"] += 1
        return await _faulty(state, request, found, fault, link)
    return await _whole(state, found)


async def _faulty(state: SandboxState, request: Request, found: Recording, fault: str, link: str) -> Response:
    faults = state.faults
    match fault:
        case "reset_early":
            return ConnectionReset()
        case "server_error":
            return error_answer(request, faults.error_status, "The service is unavailable")
        case "throttled":
            return throttled_answer(request, faults.retry_after_s)
        case "unauthorized":
            return _unauthorized()
        case "forbidden":
            return error_answer(request, 403, "Forbidden")
        case "not_found" | "not_yet":
            return _not_found()
        case "still_encoding":
            return _not_ready("202")
        case "empty_body":
            return _not_ready("empty")
        case "html_200":
            return Response(_HTML, media_type="text/html")
        case "json_200":
            return error_answer(request, 200, "Recording not available", details="no such object")
        case "mp3":
            return Response(mp3_bytes(found), media_type="audio/mpeg")
        case "header_only":
            return Response(header_only(found), media_type="audio/wav")
        case "redirect_other_host" | "redirect_same_host":
            other = fault == "redirect_other_host"
            return RedirectResponse(state.links(request).redirect_target(link, other_host=other), 302)
    body = await run_in_threadpool(state.audio.body, found)
    if fault in _FRAMING:
        return CutOff(body, "audio/wav", _FRAMING[fault])
    if fault == "reset":
        return ConnectionReset(body)
    return await _whole(state, found, bytes_per_s=faults.slow_bytes_per_s)


async def _whole(state: SandboxState, found: Recording, *, bytes_per_s: int | None = None) -> Response:
    body = await run_in_threadpool(state.audio.body, found)

    def sent() -> None:
        state.counters.media_complete_by_path[found.path] += 1
        state.counters.media_bytes += len(body)

    return in_blocks(body, "audio/wav", bytes_per_s=bytes_per_s, on_sent=sent)


async def _foreign(state: SandboxState, request: Request) -> Response:
    """Act as the hostile host: note what was sent to it, and serve the file, so that only care reveals the theft."""
    state.counters.requests["evil_host"] += 1
    _note_leaks(state, request, "evil_host")
    return await _sound(state, request)


async def _sound(state: SandboxState, request: Request) -> Response:
    file, account = asked_file(request.url.query), asked_account(request.url.query)
    found = find_recording(state.plan, account, file) if file and account in state.config.accounts else None
    return _not_found() if found is None else await _whole(state, found)


def _note_leaks(state: SandboxState, request: Request, where: str) -> None:
    """Note log-in tokens, which never belong here, and basic auth on another host or from a link.

    A client that the current API redirected here, still at its host, brings that API's token.
    """
    if where == "store" and request.query_params.get("via") == "segment":
        return
    path = asked_file(request.url.query) or ""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if "x-auth-token" in request.headers:
        state.counters.leak(where, "x-auth-token", path)
    if scheme and (where == "evil_host" or scheme.lower() != "basic"):
        state.counters.leak(where, "authorization", path)
    elif _decoded(value) == "root:toor":
        state.counters.leak("link_credentials", "authorization", path)


def _may_fetch(state: SandboxState, request: Request) -> bool:
    wanted = state.config.credentials
    if not wanted.media_username:
        return True
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "basic" and _decoded(value) == f"{wanted.media_username}:{wanted.media_password}"


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _unauthorized() -> Response:
    return PlainTextResponse("Unauthorized", 401, headers={"WWW-Authenticate": 'Basic realm="recordings"'})


def _not_found() -> Response:
    return PlainTextResponse("Not Found", 404)


def _not_ready(how: str) -> Response:
    if how == "202":
        return PlainTextResponse("still encoding, try again in 60 seconds", 202, headers={"Retry-After": "60"})
    return Response(b"", media_type="audio/wav") if how == "empty" else _not_found()
