"""The source: does it answer, does the log-in work, and may this user read each report of each account?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx

from pipelines.ringcx import reports
from pipelines.ringcx.auth import LOG_IN_LIMIT, ApiToken, LegacyPassword, RingCentralJwt, TokenAuth
from pipelines.ringcx.columns import LINK_COLUMN
from pipelines.ringcx.errors import SourceError, SourceUnavailable, place
from pipelines.ringcx.limits import LimiterBroken
from pipelines.ringcx.reports import Period, ReportName
from pipelines.ringcx.tables import parse_report
from pipelines.steps.connection.lines import Line, clock_line, failed, not_tried, ok
from pipelines.steps.planning.days import INTERACTIONS, LEGACY
from pipelines.steps.pull import ReportSource

# A report covers what ended five minutes ago; a recording is there 10 to 15 minutes after its call (RINGCX.md §4).
PERIOD = timedelta(minutes=5)
_AGO = timedelta(minutes=20)
_METADATA_LIMIT = "metadata"
_WINDOW_S = 60
_NETWORK = "Look at the machine's network: name server, firewall, outbound HTTPS (no HTTPS_PROXY is used)"
_WAYS: tuple[tuple[type[httpx.Auth], str], ...] = (
    (RingCentralJwt, "RingCentral JWT"),
    (LegacyPassword, "legacy user and password"),
    (ApiToken, "legacy API token"),
)


@dataclass(slots=True)
class SourceCheck:
    """Looks at the source. `links` gathers what the reports give: account and link, for `recordings.py`."""

    source: ReportSource
    accounts: Sequence[str]
    uses_reports: bool
    rc_account_id: str | None
    """None where the current API is not used."""
    clock: Callable[[], datetime]
    links: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        """Try one thing after the other; what rests on something that failed is not tried."""
        answers = [*self._answers()]
        yield from answers
        if any(line.verdict == "failed" for line in answers):
            why = "the source does not answer."
        else:
            log_in = self._log_in()
            yield log_in
            why = "the log-in does not work." if log_in.verdict == "failed" else ""
        for account_id in self.accounts:
            for report in LEGACY if self.uses_reports else ():
                subject = f"{report} of account {account_id}"
                yield not_tried(subject, why) if why else self._report(subject, report, account_id)
            if self.rc_account_id is not None:
                subject = f"{INTERACTIONS} of account {account_id}"
                yield not_tried(subject, why) if why else self._interactions(subject, self.rc_account_id, account_id)

    def _answers(self) -> Iterator[Line]:
        """Whether anything answers at the API's address, and what time it is there."""
        url = self.source.base_url
        try:
            with self.source.client.stream(
                "GET", url, limit=LOG_IN_LIMIT, account_id="", attempts=2
            ) as response:  # whatever the status: what answers there is asked properly below
                date, now = response.headers.get("Date"), self.clock()
        except SourceUnavailable as error:
            yield failed("RingCX answers", f"{error} {_NETWORK}")
        except (SourceError, LimiterBroken) as error:
            yield failed("RingCX answers", error)
        else:
            yield ok("RingCX answers", f"at {place(url)}.")
            yield clock_line("clock against RingCX", date, now, fails=False)

    def _log_in(self) -> Line:
        auth = self.source.auth
        way = next((name for kind, name in _WAYS if isinstance(auth, kind)), type(auth).__name__)
        if not isinstance(auth, TokenAuth):
            return ok("log-in", f"{way}: it is sent as it is, so the reports below show whether it is taken.")
        try:
            auth.prepare(httpx.Request("POST", self.source.base_url))
        except SourceUnavailable as error:
            return failed("log-in", f"{way}: {error} {_NETWORK}")
        except (SourceError, LimiterBroken) as error:
            return failed("log-in", f"{way}: {error}")
        return ok("log-in", f"{way}: it gives a token.")

    def _report(self, subject: str, report: ReportName, account_id: str) -> Line:
        end = (self.clock() - _AGO).replace(microsecond=0)
        ask = (
            partial(reports.pull_agent_segments, direction="inbound")
            if report == "agent_segment_metadata"
            else reports.pull_global_call_type
        )
        try:
            with tempfile.TemporaryDirectory(prefix="ringcx-report-") as scratch:
                body = ask(
                    self.source.client,
                    base_url=self.source.base_url,
                    auth=self.source.auth,
                    account_id=account_id,
                    period=Period(end - PERIOD, end),
                    into=Path(scratch, report),
                )
                table = parse_report(report, body.path, framed=body.framed)
        except (SourceError, LimiterBroken) as error:
            return failed(subject, error)
        self.links += [(account_id, link) for link in table[LINK_COLUMN[report]].to_pylist() if link]
        return ok(subject, f"may be read; {PERIOD // timedelta(minutes=1)} minutes of it have {table.num_rows} rows.")

    def _interactions(self, subject: str, rc_account_id: str, account_id: str) -> Line:
        path = f"/accounts/{quote(rc_account_id, safe='')}/sub-accounts/{quote(account_id, safe='')}"
        url = f"{self.source.base_url.rstrip('/')}/cx/integration/v1{path}/interaction-metadata"
        start = (self.clock() - _AGO - timedelta(seconds=_WINDOW_S)).replace(microsecond=0)
        body = {
            "segmentEndTime": start.strftime("%Y-%m-%d %H:%M:%S"),
            "timeInterval": _WINDOW_S,
            "timeZone": "UTC",
        }
        try:
            with self.source.client.stream(
                "POST", url, limit=_METADATA_LIMIT, account_id=account_id, auth=self.source.auth, json=body
            ) as response:
                status, kind = response.status_code, response.headers.get("Content-Type", "")
        except (SourceError, LimiterBroken) as error:
            return failed(subject, error)
        asked = f"POST {place(url)}"
        if status == 403:
            return failed(subject, f"{asked} was refused with HTTP 403; give this user the WEM access right for it")
        if status == 401:
            return failed(subject, f"{asked} was refused with HTTP 401; give this user access to the sub-account")
        if status != 200 or "json" not in kind:
            told = f"{asked} was answered with HTTP {status}{'' if status != 200 else ' and no JSON'}"
            return failed(subject, f"{told}; check RINGCX_API_URL, RINGCX_RC_ACCOUNT_ID and RINGCX_ACCOUNT_IDS")
        return ok(subject, "may be read.")
