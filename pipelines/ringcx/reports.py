"""Asking for a report: what to send, and the answer as a file of bytes, whole or not at all.

What the bytes say is `tables.py`'s business. Periods are asked for in UTC, so that no hour is ambiguous or missing; the
caller decides which period makes a day, and asks again later for rows that come late.

Source: RINGCX.md §3, `POST {base}/v1/admin/accounts/{accountId}/reportsStreaming`.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import httpx

from pipelines.ringcx.client import SourceClient, is_bomb
from pipelines.ringcx.columns import ReportName
from pipelines.ringcx.errors import CredentialsRefused, ReportInvalid, SourceRefused, place

__all__ = [
    "Direction",
    "Period",
    "PulledBody",
    "ReportName",
    "agent_segment_request",
    "global_call_type_request",
    "pull_agent_segments",
    "pull_global_call_type",
]

Direction = Literal["inbound", "outbound"]

_LIMIT: Final = "reports"
_TRIES: Final = 3  # of a body that breaks off while it is read; requests that get no answer are the client's to repeat
_CREDENTIALS: Final = "RINGCX_API_TOKEN, RINGCX_USERNAME and RINGCX_PASSWORD, or RINGCENTRAL_JWT"


@dataclass(frozen=True, slots=True)
class Period:
    """What a report is asked for.

    Attributes:
        start: aware; the first instant.
        end: aware; exclusive in our terms. We ask up to and including it, since the source does not say whether its end
            is inclusive: a row too many is known already, a row too few would be lost.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("A period needs times with a zone.")
        if self.start >= self.end:
            raise ValueError("A period must end after it starts.")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much of an answer is taken: bytes, seconds of reading, and the clock (seconds) for these."""

    max_bytes: int = 8 << 30
    max_seconds: float = 3600
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class PulledBody:
    """An answer in a file.

    Attributes:
        path: the file.
        size: bytes.
        sha256: of the bytes, in hexadecimal.
        media_type: as the source gave it, without parameters, in lower case; empty when it gave none.
        framed: whether HTTP said where the body ends. If not, a connection that broke looks like the end.
    """

    path: Path
    size: int
    sha256: str
    media_type: str
    framed: bool


def agent_segment_request(direction: Direction, period: Period) -> dict[str, object]:
    """The body that asks for one direction of the Agent Segment Metadata report."""
    name = f"{direction.capitalize()}_Agent_Segment_Metadata_Report"
    through: dict[str, object] = (
        {"secureGateGroupIds": "", "gateGroupIds": [], "secureGateIds": "", "gateIds": []}
        if direction == "inbound"
        else {"secureDialGroupIds": "", "dialGroupIds": [], "secureCampaignIds": "", "campaignIds": []}
    )
    return {
        "reportId": None,
        "destination": None,
        "delimiter": "COMMA",
        "reportType": "CASPER_REPORT",
        "cciReport": True,
        "reportTypeName": name,
        "reportCriteria": {
            "criteriaType": "CASPER_CRITERIA",
            "reportName": name,
            "returnType": "CSV",
            "schedule": {"repeatOption": "ONCE"},
            "accountIds": [],
            "startTimestamp": _second_before(period.start).strftime("%Y-%m-%d %H:%M:%S"),
            "endTimestamp": _second_after(period.end).strftime("%Y-%m-%d %H:%M:%S"),
            "timezoneName": "UTC",
            "startUiiTableKey": "",
            "endUiiTableKey": "",
            **through,
            "secureAgentGroupIds": "",
            "agentGroupIds": [],
            "secureAgentIds": "",
            "agentIds": [],
        },
    }


def global_call_type_request(period: Period) -> dict[str, object]:
    """The body that asks for the Global Call Type Detail report."""
    return {
        "reportType": "GLOBAL_CALL_TYPE_DELIMITED",
        "reportCriteria": {
            "criteriaType": "GLOBAL_CALL_TYPE_CRITERIA",
            "startDate": _second_before(period.start).strftime("%Y-%m-%dT%H:%M:%S.000-0000"),
            "endDate": _second_after(period.end).strftime("%Y-%m-%dT%H:%M:%S.000-0000"),
            "containGates": True,
            "containCampaigns": True,
            "containIvrStudios": True,
            "containCloudProfiles": True,
            "containTracNumbers": True,
            "containAgents": True,
            "includeNoAnswers": False,
        },
    }


def pull_agent_segments(
    client: SourceClient,
    *,
    base_url: str,
    auth: httpx.Auth,
    account_id: str,
    direction: Direction,
    period: Period,
    into: Path,
    limits: BodyLimits = BodyLimits(),
) -> PulledBody:
    """Fetch one direction of the Agent Segment Metadata report into a file.

    Raises: as `pull_global_call_type`.
    """
    request = agent_segment_request(direction, period)
    return _pull(client, base_url=base_url, auth=auth, account_id=account_id, request=request, into=into, limits=limits)


def pull_global_call_type(
    client: SourceClient,
    *,
    base_url: str,
    auth: httpx.Auth,
    account_id: str,
    period: Period,
    into: Path,
    limits: BodyLimits = BodyLimits(),
) -> PulledBody:
    """Fetch the Global Call Type Detail report into a file.

    Args:
        client: asks within the limit `reports` of the account.
        base_url: of the API, as `RINGCX_API_URL`.
        auth: the log-in to the API.
        account_id: the sub-account.
        period: what is asked for; it should have ended at least 5 minutes ago.
        into: the file; replaced if it is there, gone if the pull fails.
        limits: of the answer.

    Raises:
        CredentialsRefused: 401 or 403.
        SourceRefused: another status than 2xx that another try does not change.
        SourceUnavailable: no answer until the client's tries were used up.
        ReportInvalid: the answer broke off each time, is longer or slower than `limits`, unpacks to hundreds of times
            its size, or is a 2xx without a report.
    """
    request = global_call_type_request(period)
    return _pull(client, base_url=base_url, auth=auth, account_id=account_id, request=request, into=into, limits=limits)


def _second_before(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _second_after(moment: datetime) -> datetime:
    whole = _second_before(moment)
    return whole if whole == moment else whole + timedelta(seconds=1)


def _pull(
    client: SourceClient,
    *,
    base_url: str,
    auth: httpx.Auth,
    account_id: str,
    request: dict[str, object],
    into: Path,
    limits: BodyLimits,
) -> PulledBody:
    url = f"{base_url.rstrip('/')}/v1/admin/accounts/{quote(account_id, safe='')}/reportsStreaming"
    try:
        for failures in range(1, _TRIES + 1):
            with client.stream("POST", url, limit=_LIMIT, account_id=account_id, auth=auth, json=request) as response:
                _require_ok(response, auth)
                pulled = _save(client, response, into, limits)
            if pulled is not None:
                return pulled
            if failures < _TRIES:
                client.back_off(failures)
    except BaseException:  # an interrupt too: half a report must not lie about
        into.unlink(missing_ok=True)
        raise
    into.unlink(missing_ok=True)
    raise ReportInvalid(
        f"POST {place(url)} broke off {_TRIES} times while the report was read; run the date again, or a shorter"
        " period."
    )


def _require_ok(response: httpx.Response, auth: httpx.Auth) -> None:
    status = response.status_code
    if status == 200:
        return
    asked = f"POST {place(response.request.url)}"
    if status in {401, 403}:
        variables = ", ".join(getattr(auth, "variables", ())) or _CREDENTIALS
        raise CredentialsRefused(
            f"{asked} was refused with HTTP {status}; check {variables}, and that this user has the right READ on"
            " Account for the sub-account.",
            status=status,
        )
    if status < 300:
        raise ReportInvalid(f"{asked} was answered with HTTP {status}, which carries no report; run the date again.")
    raise SourceRefused(
        f"{asked} was refused with HTTP {status}, which another try does not change; check RINGCX_API_URL and"
        " RINGCX_ACCOUNT_IDS.",
        status=status,
    )


def _save(client: SourceClient, response: httpx.Response, into: Path, limits: BodyLimits) -> PulledBody | None:
    """The body in the file, or None when it broke off."""
    digest = hashlib.sha256()
    size = 0
    began = limits.clock()
    with into.open("wb") as file:
        try:
            for block in response.iter_bytes():  # as it arrives: in larger blocks a trickle would go unnoticed
                client.check_stop()
                size += len(block)
                if excess := _excess(response, size, limits.clock() - began, limits):
                    raise ReportInvalid(f"POST {place(response.request.url)} {excess}")
                digest.update(block)
                file.write(block)
        except httpx.RequestError:
            return None
    declared = response.headers.get("Content-Length", "")
    encoded = "Content-Encoding" in response.headers  # then it counts other bytes than these
    if declared.isdecimal() and size != int(declared) and not encoded:
        return None
    return PulledBody(
        path=into,
        size=size,
        sha256=digest.hexdigest(),
        media_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        framed=_is_framed(response, declared),
    )


def _excess(response: httpx.Response, size: int, seconds: float, limits: BodyLimits) -> str | None:
    if size > limits.max_bytes:
        return f"sent more than {limits.max_bytes >> 20} MiB; ask for a shorter period."
    if seconds > limits.max_seconds:
        return f"was still sending after {limits.max_seconds:.0f} s; run the date again when the source is faster."
    if is_bomb(response, size):
        return "sent a body that unpacks to hundreds of times its size, as no report does; run the date again."
    return None


def _is_framed(response: httpx.Response, declared: str) -> bool:
    codings = response.headers.get("Transfer-Encoding", "").lower()
    return declared.isdecimal() or "chunked" in codings or response.http_version.startswith("HTTP/2")
