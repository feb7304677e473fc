"""The current API: `interaction-metadata`, and the recording of a segment by its two ids.

Only the Bearer token opens recordings here. `media.py` makes a recording's response, sound or faulty.
"""

from __future__ import annotations

import json
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox import media, refusals
from sandbox.calls import Recording, calls_between
from sandbox.faults import Faults
from sandbox.interactions import Window, WindowError, find_segment, parse_window, render, rows_of
from sandbox.state import SandboxState, error_answer, throttled_answer

BELOW = "/cx/integration/v1/accounts/{rc_account}/sub-accounts/{account}"
METADATA_PATH = f"{BELOW}/interaction-metadata"
DOWNLOAD_PATH = f"{BELOW}/recordings/dialogs/{{dialog}}/segments/{{segment}}"


async def metadata(request: Request) -> Response:
    """The segments that ended in a window."""
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["metadata"] += 1
    answer = await _metadata(state, request)
    state.counters.statuses[f"metadata {answer.status_code}"] += 1
    return answer


async def download(request: Request) -> Response:
    """The recording of a segment."""
    state: SandboxState = request.app.state.sandbox
    state.counters.requests["download"] += 1
    state.counters.user_agents[request.headers.get("user-agent", "")] += 1
    answer = await _download(state, request)
    state.counters.statuses[f"download {answer.status_code}"] += 1
    return answer


async def _metadata(state: SandboxState, request: Request) -> Response:
    if (refusal := _refusal(state, request, "metadata")) is not None:
        return refusal
    account = request.path_params["account"]
    try:
        window = parse_window(json.loads(await request.body()), now=state.config.clock())
    except WindowError as error:
        return error_answer(request, 400, "Bad request", details=str(error))
    except ValueError:
        return error_answer(request, 400, "Bad request", details="the body is not JSON")
    subject = f"{account}/{window.subject}"
    state.counters.windows[subject] += 1
    earlier = state.report_progress[subject]
    state.report_progress[subject] += 1
    faults = state.faults.report_faults(window.subject, earlier)
    for fault in sorted(faults):
        state.counters.statuses[f"fault {fault}"] += 1
    refused = refusals.refusal(state, request, faults, right="WEM access", media_type="application/json")
    return refused or _rendered(state, account, window, faults)


def _rendered(state: SandboxState, account: str, window: Window, faults: frozenset[str]) -> Response:
    if "metadata_backward" in faults:
        window = Window(window.start - (window.end - window.start), window.start)
    rows = []
    for call in calls_between(state.plan, account, window.start, window.end):
        for row in rows_of(call) if state.is_over(call) else ():
            inside = window.start <= row.ended_at < window.end
            if not inside and not (state.config.end_inclusive and row.ended_at == window.end):
                continue
            pulls = state.row_progress[row.key]
            state.row_progress[row.key] += 1
            if state.faults.acts("late_rows", row.subject, pulls):
                continue
            late = row.recording is not None and state.faults.acts("late_links", row.subject, pulls)
            fields = {**row.fields, "hasRecording": False, "segmentEvents": None} if late else row.fields
            rows.append((row.ended_at, fields))
    rows.sort(key=lambda dated: dated[0], reverse="metadata_cap" in faults)
    most = state.faults.metadata_cap_rows if "metadata_cap" in faults else len(rows)
    body = render([fields for _, fields in rows[:most]], faults)
    return refusals.sent(body, "application/json", faults)


async def _download(state: SandboxState, request: Request) -> Response:
    if (refusal := _refusal(state, request, "download", bearer_only=True)) is not None:
        return refusal
    asked = request.path_params
    found = find_segment(state.plan, asked["account"], asked["dialog"], asked["segment"])
    recording: Recording | None = None if found is None else found[1].recording
    if recording is None:
        return error_answer(request, 404, "No recording of that segment")
    state.counters.media_by_path[recording.path] += 1
    link = state.links(request).link(recording, Faults())
    if state.faults.acts("mono_file", recording.path, 0):
        recording = replace(recording, layout="mono", path=f"{recording.path}.mono")
    return await media.deliver(state, request, recording, f"{link}&via=segment")


def _refusal(state: SandboxState, request: Request, limit: str, *, bearer_only: bool = False) -> Response | None:
    bearer = request.headers.get("authorization", "")
    api_token = "" if bearer_only else request.headers.get("x-auth-token", "")
    validity = state.tokens.judge(bearer, api_token)
    if validity != "good":
        state.counters.refused[f"{validity}_token"] += 1
        return PlainTextResponse("Jwt is expired" if validity == "expired" else "Jwt verification fails", 401)
    account = request.path_params["account"]
    known = account in state.config.accounts and request.path_params["rc_account"] == state.config.rc_account_id
    if not known or not state.config.wem:
        return error_answer(request, 403, "WEM access is needed")
    if (wait := state.windows[limit].admit(account)) is not None:
        return throttled_answer(request, wait)
    return None
