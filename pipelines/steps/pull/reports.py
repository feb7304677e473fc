"""One report of one date: asked for, parsed, compared with the rows seen before, the difference kept.

All requests of an account are answered and parsed before a row of it is written: a report that is refused leaves
nothing behind. Not here: what a row's link leads to (`links.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa

from pipelines.ledger.diff import diff_rows
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import ReportInvalid, SourceError
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.reports.bodies import PulledBody, scratch_folder
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.requests import Direction, Period, pull_report
from pipelines.ringcx.reports.tables import lines_skipped, parse_report

# "A report covers a period that ended at least 5 minutes ago" (RingCX report documentation).
SETTLING = timedelta(minutes=5)
# An answer that is no report is asked for again at once: HTML in the place of a report rarely comes twice.
TRIES = 3
# Agent Segment Metadata is two reports at the source, which together are the one we mean.
PARTS: Mapping[ReportName, tuple[Direction | None, ...]] = {
    "agent_segment_metadata": ("inbound", "outbound"),
    "global_call_type_detail": (None,),
}


class DayNotOver(Exception):  # noqa: N818 - no fault of anybody: the day has hardly begun
    """The date has no period yet that a report can cover."""


class PullFailed(Exception):  # noqa: N818 - the verdict on a pull, as in ringcx/errors.py
    """The report of at least one account could not be taken; the others' rows are kept.

    Attributes:
        failures: account id -> the error of that account.
        pulls: what was taken from the accounts that answered.
    """

    def __init__(
        self, report: ReportName, day: date, failures: dict[str, SourceError], pulls: Sequence[PullRecord]
    ) -> None:
        reasons = " ".join(f"Account {account}: {error}" for account, error in failures.items())
        super().__init__(f"{report} of {day} could not be taken for {len(failures)} accounts. {reasons}")
        self.failures = failures
        self.pulls = tuple(pulls)


@dataclass(frozen=True, slots=True)
class ReportSource:
    """Where reports come from: a client, the API's base address and the log-in for it."""

    client: SourceClient
    base_url: str
    auth: httpx.Auth


def settled_period(
    bounds: tuple[datetime, datetime], now: datetime, day: date, settling: timedelta = SETTLING
) -> Period:
    """The part of a day, given by its UTC bounds, that a report can cover at `now`.

    Raises:
        DayNotOver: the day began less than `settling` ago, or has not begun.
    """
    start, end = bounds
    settled = (now - settling).replace(microsecond=0)
    if settled <= start:
        raise DayNotOver(
            f"No report of {day} can be asked for before {start + settling:%Y-%m-%d %H:%M} UTC: RingCX reports cover "
            f"periods that ended at least {settling // timedelta(minutes=1)} minutes ago. Run this date again then."
        )
    return Period(start, min(end, settled))


def pull_each(
    report: ReportName, day: date, account_ids: Sequence[str], pull: Callable[[str], PullRecord]
) -> list[PullRecord]:
    """Pull the report of each account; one that fails does not keep the others from theirs.

    Raises:
        PullFailed: some accounts' reports were refused or unavailable; what the others gave is kept.
    """
    pulls: list[PullRecord] = []
    failures: dict[str, SourceError] = {}
    for account_id in account_ids:
        try:
            pulls.append(pull(account_id))
        except SourceError as error:
            failures[account_id] = error
    if failures:
        raise PullFailed(report, day, failures, pulls)
    return pulls


def whole_answer(report: ReportName, ask: Callable[[], PulledBody], log: logging.Logger) -> tuple[PulledBody, pa.Table]:
    """One request's answer, parsed; asked for again while it is no report."""
    tries = 0
    while True:
        tries += 1
        body = ask()
        try:
            return body, parse_report(report, body.path, framed=body.framed)
        except ReportInvalid as error:
            if tries == TRIES:
                raise
            log.warning("%s Asking again, try %d of %d.", error, tries + 1, TRIES)


@dataclass(frozen=True, slots=True)
class ReportPull:
    """One report of one date, about to be pulled for every account."""

    report: ReportName
    day: date
    period: Period
    source: ReportSource
    ledger: Ledger
    run_id: str
    clock: Callable[[], datetime]
    log: logging.Logger

    def run(self, account_ids: Sequence[str]) -> list[PullRecord]:
        """Pull the report of each account and append its new and changed rows to the ledger.

        Raises:
            PullFailed: some accounts' reports were refused or unavailable; what the others gave is kept.
        """
        return pull_each(self.report, self.day, account_ids, self._account)

    def _account(self, account_id: str) -> PullRecord:
        pulled_at = self.clock()
        # Before the pull, so that the memory for reading the ledger's rows does not add to that of the pulled rows.
        seen = self.ledger.latest_rows(self.report, self.day, columns=["row_key", "row_hash"], account_id=account_id)
        bodies, rows, skipped = self._identified(account_id)
        difference = diff_rows(rows, seen)
        self.ledger.append_rows(
            self.report, self.day, difference.fresh(), account_id=account_id, pulled_at=pulled_at, run_id=self.run_id
        )
        record = PullRecord(
            report=self.report,
            day=self.day,
            account_id=account_id,
            period_start=self.period.start,
            period_end=self.period.end,
            pulled_at=pulled_at,
            run_id=self.run_id,
            size=sum(body.size for body in bodies),
            sha256="+".join(body.sha256 for body in bodies),
            rows=rows.num_rows,
            new=difference.new,
            changed=difference.changed,
            unchanged=difference.unchanged,
            vanished=difference.vanished,
            with_link=rows.num_rows - rows[LINK_COLUMN[self.report]].null_count,
            lines_skipped=skipped,
        )
        self.ledger.append_pull(record)
        self.log.info(
            "account %s: %d rows, %d new, %d changed, %d unchanged, %d vanished, %d with a link",
            *(account_id, record.rows, record.new, record.changed, record.unchanged, record.vanished),
            record.with_link,
        )
        return record

    def _identified(self, account_id: str) -> tuple[list[PulledBody], pa.Table, int]:
        """Return the account's answers, all their rows, and how many lines were none; the parsed parts are let go."""
        bodies, parsed = [], []
        with scratch_folder() as scratch:
            for half in PARTS[self.report]:
                ask = partial(self._asked, account_id, half, scratch / (half or "calls"))
                body, table = whole_answer(self.report, ask, self.log)
                bodies.append(body)
                parsed.append(table)
        joined = pa.concat_tables(parsed, promote_options="default")
        return bodies, with_row_identity(self.report, joined, account_id), sum(map(lines_skipped, parsed))

    def _asked(self, account_id: str, half: Direction | None, into: Path) -> PulledBody:
        return pull_report(
            self.source.client,
            base_url=self.source.base_url,
            auth=self.source.auth,
            account_id=account_id,
            direction=half,
            period=self.period,
            into=into,
        )
