"""Both reports as the source writes them: the rows of a period, and the bytes of the response.

`app.py` sends the bytes, or cuts them off.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sandbox.calls import Call, Direction, Recording, Segment

ReportName = Literal["agent_segment_metadata", "global_call_type_detail"]

AGENT_COLUMNS = (
    "Account ID", "UII", "Session ID", "ANI", "DNIS", "Call Type", "Agent ID", "Agent Login ID", "Agent First Name",
    "Agent Last Name", "Agent Username", "Product Type", "Product ID", "Product Name", "Enqueue Dts", "Dequeue Dts",
    "Queue Duration", "Start Dts", "End Dts", "Duration", "Wrap Time", "Dial Dts", "Dial Duration", "Hold Duration",
    "Agent Wait Duration", "Term Party", "Term Reason", "Agent Disposition", "Segment Recording File Name",
    "Segment Recording URL",
)  # fmt: skip
GLOBAL_FIELDS = (
    "uii", "sourceType", "sourceGroupId", "sourceGroupName", "sourceId", "sourceName", "sourceDescription", "ani",
    "dnis", "callStatus", "callResult", "queueTime", "callDuration", "callTermParty", "callTermReason", "billingCode",
    "callNotes", "connectId", "connectedName", "connectedRoute", "connectedDuration", "connectedDisposition",
    "finalDisposition", "connectedTermParty", "connectedTermReason", "connectedExternId", "recordingUrl", "dialType",
    "jsonResult", "callStartDts", "callEndDts", "connectedDts",
)  # fmt: skip
URL_COLUMNS = ("Segment Recording URL", "recordingUrl", "recording_url")
_FORMS = frozenset({"report_no_url_column", "report_wrong_width", "report_reordered", "report_bom", "report_csv"})


class ReportRequestError(ValueError):
    """The body does not ask for a report; the sentence says why."""


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What was asked for. `start` and `end` are UTC; `zone` is the zone of the answer's times."""

    report: ReportName
    direction: Direction | None
    start: datetime
    end: datetime
    zone: ZoneInfo
    no_answers: bool = False
    sources: frozenset[Direction] = frozenset(("inbound", "outbound"))

    @property
    def subject(self) -> str:
        """The report's name for knobs and counters."""
        return f"{self.report}/{self.direction}" if self.direction else self.report


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a report before faults: the identity used for pull counts, what knobs choose it by, its cells."""

    key: str
    subject: str
    call: Call
    started_at: datetime
    recording: Recording | None
    cells: Mapping[str, Any]
    link_variant: int = 0


def parse_request(body: object) -> ReportRequest:
    """Read the JSON body of `reportsStreaming`.

    Raises:
        ReportRequestError: Unknown report, time or zone.
    """
    if not isinstance(body, dict) or not isinstance(criteria := body.get("reportCriteria"), dict):
        raise ReportRequestError("reportCriteria is missing")
    if body.get("reportType") == "GLOBAL_CALL_TYPE_DELIMITED":
        return ReportRequest(
            report="global_call_type_detail",
            direction=None,
            start=_time(criteria.get("startDate"), "%Y-%m-%dT%H:%M:%S.%f%z", None),
            end=_time(criteria.get("endDate"), "%Y-%m-%dT%H:%M:%S.%f%z", None),
            zone=ZoneInfo("UTC"),
            no_answers=bool(criteria.get("includeNoAnswers")),
            sources=frozenset(_sources(criteria)),
        )
    names: dict[object, Direction] = {
        "Inbound_Agent_Segment_Metadata_Report": "inbound",
        "Outbound_Agent_Segment_Metadata_Report": "outbound",
    }
    if body.get("reportType") != "CASPER_REPORT" or body.get("reportTypeName") not in names:
        raise ReportRequestError("reportType is unknown")
    if criteria.get("reportName") != body["reportTypeName"]:
        raise ReportRequestError("reportName differs from reportTypeName")
    try:
        zone = ZoneInfo(str(criteria.get("timezoneName")))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ReportRequestError("timezoneName is unknown") from error
    return ReportRequest(
        report="agent_segment_metadata",
        direction=names[body["reportTypeName"]],
        start=_time(criteria.get("startTimestamp"), "%Y-%m-%d %H:%M:%S", zone),
        end=_time(criteria.get("endTimestamp"), "%Y-%m-%d %H:%M:%S", zone),
        zone=zone,
    )


def _sources(criteria: Mapping[str, Any]) -> list[Direction]:
    wanted: list[Direction] = []
    if criteria.get("containGates", True):
        wanted.append("inbound")
    if criteria.get("containCampaigns", True):
        wanted.append("outbound")
    return wanted


def _time(text: object, form: str, zone: ZoneInfo | None) -> datetime:
    try:
        parsed = datetime.strptime(str(text), form)  # noqa: DTZ007  # the zone is given apart, or is in the form
    except ValueError as error:
        raise ReportRequestError("a time of the period cannot be read") from error
    return (parsed.replace(tzinfo=zone) if zone else parsed).astimezone(UTC)


def rows_of(request: ReportRequest, call: Call) -> list[Row]:
    """The rows that a call has in a report, whatever the period and the present."""
    if request.report == "agent_segment_metadata":
        if call.direction != request.direction:
            return []
        return [_agent_row(request, call, segment) for segment in call.segments]
    if call.direction not in request.sources:
        return []
    if not call.segments:
        hidden = call.direction == "outbound" and not request.no_answers
        return [] if hidden else [_global_row(call, None, 0)]
    return [_global_row(call, segment, number) for number, segment in enumerate(call.segments)]


def _agent_row(request: ReportRequest, call: Call, segment: Segment) -> Row:
    def stamp(at: datetime) -> str:
        return at.astimezone(request.zone).strftime("%m/%d/%Y %H:%M:%S")

    outbound = call.direction == "outbound"
    recording = segment.recording
    cells = {
        "Account ID": call.account_id,
        "UII": f"'{call.uii}",
        "Session ID": str(segment.session_id),
        "ANI": call.ani,
        "DNIS": call.dnis,
        "Call Type": call.direction.upper(),
        "Agent ID": str(segment.agent_id),
        "Agent Login ID": str(segment.agent_id * 10 + 7),
        "Agent First Name": segment.first_name,
        "Agent Last Name": segment.last_name,
        "Agent Username": segment.username,
        "Product Type": "CAMPAIGN" if outbound else "GATE",
        "Product ID": str(segment.product_id),
        "Product Name": segment.product_name,
        "Enqueue Dts": stamp(segment.enqueued_at),
        "Dequeue Dts": stamp(segment.started_at),
        "Queue Duration": _hms((segment.started_at - segment.enqueued_at).total_seconds()),
        "Start Dts": stamp(segment.started_at),
        "End Dts": stamp(segment.ended_at),
        "Duration": _hms((segment.ended_at - segment.started_at).total_seconds()),
        "Wrap Time": _hms(segment.wrap_s),
        "Dial Dts": stamp(segment.started_at - timedelta(seconds=segment.dial_s)) if outbound else "",
        "Dial Duration": _hms(segment.dial_s) if outbound else "",
        "Hold Duration": _hms(segment.hold_s),
        "Agent Wait Duration": _hms(segment.wait_s),
        "Term Party": segment.term_party,
        "Term Reason": segment.term_reason,
        "Agent Disposition": segment.disposition,
        "Segment Recording File Name": recording.path.rpartition("/")[2] if recording else "",
        "Segment Recording URL": "",
    }
    key = f"{call.account_id}/{request.subject}/{call.uii}/{segment.session_id}"
    return Row(key, recording.path if recording else call.uii, call, segment.started_at, recording, cells)


def _global_row(call: Call, segment: Segment | None, number: int) -> Row:
    inbound = call.direction == "inbound"
    mono = call.mono[min(number, len(call.mono) - 1)] if call.mono else None
    cells = {
        "uii": call.uii,
        "sourceType": "GATE" if inbound else "CAMPAIGN",
        "sourceGroupId": 900 if inbound else 901,
        "sourceGroupName": "Main, all queues" if inbound else "Dialer",
        "sourceId": segment.product_id if segment else call.source_id,
        "sourceName": segment.product_name if segment else call.source_name,
        "sourceDescription": None,
        "ani": call.ani,
        "dnis": call.dnis,
        "callStatus": "COMPLETE",
        "callResult": ("ANSWER" if segment else "ABANDON") if inbound else ("ANSWER" if segment else "NOANSWER"),
        "queueTime": call.queue_s,
        "callDuration": int((call.ended_at - call.started_at).total_seconds()),
        "callTermParty": call.segments[-1].term_party if call.segments else "CALLER",
        "callTermReason": "HANGUP",
        "billingCode": "",
        "callNotes": call.notes,
        "connectId": segment.agent_id if segment else 0,
        "connectedName": f"{segment.first_name} {segment.last_name}" if segment else "",
        "connectedRoute": "AGENT" if segment else "",
        "connectedDuration": int((segment.ended_at - segment.started_at).total_seconds()) if segment else 0,
        "connectedDisposition": segment.disposition if segment else "",
        "finalDisposition": call.segments[-1].disposition if call.segments else "",
        "connectedTermParty": segment.term_party if segment else "",
        "connectedTermReason": segment.term_reason if segment else "",
        "connectedExternId": None,
        "recordingUrl": "" if call.segments else None,
        "dialType": "INBOUND" if inbound else "PREDICTIVE",
        "jsonResult": None,
        "callStartDts": _iso(call.started_at),
        "callEndDts": _iso(call.ended_at),
        "connectedDts": _iso(segment.started_at) if segment else None,
    }
    key = f"{call.account_id}/global_call_type_detail/{call.uii}/{number}"
    return Row(key, mono.path if mono else call.uii, call, call.started_at, mono, cells, link_variant=number)


def _hms(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def with_link(row: Row, link: str | None) -> dict[str, Any]:
    """The row's cells with its link, or with empty recording columns."""
    cells = dict(row.cells)
    if link is None:
        if "Segment Recording File Name" in cells:
            cells["Segment Recording File Name"] = ""
        return cells
    cells["Segment Recording URL" if "UII" in cells else "recordingUrl"] = link
    return cells


