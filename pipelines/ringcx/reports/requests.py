"""Request the two legacy reports, in UTC, so that no hour is ambiguous or missing.

Requests go to `POST {base}/v1/admin/accounts/{accountId}/reportsStreaming`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

import httpx

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.reports.bodies import Advice, Answer, pull_body

Direction = Literal["inbound", "outbound"]

_ADVICE: Final = Advice(
    right="this user has the right READ on Account for the sub-account",
    address="RINGCX_API_URL and RINGCX_ACCOUNT_IDS",
    smaller="or a shorter period",
)


@dataclass(frozen=True, slots=True)
class Period:
    """The period that a report is requested for.

    Attributes:
        start: aware; the first instant.
        end: aware; exclusive. We request up to and including it, since the source does not say whether its end is
            inclusive: a row too many is already in the ledger, a row too few would be lost.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("A period needs times with a zone.")
        if self.start >= self.end:
            raise ValueError("A period must end after it starts.")


def agent_segment_request(direction: Direction, period: Period) -> dict[str, object]:
    """Return the body that requests one direction of the Agent Segment Metadata report."""
    name = f"{direction.capitalize()}_Agent_Segment_Metadata_Report"
    groups = ("GateGroup", "Gate") if direction == "inbound" else ("DialGroup", "Campaign")
    everything: dict[str, object] = {}  # an empty list of ids stands for all
    for kind in (*groups, "AgentGroup", "Agent"):
        everything |= {f"secure{kind}Ids": "", f"{kind[0].lower()}{kind[1:]}Ids": []}
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
            **everything,
        },
    }


def global_call_type_request(period: Period) -> dict[str, object]:
    """Return the body that requests the Global Call Type Detail report."""
    kinds = ("Gates", "Campaigns", "IvrStudios", "CloudProfiles", "TracNumbers", "Agents")
    return {
        "reportType": "GLOBAL_CALL_TYPE_DELIMITED",
        "reportCriteria": {
            "criteriaType": "GLOBAL_CALL_TYPE_CRITERIA",
            "startDate": _second_before(period.start).strftime("%Y-%m-%dT%H:%M:%S.000-0000"),
            "endDate": _second_after(period.end).strftime("%Y-%m-%dT%H:%M:%S.000-0000"),
            **{f"contain{kind}": True for kind in kinds},
            "includeNoAnswers": False,
        },
    }


@dataclass(frozen=True, slots=True)
class ReportSource:
    """Where the legacy reports come from: a client, the API's base address and the log-in for it."""

    client: SourceClient
    base_url: str
    auth: httpx.Auth

    def pull(self, account_id: str, period: Period, direction: Direction | None = None) -> Answer:
        """Fetch one direction of Agent Segment Metadata, or without one Global Call Type Detail.

        `period` should have ended at least 5 minutes ago. Raises: as `bodies.pull_body`.
        """
        request = global_call_type_request(period) if direction is None else agent_segment_request(direction, period)
        return pull_body(
            self.client,
            f"{self.base_url.rstrip('/')}/v1/admin/accounts/{quote(account_id, safe='')}/reportsStreaming",
            "global_call_type_detail" if direction is None else "agent_segment_metadata",
            limit="reports",
            account_id=account_id,
            auth=self.auth,
            request=request,
            advice=_ADVICE,
        )


def _second_before(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _second_after(moment: datetime) -> datetime:
    whole = _second_before(moment)
    return whole if whole == moment else whole + timedelta(seconds=1)
