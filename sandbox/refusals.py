"""What a report or a window of interaction metadata is answered with instead, and how its body breaks off."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox.state import SandboxState, error_answer, throttled_answer
from sandbox.wire import ConnectionReset, CutOff, in_blocks

_HTML = b"<html><head><title>RingCX</title></head><body>Please sign in.</body></html>"
_CUT = {"report_cut_off": "length", "report_cut_off_chunked": "chunked", "report_cut_off_unframed": "none"}


def refusal(
    state: SandboxState, request: Request, faults: Collection[str], *, right: str, media_type: str
) -> Response | None:
    """The answer that a knob puts in the place of the rows, if one does; `right`: what a 403 says is needed."""
    if "report_server_error" in faults:
        return error_answer(request, state.faults.error_status, "The service is unavailable")
    if "report_throttled" in faults:
        return throttled_answer(request, state.faults.retry_after_s)
    if "report_unauthorized" in faults:
        return PlainTextResponse("Jwt is expired", 401)
    if "report_forbidden" in faults:
        return error_answer(request, 403, f"{right} is needed")
    if "report_html_200" in faults:
        return Response(_HTML, media_type="text/html")
    if "report_json_error_200" in faults:
        return error_answer(request, 200, "The report failed", details="internal error")
    if "report_empty_body" in faults:
        return Response(b"", media_type=media_type)
    return None


def sent(body: bytes, media_type: str, faults: Collection[str]) -> Response:
    """The rows' bytes, whole or broken off."""
    for fault, framing in _CUT.items():
        if fault in faults:
            return CutOff(body, media_type, framing)
    if "report_reset" in faults:
        return ConnectionReset(body, media_type)
    return in_blocks(body, media_type, declare_length=False)
