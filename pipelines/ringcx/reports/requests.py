"""Requests for reports, and their responses: the two legacy reports, and the current API's interaction metadata.

All periods are in UTC, so that no hour is ambiguous or missing.
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, Literal
from urllib.parse import quote

import httpx
import pyarrow as pa

from pipelines.errors import on_temporary_disk
from pipelines.ringcx.auth import OriginAuth
from pipelines.ringcx.errors import BodyBroken, CredentialsRefused, ReportInvalid, SourceError, shown_url
from pipelines.ringcx.http.body import BombError
from pipelines.ringcx.http.client import Received, SourceClient, TooSlowError, explanation_of
from pipelines.ringcx.links import sub_account_url
from pipelines.ringcx.reports.columns import ReportName
from pipelines.ringcx.reports.tables import parse_report

MAX_BYTES: Final = 2 << 30  # a million rows have half of that, and the text of JSON is in memory
MAX_SECONDS: Final = 3600.0
Direction = Literal["inbound", "outbound"]


@dataclass(frozen=True, slots=True)
class Period:
    """The period that a report is requested for, in whole seconds; `start` and `end` (exclusive) are aware.

    Requests include the end, since it is undocumented whether the source's is inclusive: an extra row is already in the
    ledger, an omitted row would be lost.
    """

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole report: its rows from `parse_report`, and the size in bytes and SHA-256 (hex) of its unpacked body."""

    rows: pa.Table
    size: int
    sha256: str


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
            "startTimestamp": f"{period.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "endTimestamp": f"{period.end.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
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
            "startDate": f"{period.start.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000-0000",
            "endDate": f"{period.end.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000-0000",
            **{f"contain{kind}": True for kind in kinds},
            "includeNoAnswers": False,
        },
    }


def interaction_request(window: Period) -> dict[str, object]:
    """Return the body that requests the segments that ended in a window of whole seconds from `segmentEndTime`."""
    return {
        "segmentEndTime": f"{window.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        "timeInterval": (window.end - window.start) // timedelta(seconds=1),
        "timeZone": "UTC",
    }


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of reports: a client, the API's base address and the log-in.

    Errors name the right and the settings to check.
    """

    client: SourceClient
    base_url: str
    auth: OriginAuth
    _limit: ClassVar[str]
    _right: ClassVar[str]
    _settings: ClassVar[str]

    def _pull(self, url: str, report: ReportName, account_id: str, request: dict[str, object]) -> Answer:
        """Send `request` as JSON, and read the response.

        The response holds personal data, so it is kept in an unnamed file: a killed process leaves nothing behind.
        Raises CredentialsRefused after 401 or 403; AccountUnknown; ReportInvalid if the response broke off each time,
        exceeds `MAX_BYTES` or `MAX_SECONDS`, unpacks to hundreds of times its size, or is not the requested report;
        SourceError after any other status; TemporaryDiskFull; and the errors of `SourceClient`.
        """
        headers = {"Accept-Encoding": "gzip"}

        def attempt() -> Received:
            file.seek(0)
            file.truncate()
            with self.client.stream(
                "POST", url, limit=self._limit, account_id=account_id, auth=self.auth, json=request, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise self._refusal(response)
                received = self.client.receive(response, file.write, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)
                file.flush()
                return received

        with on_temporary_disk(f"{report} could not be received"), tempfile.TemporaryFile() as file:
            try:
                received = self.client.retry(attempt)
            except BodyBroken:
                problem = "broke off each time"
            except BombError:
                problem = f"is longer than {MAX_BYTES >> 20} MiB, or unpacks to hundreds of times its size"
            except TooSlowError:
                problem = f"took longer than {MAX_SECONDS:.0f} s"
            else:
                return Answer(parse_report(report, file, framed=received.framed), received.size, received.sha256)
        raise ReportInvalid(f"The report from POST {shown_url(url)} {problem}; run the date again.")

    def _refusal(self, response: httpx.Response) -> SourceError:
        status, request = response.status_code, f"POST {shown_url(response.request.url)}"
        explanation_of(response)  # raises AccountUnknown
        if status in {401, 403}:
            remedy = f"check {', '.join(self.auth.variables)}, and that {self._right}"
            return CredentialsRefused(f"{request} was refused with HTTP {status}; {remedy}.")
        why = f"was answered with HTTP {status} instead of a report; check {self._settings}"
        return (ReportInvalid if status < 300 else SourceError)(f"{request} {why}.")  # 204: only this window is empty


class ReportSource(_Source):
    """The legacy reports."""

    _limit = "reports"
    _right = "this user has the right READ on Account for the sub-account"
    _settings = "RINGCX_API_URL and RINGCX_ACCOUNT_IDS"

    def pull(self, account_id: str, period: Period, direction: Direction | None = None) -> Answer:
        """Fetch one direction of Agent Segment Metadata, or without a direction Global Call Type Detail.

        `period` should have ended at least 5 minutes ago.
        """
        url = f"{self.base_url}/v1/admin/accounts/{quote(account_id, safe='')}/reportsStreaming"
        if direction is None:
            return self._pull(url, "global_call_type_detail", account_id, global_call_type_request(period))
        return self._pull(url, "agent_segment_metadata", account_id, agent_segment_request(direction, period))


@dataclass(frozen=True, slots=True)
class InteractionSource(_Source):
    """The interaction metadata of a RingCentral account in the current API; recordings are always of version v1."""

    rc_account_id: str
    version: str = "v1"
    _limit = "metadata"
    _right = "this user has the WEM access right for the sub-account, which interaction metadata needs"
    _settings = "RINGCX_CURRENT_URL, RINGCX_RC_ACCOUNT_ID, RINGCX_ACCOUNT_IDS and RINGCX_METADATA_WINDOW"

    def pull(self, account_id: str, window: Period) -> Answer:
        """Fetch the interaction metadata of a past window that is at most RINGCX_METADATA_WINDOW long."""
        account_url = sub_account_url(self.base_url, self.rc_account_id, account_id, self.version)
        url = f"{account_url}/interaction-metadata"
        return self._pull(url, "interaction_metadata", account_id, interaction_request(window))
