"""The check of the source: does it answer, does the log-in work, and may this user read each report of each account?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import httpx

from pipelines.ringcx.auth import LOG_IN_LIMIT, TokenAuth
from pipelines.ringcx.errors import shown_url
from pipelines.ringcx.links import SegmentLinks
from pipelines.ringcx.reports.columns import INTERACTIONS, ReportName
from pipelines.ringcx.reports.requests import Direction, InteractionSource, Period, ReportSource
from pipelines.settings import PlanSettings
from pipelines.steps.connection.recordings import AccountLink
from pipelines.steps.connection.result import Graded, Result, check, compare_clocks
from pipelines.steps.link.rows import links_of, needed_columns
from pipelines.wording import number

# Reports cover calls that ended at least five minutes ago; a recording appears 10 to 15 minutes after its call.
PERIOD = timedelta(minutes=5)
_DELAY = timedelta(minutes=20)


@dataclass(slots=True)
class SourceCheck:
    """The checks of the source; `links` collects those of reports, `segments` makes those of the current API."""

    source: ReportSource
    settings: PlanSettings
    interactions: InteractionSource | None
    segments: SegmentLinks | None
    clock: Callable[[], datetime]
    links: list[AccountLink] = field(default_factory=list)
    _date: str = field(default="", init=False)

    def results(self) -> Iterator[Result]:
        """Yield the results one after another; what depends on a failed check is not tried."""
        answers = check("connection to RingCX", self._answers)
        yield answers
        why = "the source does not answer" if answers.grade == "failed" else ""
        now = self.clock()
        yield check("clock against RingCX", lambda: compare_clocks(self._date, now, fails=False), not_tried=why)
        log_in = check("log-in", self._log_in, not_tried=why)
        yield log_in
        why = why or ("the log-in does not work" if log_in.grade == "failed" else "")
        for account_id in self.settings.ringcx_account_ids:
            for report in self.settings.reports:
                test = partial(self._report, report, account_id)
                yield check(f"{report} of account {account_id}", test, not_tried=why)

    def _answers(self) -> Graded:
        def ask() -> str:
            # Any status will do: the checks below send real requests.
            with self.source.client.stream("GET", self.source.base_url, limit=LOG_IN_LIMIT, account_id="") as response:
                return str(response.headers.get("Date", ""))

        self._date = self.source.client.retry(ask)
        return "ok", f"at {shown_url(self.source.base_url)}"

    def _log_in(self) -> Graded:
        auth = self.source.auth
        if not isinstance(auth, TokenAuth):
            return "ok", "the API token is sent as it is, so the reports below show whether it is accepted"
        auth.sign(httpx.Request("POST", self.source.base_url))
        return "ok", "it returns a token"

    def _report(self, report: ReportName, account_id: str) -> Graded:
        end = (self.clock() - _DELAY).replace(microsecond=0)
        period = Period(end - PERIOD, end)
        if report == INTERACTIONS and self.interactions is not None:
            table = self.interactions.pull(account_id, period).rows
        else:
            direction: Direction | None = "inbound" if report == "agent_segment_metadata" else None
            table = self.source.pull(account_id, period, direction).rows
        needed = needed_columns(report)
        for row in table.select([name for name in needed if name in table.column_names]).to_pylist():
            cells = dict.fromkeys(needed) | row | {"account_id": account_id}
            self.links += [(account_id, link.url) for link in links_of(report, cells, self.segments)]
        return "ok", f"can be read: {number(table.num_rows, 'row')} in {PERIOD // timedelta(minutes=1)} minutes"
