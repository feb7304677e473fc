"""Interaction metadata as the current API writes it: what a window holds, and by which ids it names a segment.

The same calls as in the reports, segment by segment, and some messages. `current.py` handles requests and responses.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sandbox.calls import Call, CallPlan, Recording, Segment, calls_between

LONGEST_S = 10_800
_MESSAGES = 5  # one call in so many also has a message


class WindowError(ValueError):
    """The body does not request a valid window; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was asked for, in UTC: segments that ended from `start` on and before `end`."""

    start: datetime
    end: datetime

    @property
    def subject(self) -> str:
        """Its name for knobs and counters."""
        return f"interaction_metadata/{self.start:%Y-%m-%dT%H:%M:%S}"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A row before faults: what knobs choose it by, when its segment ended, its recording, its fields."""

    key: str
    subject: str
    ended_at: datetime
    recording: Recording | None
    fields: Mapping[str, Any]


def parse_window(body: object, *, now: datetime) -> Window:
    """Read the JSON body of `interaction-metadata`.

    Raises:
        WindowError: a field is missing or of another kind, the window is too long, or it is not over.
    """
    if not isinstance(body, dict) or set(body) != {"segmentEndTime", "timeInterval", "timeZone"}:
        raise WindowError("segmentEndTime, timeInterval and timeZone are needed, and nothing else")
    seconds = body["timeInterval"]
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds <= LONGEST_S:
        raise WindowError(f"timeInterval must be a number of seconds up to {LONGEST_S}")
    try:
        zone = ZoneInfo(str(body["timeZone"]))
        local = datetime.strptime(str(body["segmentEndTime"]), "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise WindowError("segmentEndTime or timeZone cannot be read") from error
    start = local.astimezone(UTC)
    window = Window(start, start + timedelta(seconds=seconds))
    if window.end > now:
        raise WindowError("the window is not over")
    return window


def dialog_id(call: Call) -> str:
    """The id of a call's dialog; it ends with the milliseconds of the call's start."""
    return f"s-v-{_uuid(call)}-{_ms(call.started_at)}"


def segment_id(call: Call, segment: Segment) -> str:
    """The id of an agent's segment."""
    return f"p-v-{_uuid(call)}-{_ms(segment.started_at)}-{segment.session_id:013x}"


def find_segment(plan: CallPlan, account_id: str, dialog: str, segment: str) -> tuple[Call, Segment] | None:
    """The segment of these two ids, if there is one."""
    try:
        start = datetime.fromtimestamp(int(dialog.rpartition("-")[2]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    for call in calls_between(plan, account_id, start, start):
        if dialog_id(call) == dialog:
            return next(((call, part) for part in call.segments if segment_id(call, part) == segment), None)
    return None


def rows_of(call: Call) -> Iterator[SegmentRow]:
    """The rows of a call, whatever the window and the present: menu, agents' segments, now and then a message."""
    if call.direction == "inbound":
        yield _menu(call)
    for segment in call.segments:
        yield _agent(call, segment)
    if zlib.crc32(call.uii.encode()) % _MESSAGES == 0:
        yield _message(call)


def render(rows: Sequence[Mapping[str, Any]], faults: Collection[str]) -> bytes:
    """Return the response body; `faults` (`report_bom`, `report_reordered`, `report_no_url_column`) may alter it."""
    listed = [dict(row) for row in rows]
    for row in listed:
        if "report_no_url_column" in faults:
            del row["hasRecording"]
        if "report_reordered" in faults:
            row["futureField"] = {"later": [1, None]}
    if "report_reordered" in faults:
        listed = [dict(reversed(row.items())) for row in listed]
    return (b"\xef\xbb\xbf" if "report_bom" in faults else b"") + json.dumps(listed, ensure_ascii=False).encode()


def _agent(call: Call, segment: Segment) -> SegmentRow:
    key = segment_id(call, segment)
    recording = segment.recording
    fields = _fields(
        call,
        segmentId=key,
        segmentType="AGENT",
        segmentParticipantId=str(segment.agent_id),
        segmentParticipantRcExtensionId=str(segment.agent_id + 60_000_000),
        segmentStartTimeMs=_iso(segment.started_at),
        segmentEndTimeMs=_iso(segment.ended_at),
        segmentDurationMs=int((segment.ended_at - segment.started_at).total_seconds() * 1000),
        segmentAgentGroupId="4711",
        systemDisposition=segment.term_reason,
        agentDisposition=segment.disposition or None,
        agentNotes=call.notes or None,
        hasRecording=recording is not None,
        segmentEvents=None if recording is None else _events(segment),
    )
    return SegmentRow(key, recording.path if recording else call.uii, segment.ended_at, recording, fields)


def _menu(call: Call) -> SegmentRow:
    """The voice menu that a caller hears before an agent."""
    ended_at = call.segments[0].started_at if call.segments else call.ended_at
    key = f"p-v-{_uuid(call)}-{_ms(call.started_at)}-{0:013x}"
    fields = _fields(
        call,
        segmentId=key,
        segmentType="IVR",
        segmentStartTimeMs=_iso(call.started_at),
        segmentEndTimeMs=_iso(ended_at),
        segmentDurationMs=int((ended_at - call.started_at).total_seconds() * 1000),
        hasRecording=False,
    )
    return SegmentRow(key, call.uii, ended_at, None, fields)


def _message(call: Call) -> SegmentRow:
    """A message of the same customer: no voice, and nothing to fetch, whatever it says."""
    key = f"p-d-{_uuid(call)}-{_ms(call.started_at)}-{1:013x}"
    fields = _fields(
        call,
        dialogId=f"s-d-{_uuid(call)}-{_ms(call.started_at)}",
        interactionId=f"d-{_uuid(call)}",
        channelType="EMAIL",
        channelClass="DIGITAL",
        channelEndpointAddress="support@example.com",
        contactEndpointAddress=None,
        segmentId=key,
        segmentType="AGENT",
        segmentParticipantId="1300000",
        segmentStartTimeMs=_iso(call.started_at),
        segmentEndTimeMs=_iso(call.ended_at),
        segmentDurationMs=int((call.ended_at - call.started_at).total_seconds() * 1000),
        hasRecording=None,
        hasTranscript=True,
    )
    return SegmentRow(key, call.uii, call.ended_at, None, fields)


def _fields(call: Call, **own: object) -> dict[str, Any]:
    return {
        "subAccountId": call.account_id,
        "dialogId": dialog_id(call),
        "interactionId": call.uii,
        "channelId": "31001",
        "channelType": "VOICE",
        "channelClass": "VOICE",
        "channelEndpointAddress": call.ani,
        "contactEndpointAddress": call.dnis,
        "dialogOrigination": call.direction.upper(),
        "dialogStartTimeMs": _iso(call.started_at),
        "dialogEndTimeMs": _iso(call.ended_at),
        "dialogDurationMs": int((call.ended_at - call.started_at).total_seconds() * 1000),
        "segmentId": None,
        "segmentType": None,
        "segmentParticipantId": None,
        "segmentParticipantRcExtensionId": None,
        "segmentStartTimeMs": None,
        "segmentEndTimeMs": None,
        "segmentDurationMs": None,
        "segmentAgentGroupId": None,
        "systemDisposition": None,
        "agentDisposition": None,
        "agentNotes": None,
        "hasRecording": None,
        "hasTranscript": False,
        "segmentEvents": None,
        **own,
    }


def _events(segment: Segment) -> list[dict[str, str]]:
    moments = (("REC_START", segment.started_at), ("REC_STOP", segment.ended_at))
    return [{"eventTimeMs": _iso(at), "clientEventTimeMs": _iso(at), "eventType": kind} for kind, at in moments]


def _uuid(call: Call) -> str:
    digits = hashlib.blake2b(f"{call.account_id}/{call.uii}".encode(), digest_size=16).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
