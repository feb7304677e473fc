"""Asking for a report: what to send, and the answer as a file of bytes, whole or not at all.

What the bytes say is `tables.py`'s business. Periods are asked for in UTC, so that no hour is ambiguous or missing; the
caller decides which period makes a day, and asks again later for rows that come late.

Source: RINGCX.md §3, `POST {base}/v1/admin/accounts/{accountId}/reportsStreaming`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import httpx

from pipelines.ringcx.bodies import USUAL, Advice, Asked, BodyLimits, PulledBody, pull_body
from pipelines.ringcx.client import SourceClient

Direction = Literal["inbound", "outbound"]

_LIMIT: Final = "reports"
_ADVICE: Final = Advice(
    right="this user has the right READ on Account for the sub-account",
    address="RINGCX_API_URL and RINGCX_ACCOUNT_IDS",
    smaller="or a shorter period",
)


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
    limits: BodyLimits = USUAL,
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
    limits: BodyLimits = USUAL,
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
    return pull_body(client, Asked(url, _LIMIT, account_id, auth, request, _ADVICE), into=into, limits=limits)
