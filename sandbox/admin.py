"""`/sandbox/…`: for tests and the demo to look inside and to turn knobs. The real source has nothing like it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.calls import Call, Recording, calls_between
from sandbox.faults import Faults
from sandbox.interactions import dialog_id, segment_id
from sandbox.state import SandboxState


async def counters(request: Request) -> Response:
    """What was seen since the start or the last reset."""
    state: SandboxState = request.app.state.sandbox
    violations = {name: windows.violations for name, windows in state.windows.items()}
    return JSONResponse(state.counters.to_json(violations))


async def reset(request: Request) -> Response:
    """Counters to nothing, knobs and limits as at the start; log-ins stay."""
    request.app.state.sandbox.reset()
    return Response(status_code=204)


async def expire_tokens(request: Request) -> Response:
    """Every access token is expired at once; refresh tokens stay good."""
    request.app.state.sandbox.tokens.revoke()
    return Response(status_code=204)


async def faults(request: Request) -> Response:
    """GET: the knobs. PUT: these and no others. PATCH: these as well. The count of "first n" starts again."""
    state: SandboxState = request.app.state.sandbox
    if request.method != "GET":
        try:
            over = state.faults if request.method == "PATCH" else None
            state.set_faults(Faults.parse(dict(await request.json()), over=over))
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
    return JSONResponse(state.faults.to_json())


async def limits(request: Request) -> Response:
    """PUT `{"reports": "2/60", "exchange": "5/60", "media": "none", "metadata": "3/60,9/900", …}`, any of them."""
    state: SandboxState = request.app.state.sandbox
    try:
        state.set_limits(**{str(name): str(text) for name, text in dict(await request.json()).items()})
    except (TypeError, ValueError) as error:
        return JSONResponse({"error": str(error)}, 400)
    return Response(status_code=204)


async def truth(request: Request) -> Response:
    """The recordings that exist by now for a date: `?date=YYYY-MM-DD`, optional `account`, `timezone` (UTC)."""
    state: SandboxState = request.app.state.sandbox
    asked = request.query_params
    try:
        day = date.fromisoformat(asked["date"])
        zone = ZoneInfo(asked.get("timezone", "UTC"))
    except (KeyError, ValueError, ZoneInfoNotFoundError):
        return JSONResponse({"error": "date=YYYY-MM-DD is needed, and timezone is an IANA name."}, 400)
    accounts = [asked["account"]] if "account" in asked else list(state.config.accounts)
    listed = await run_in_threadpool(_listed, state, day, zone, accounts)
    return JSONResponse(
        {
            "date": day.isoformat(),
            "timezone": zone.key,
            "accounts": accounts,
            "expected": dict(Counter(item["expected"] for item in listed)),
            "recordings": listed,
        }
    )


def _listed(state: SandboxState, day: date, zone: ZoneInfo, accounts: list[str]) -> list[dict[str, Any]]:
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    end = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    found = (pair for account in accounts for pair in _existing(state, account, start, end))
    return [_described(state, call, item) for call, item in sorted(found, key=lambda pair: pair[1].path)]


def _existing(state: SandboxState, account: str, start: datetime, end: datetime) -> Iterator[tuple[Call, Recording]]:
    if account not in state.config.accounts:
        return
    newest = state.newest_start()
    for call in calls_between(state.plan, account, start, end):
        if not state.is_over(call):
            continue
        for item in call.recordings():
            if start <= item.started_at < end and item.started_at <= newest:
                yield call, item


def _described(state: SandboxState, call: Call, item: Recording) -> dict[str, Any]:
    digest = state.audio.digest(item)
    expected = state.faults.expected_state(item.path)
    if expected == "archived" and not state.is_retained(item):
        expected = "missing"
    return {
        "file": item.path,
        "recording_id": f"{item.account_id}/{item.path}",
        "segment": _segment_of(call, item),
        "account_id": item.account_id,
        "uii": item.uii,
        "direction": call.direction,
        "layout": item.layout,
        "size": digest.size,
        "sha256": digest.sha256,
        "start": item.started_at.isoformat(),
        "duration_s": item.duration_s,
        "ready_at": (item.ready_from + timedelta(seconds=state.config.ready_after_s)).isoformat(),
        "expected": expected,
        "faults": state.faults.touching(item.path),
    }


def _segment_of(call: Call, item: Recording) -> dict[str, str] | None:
    """How the current API names a stereo recording; it knows no other."""
    for part in call.segments:
        if part.recording is item:
            dialog, segment = dialog_id(call), segment_id(call, part)
            recording_id = f"{item.account_id}/{dialog}/{segment}"
            return {"dialog_id": dialog, "segment_id": segment, "recording_id": recording_id}
    return None
