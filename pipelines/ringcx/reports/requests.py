"""Requests for reports, and their responses: the two legacy reports, and the current API's interaction metadata.

All periods are in UTC, so that no hour is ambiguous or missing. Requests go to

    POST {RINGCX_API_URL}/v1/admin/accounts/{accountId}/reportsStreaming
    POST {RINGCX_CURRENT_URL}/cx/integration/{version}/accounts/{rcAccountId}/sub-accounts/{id}/interaction-metadata
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

import httpx
import pyarrow as pa

from pipelines.errors import on_temporary_disk
from pipelines.ringcx.errors import BodyBroken, CredentialsRefused, ReportInvalid, SourceError, shown_url
from pipelines.ringcx.http.body import BombError
from pipelines.ringcx.http.client import Received, SourceClient, TooSlowError, explanation_of
from pipelines.ringcx.links import sub_account_url
from pipelines.ringcx.reports.columns import ReportName
from pipelines.ringcx.reports.tables import parse_report

MAX_BYTES: Final = 8 << 30
MAX_SECONDS: Final = 3600.0
_CREDENTIALS: Final = "RINGCX_API_TOKEN, RINGCX_USERNAME and RINGCX_PASSWORD, or RINGCENTRAL_JWT"
Direction = Literal["inbound", "outbound"]


@dataclass(frozen=True, slots=True)
class Period:
    """The period that a report is requested for, in whole seconds.

    Attributes:
        start: aware; the first instant.
        end: aware; exclusive. Requests include it, since it is undocumented whether the source's end is inclusive:
            an extra row is already in the ledger, an omitted row would be lost.
    """

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class _Api:
    """The rate limit of an API, and the remedies in its errors: the right and the settings to check, and how to request
    a smaller answer.
    """

    limit: str
    right: str
    address: str
    smaller: str


_LEGACY: Final = _Api(
    limit="reports",
    right="this user has the right READ on Account for the sub-account",
    address="RINGCX_API_URL and RINGCX_ACCOUNT_IDS",
    smaller="or a shorter period",
)
_CURRENT: Final = _Api(
    limit="metadata",
    right="this user has the WEM access right for the sub-account, which interaction metadata needs",
    address="RINGCX_CURRENT_URL, RINGCX_RC_ACCOUNT_ID, RINGCX_ACCOUNT_IDS and RINGCX_METADATA_WINDOW",
    smaller="or with a shorter RINGCX_METADATA_WINDOW",
)


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
    """The source of reports: a client, the API's base address and the log-in."""

    client: SourceClient
    base_url: str
    auth: httpx.Auth

    def _pull(self, api: _Api, url: str, report: ReportName, account_id: str, request: dict[str, object]) -> Answer:
        """Send `request` as JSON, and read the response.

        The response holds personal data, so it is kept in an unnamed file: a killed process leaves nothing behind.

        Raises:
            CredentialsRefused: 401 or 403.
            AccountUnknown: the source does not know the RingCentral account.
            SourceError: any other status except 2xx that another attempt would not change.
            SourceUnavailable: no attempt got a response.
            ConnectionNotAllowed: a certificate, a proxy or a setting does not allow the connection.
            TemporaryDiskFull: the response does not fit into the temporary folder.
            ReportInvalid: the response broke off each time, is longer or slower than the limits above, unpacks to
                hundreds of times its size, is a 2xx without a body, or is not the requested report.
        """
        headers = {"Accept-Encoding": "gzip"}

        def attempt() -> Received:
            file.seek(0)
            file.truncate()
            with self.client.stream(
                "POST", url, limit=api.limit, account_id=account_id, auth=self.auth, json=request, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response, self.auth, api)
                received = self.client.receive(response, file, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)
                file.flush()
                return received

        with on_temporary_disk(f"{report} could not be received"), tempfile.TemporaryFile() as file:
            try:
                received = self.client.retry(attempt)
            except BodyBroken:
                problem = f"broke off each time while the report was read; run the date again, {api.smaller}"
            except BombError:
                problem = (
                    f"sent more than {MAX_BYTES >> 20} MiB, or a body that unpacks to hundreds of times its size, as no"
                    f" report does; run the date again, {api.smaller}"
                )
            except TooSlowError:
                problem = f"was still sending after {MAX_SECONDS:.0f} s; run the date again when the source is faster"
            else:
                return Answer(parse_report(report, file, framed=received.framed), received.size, received.sha256)
        raise ReportInvalid(f"POST {shown_url(url)} {problem}.")


class ReportSource(_Source):
    """The legacy reports."""

    def pull(self, account_id: str, period: Period, direction: Direction | None = None) -> Answer:
        """Fetch one direction of Agent Segment Metadata, or without a direction Global Call Type Detail.

        `period` should have ended at least 5 minutes ago. Raises the errors of `_pull`.
        """
        url = f"{self.base_url}/v1/admin/accounts/{quote(account_id, safe='')}/reportsStreaming"
        if direction is None:
            return self._pull(_LEGACY, url, "global_call_type_detail", account_id, global_call_type_request(period))
        request = agent_segment_request(direction, period)
        return self._pull(_LEGACY, url, "agent_segment_metadata", account_id, request)


@dataclass(frozen=True, slots=True)
class InteractionSource(_Source):
    """The interaction metadata of a RingCentral account in the current API.

    `version` is this part's API version (RINGCX_METADATA_VERSION); recordings are always v1.
    """

    rc_account_id: str
    version: str = "v1"

    def pull(self, account_id: str, window: Period) -> Answer:
        """Fetch the interaction metadata of a past window that is at most RINGCX_METADATA_WINDOW long.

        Raises the errors of `_pull`.
        """
        account_url = sub_account_url(self.base_url, self.rc_account_id, account_id, self.version)
        request = interaction_request(window)
        return self._pull(_CURRENT, f"{account_url}/interaction-metadata", "interaction_metadata", account_id, request)


def _refusal(response: httpx.Response, auth: httpx.Auth, api: _Api) -> SourceError:
    status, request = response.status_code, f"POST {shown_url(response.request.url)}"
    explanation_of(response)  # raises AccountUnknown
    if status in {401, 403}:
        variables = ", ".join(getattr(auth, "variables", ())) or _CREDENTIALS
        return CredentialsRefused(f"{request} was refused with HTTP {status}; check {variables}, and that {api.right}.")
    if status < 300:
        return ReportInvalid(f"{request} was answered with HTTP {status}, which carries no report; run the date again.")
    return SourceError(
        f"{request} was refused with HTTP {status}, which another attempt would not change; check {api.address}."
    )