def render(report: ReportName, rows: Sequence[Mapping[str, Any]], faults: Collection[str]) -> tuple[bytes, str]:
    """The answer's bytes and media type; `faults` may change its form (`report_bom`, `report_reordered`, …)."""
    forms = _FORMS & set(faults)
    as_json = report == "global_call_type_detail" and "report_csv" not in forms
    columns = list(AGENT_COLUMNS if report == "agent_segment_metadata" else GLOBAL_FIELDS)
    if "report_no_url_column" in forms:
        columns = [column for column in columns if column not in URL_COLUMNS]
    if "report_reordered" in forms:
        columns.reverse()
        columns.insert(3, "Future Column" if report == "agent_segment_metadata" else "futureColumn")
    if as_json:
        listed = [{column: row.get(column, "later") for column in columns} for row in rows]
        body, media_type = json.dumps(listed, ensure_ascii=False).encode(), "application/json;charset=UTF-8"
    else:
        heading = columns if report == "agent_segment_metadata" else [_snake(column) for column in columns]
        lines = [[row.get(column, "later") for column in columns] for row in rows]
        body, media_type = _csv(heading, lines, narrow="report_wrong_width" in forms), "text/csv;charset=UTF-8"
    return (b"\xef\xbb\xbf" if "report_bom" in forms else b"") + body, media_type


def _csv(heading: list[str], lines: list[list[Any]], *, narrow: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(heading)
    for number, line in enumerate(lines):
        writer.writerow(line[:-1] if narrow and number == len(lines) // 2 else line)
    return text.getvalue().encode()


def _snake(name: str) -> str:
    return "".join(f"_{character.lower()}" if character.isupper() else character for character in name)
