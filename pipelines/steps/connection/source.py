"""The source: does it answer, does the log-in work, and may this user read each report of each account?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx

from pipelines.ringcx.auth import LOG_IN_LIMIT, ApiToken, LegacyPassword, RingCentralJwt, TokenAuth
from pipelines.ringcx.errors import SourceError, SourceUnavailable, place
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.ringcx.reports.bodies import scratch_folder
from pipelines.ringcx.reports.columns import LEGACY, LINK_COLUMN, ReportName
from pipelines.ringcx.reports.interactions import SegmentLinks, is_segment_link, pull_interactions
from pipelines.ringcx.reports.requests import Period, pull_report
from pipelines.ringcx.reports.tables import parse_report
from pipelines.steps.connection.lines import Line, clock_line, failed, not_tried, ok
from pipelines.steps.link.rows import INTERACTIONS, ROWS, links_of
from pipelines.steps.pull.reports import ReportSource
from pipelines.steps.pull.windows import InteractionSource

# Reports cover calls that ended at least five minutes ago; a recording appears 10 to 15 minutes after its call.
PERIOD = timedelta(minutes=5)
_AGO = timedelta(minutes=20)
WINDOW = timedelta(minutes=5)
_NETWORK = "Look at the machine's network: name server, firewall, outbound HTTPS, HTTPS_PROXY"
_WAYS: tuple[tuple[type[httpx.Auth], str], ...] = (
    (RingCentralJwt, "RingCentral JWT"),
    (LegacyPassword, "legacy user and password"),
    (ApiToken, "legacy API token"),
)


@dataclass(slots=True)
class SourceCheck:
    """Looks at the source. `links` and `segments` gather what the reports and the current API give: account and
    address, for `recordings.py`.

    `interactions`: None where the current API is not used.
    """

    source: ReportSource
    accounts: Sequence[str]
    uses_reports: bool
    interactions: InteractionSource | None
    addresses: SegmentLinks | None
    clock: Callable[[], datetime]
    links: list[tuple[str, str]] = field(default_factory=list)
    segments: list[tuple[str, str]] = field(default_factory=list)

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
            if self.interactions is not None:
                subject = f"{INTERACTIONS} of account {account_id}"
                yield not_tried(subject, why) if why else self._interactions(subject, self.interactions, account_id)

    def _answers(self) -> Iterator[Line]:
        """Whether anything answers at the API's address, and what time it is there."""
        url = self.source.base_url

        def ask() -> str:
            with self.source.client.stream("GET", url, limit=LOG_IN_LIMIT, account_id="") as response:
                return str(
                    response.headers.get("Date", "")
                )  # whatever the status: what answers there is asked properly below

        try:
            date, now = self.source.client.retry(ask, attempts=2), self.clock()
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
        try:
            with scratch_folder() as scratch:
                body = pull_report(
                    self.source.client,
                    base_url=self.source.base_url,
                    auth=self.source.auth,
                    account_id=account_id,
                    direction="inbound" if report == "agent_segment_metadata" else None,
                    period=Period(end - PERIOD, end),
                    into=scratch / report,
                )
                table = parse_report(report, body.path, framed=body.framed)
        except (SourceError, LimiterBroken) as error:
            return failed(subject, error)
        self.links += [(account_id, link) for link in table[LINK_COLUMN[report]].to_pylist() if link]
        return ok(subject, f"may be read; {PERIOD // timedelta(minutes=1)} minutes of it have {table.num_rows} rows.")

    def _interactions(self, subject: str, source: InteractionSource, account_id: str) -> Line:
        end = (self.clock() - _AGO).replace(microsecond=0)
        try:
            with scratch_folder() as scratch:
                body = pull_interactions(
                    source.client,
                    base_url=source.base_url,
                    rc_account_id=source.rc_account_id,
                    auth=source.auth,
                    account_id=account_id,
                    window=Period(end - WINDOW, end),
                    version=source.version,
                    into=scratch / INTERACTIONS,
                )
                table = parse_report(INTERACTIONS, body.path, framed=body.framed)
        except (SourceError, LimiterBroken) as error:
            return failed(subject, error)
        names = [name for name in ROWS[INTERACTIONS].needed if name in table.column_names]
        for row in table.select(names).to_pylist():
            cells = dict.fromkeys(ROWS[INTERACTIONS].needed) | row | {"account_id": account_id}
            found = links_of(INTERACTIONS, cells, self.addresses)
            self.segments += [(account_id, link.url) for link in found if is_segment_link(link.url)]
        return ok(subject, f"may be read; {WINDOW // timedelta(minutes=1)} minutes of it have {table.num_rows} rows.")
