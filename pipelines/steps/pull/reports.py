"""The pull of a legacy report of one date: request it, parse it, and append what differs from the ledger's rows.

All responses for an account are parsed before any row is written: a report that is refused leaves nothing behind.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial

import pyarrow as pa

from pipelines.calendar import FIRST_DAY
from pipelines.errors import ExpectedError
from pipelines.ledger.diff import diff_rows
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import NotAReport, SourceError
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.requests import Answer, Direction, Period, ReportSource
from pipelines.ringcx.reports.tables import lines_skipped
from pipelines.ringcx.reports.times import parse_report_time, uii_time
from pipelines.wording import number

# "A report covers a period that ended at least 5 minutes ago" (RingCX report documentation).
SETTLING = timedelta(minutes=5)
# An answer that is not a report is requested again immediately: HTML in place of a report rarely arrives twice.
_ATTEMPTS = 3
_SAMPLE = 200
# A call is reported when its agent has finished with it. The UII does not say which of two equal hours it means.
_LATE = timedelta(hours=1)
# Agent Segment Metadata is two reports at the source.
PARTS: Mapping[ReportName, tuple[Direction | None, ...]] = {
    "agent_segment_metadata": ("inbound", "outbound"),
    "global_call_type_detail": (None,),
}


def settled_period(bounds: tuple[datetime, datetime], now: datetime, day: date, settling: timedelta) -> Period:
    """Return the part of a day, given by its UTC bounds, that a report can cover at `now`, or raise ExpectedError."""
    start, end = bounds
    settled = (now - settling).replace(microsecond=0)
    if settled <= start:
        raise ExpectedError(
            f"No report of {day} can be requested before {start + settling:%Y-%m-%d %H:%M} UTC: RingCX reports cover "
            f"periods that ended at least {settling // timedelta(minutes=1)} minutes ago. Run this date again then."
        )
    return Period(start, min(end, settled))


def pull_each(
    report: ReportName, day: date, account_ids: Sequence[str], pull: Callable[[str], PullRecord]
) -> list[PullRecord]:
    """Pull the report of each account; raise ExpectedError at the end if some failed. The other rows are kept."""
    pulls: list[PullRecord] = []
    failures: list[str] = []
    for account_id in account_ids:
        try:
            pulls.append(pull(account_id))
        except SourceError as error:
            failures.append(f"Account {account_id}: {error}")
    if failures:
        accounts = number(len(failures), "account")
        raise ExpectedError(f"{report} of {day} could not be pulled for {accounts}. {' '.join(failures)}")
    return pulls


def whole_answer(request: Callable[[], Answer], log: logging.Logger) -> Answer:
    """Return the response to one request, sent again while it is not a report; raise NotAReport after three."""
    for attempt in range(2, _ATTEMPTS + 1):
        try:
            return request()
        except NotAReport as error:
            log.warning("%s Requesting it again, attempt %d of %d.", error, attempt, _ATTEMPTS)
    return request()


def is_of_another_time(rows: pa.Table, period: Period) -> bool:
    """Return whether most calls of a response (of a sample) lie outside its period: it answers another request, as a
    stale copy does. A call lasts from its first to its last time, and may be reported late.
    """
    names = [name for name in rows.column_names if name.endswith("_dts")]
    sample = pa.array(range(0, rows.num_rows, rows.num_rows // _SAMPLE + 1), pa.int64())
    inside = outside = 0
    for row in rows.select(["uii", *names]).take(sample).to_pylist():
        times = [uii_time(row.pop("uii")), *map(parse_report_time, row.values())]
        call = [time for time in times if time and time.date() >= FIRST_DAY]
        if call:
            is_inside = min(call) < period.end + _LATE and max(call) >= period.start - _LATE
            inside, outside = inside + is_inside, outside + (not is_inside)
    return outside > inside


def pull_report(
    account_id: str,
    *,
    report: ReportName,
    day: date,
    period: Period,
    source: ReportSource,
    ledger: Ledger,
    run_id: str,
    clock: Callable[[], datetime],
    log: logging.Logger,
) -> PullRecord:
    """Pull the report of one date and account, and append its new and changed rows."""
    pulled_at = clock()
    # Before the pull, so that the memory for reading the ledger's rows does not add to that of the pulled rows.
    stored = ledger.latest_rows(report, day, columns=["row_key", "row_hash"], account_id=account_id)
    requests = [partial(source.pull, account_id, period, part) for part in PARTS[report]]
    answers = [whole_answer(request, log) for request in requests]
    elsewhere = sum(answer.rows.num_rows for answer in answers if is_of_another_time(answer.rows, period))
    empty_parts = len(answers) - len({answer.sha256 for answer in answers if answer.rows.num_rows})
    skipped = sum(lines_skipped(answer.rows) for answer in answers)
    size, sha256 = sum(answer.size for answer in answers), "+".join(answer.sha256 for answer in answers)
    table = pa.concat_tables([answer.rows for answer in answers], promote_options="default")
    rows = with_row_identity(report, table, account_id)
    del answers, table  # as much memory as the rows
    fresh, counts = diff_rows(rows, stored)
    ledger.append_rows(report, day, fresh, account_id=account_id, pulled_at=pulled_at, run_id=run_id)
    record = PullRecord(
        report=report,
        day=day,
        account_id=account_id,
        period_start=period.start,
        period_end=period.end,
        pulled_at=pulled_at,
        run_id=run_id,
        size=size,
        sha256=sha256,
        with_link=rows.num_rows - rows[LINK_COLUMN[report]].null_count,
        lines_skipped=skipped,
        of_another_time=elsewhere,
        empty_parts=empty_parts,
        **counts,
    )
    ledger.append_pull(record)
    if elsewhere:
        log.warning("account %s: a response had the calls of another time, in %s", account_id, number(elsewhere, "row"))
    log.info(
        "account %s: %s, %d new, %d changed, %d unchanged, %d vanished, %d with a link",
        *(account_id, number(record.rows, "row"), record.new, record.changed),
        *(record.unchanged, record.vanished, record.with_link),
    )
    return record
