"""The pull of a date's interaction metadata, window by window (docs/migration.md, "Windows"); each window is kept as
soon as it is whole.

The source may cap a response (at about the newest 400 rows, as observed) without saying so. A window that looks capped
is requested again in halves, until the halves hold nothing that the whole did not.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.diff import diff_rows
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.reports.columns import INTERACTIONS
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.requests import InteractionSource, Period
from pipelines.ringcx.reports.times import parse_moment
from pipelines.steps.link.rows import is_flag_unknown, links_of, needed_columns
from pipelines.steps.pull.coverage import SETTLED, covers
from pipelines.steps.pull.reports import whole_answer
from pipelines.wording import number

TRACES = "interaction_metadata_window"
"""The ledger's report name for pulls of single windows."""

# Rows come 10 to 15 minutes after a segment ended (RingCX documentation): before that a window is half empty.
SETTLING = timedelta(minutes=15)
FRESH_LEAST = timedelta(hours=1)
FRESH_MOST = timedelta(hours=12)
# Half a window is not requested below this: no account has that many segments in so little time.
_SHORTEST = timedelta(seconds=5)
_TOLERANCE = timedelta(seconds=1)
_PLAUSIBLE = timedelta(days=2)
_LARGE_CAP = 50
_SMALLEST_CAP = 10
_ROUND = 5
_NEAR_THE_CAP = 0.9
_SUMMED = ("size", "rows", "new", "changed", "unchanged", "vanished", "with_link", "cap_suspected", "flags_unknown")


def windows(period: Period, seconds: int) -> Iterator[Period]:
    """Yield windows of `seconds` that cover a period without gap or overlap; the last may be shorter."""
    start, length = period.start.astimezone(UTC), timedelta(seconds=seconds)
    while start < period.end:
        yield Period(start, min(start + length, period.end.astimezone(UTC)))
        start += length


def is_fresh(pull: PullRecord, now: datetime) -> bool:
    """Return whether a window of an unfinished pull need not be requested again at `now` (docs/migration.md). Rows
    pulled before they had settled are no longer valid once they have.
    """
    age = pull.pulled_at - pull.period_end
    if age < SETTLED <= now - pull.period_end:
        return False
    return now - pull.pulled_at < min(max(age, FRESH_LEAST), FRESH_MOST)


class WrongWindow(ReportInvalid):
    """The source returned rows from outside the requested window."""


@dataclass(frozen=True, slots=True)
class _WindowResponse:
    """One response of `size` bytes. `ends`: when the segments of its rows ended, sorted."""

    window: Period
    size: int
    sha256: str
    rows: pa.Table
    ends: Sequence[datetime]

    @property
    def keys(self) -> set[Any]:
        return set(self.rows["row_key"].to_pylist())


@dataclass(kw_only=True)
class WindowedPull:
    """A pull of the interaction metadata of one date and account.

    `period`: the part of the day that has been over for long enough; `window_s`: RINGCX_METADATA_WINDOW; `afresh`:
    request every window, whatever was pulled already.
    """

    account_id: str
    day: date
    period: Period
    window_s: int
    source: InteractionSource
    ledger: Ledger
    run_id: str
    clock: Callable[[], datetime]
    log: logging.Logger
    afresh: bool = False
    _sizes: list[int] = field(default_factory=list, init=False)  # rows of each window's answer
    _cap: int | None = field(default=None, init=False)  # the smallest number of rows that was proven to be a cap
    _stored: pa.Table | None = field(default=None, init=False)  # `_versions` of the ledger's rows: read once

    def run(self) -> PullRecord:
        """Pull the windows, append their new and changed rows, and return one record for all."""
        taken = [] if self.afresh else self._taken_before()
        errors: list[ReportInvalid] = []
        records = self._pull_windows(taken, errors)
        self._pull_again_near_the_cap(records, errors)
        if errors:
            self.log.warning(
                "account %s: windows pulled: %d, not pulled: %d", self.account_id, len(records), len(errors)
            )
            raise errors[0]
        whole = self._sum(records)
        self.ledger.append_pull(whole)
        self.log.info(
            "account %s: %s, %d pulled before; %s, %d new, %d changed, %d vanished, %d with a link",
            *(self.account_id, number(len(records), "window"), sum(record in taken for record in records)),
            *(number(whole.rows, "row"), whole.new, whole.changed, whole.vanished, whole.with_link),
        )
        return whole

    def _pull_windows(self, taken: Sequence[PullRecord], errors: list[ReportInvalid]) -> list[PullRecord]:
        """Pull each window that was not `taken` lately; add to `errors` why one could not be pulled."""
        records: list[PullRecord] = []
        for window in windows(self.period, self.window_s):
            now = self.clock()
            kept = [pull for pull in taken if covers(pull, (window.start, window.end)) and is_fresh(pull, now)]
            if kept:
                records.append(kept[-1])
                self._sizes.append(kept[-1].largest_window or 0)
                continue
            try:
                records.append(self._take(window))
            except WrongWindow:  # the others would be wrong too
                raise
            except ReportInvalid as error:  # the other windows may be whole, and their recordings need not wait
                errors.append(error)
                self._warn(window, str(error))
        return records

    def _pull_again_near_the_cap(self, records: list[PullRecord], errors: list[ReportInvalid]) -> None:
        """Pull the windows again that a cap, proven by a later one, may have cut off; replace their records."""
        for index, record in enumerate(records):
            if record.cap_suspected or not self._is_near_the_cap(record.largest_window or record.rows):
                continue
            try:
                again = self._take(Period(record.period_start, record.period_end))
            except ReportInvalid as error:
                errors.append(error)
                continue
            new = record.new + again.new
            changed = record.changed + again.changed
            records[index] = replace(again, new=new, changed=changed, unchanged=again.rows - new - changed)

    def _taken_before(self) -> list[PullRecord]:
        """Return the windows that were pulled since the period was last complete."""
        period = (self.period.start, self.period.end)
        complete = [pull for pull in self._pulls(INTERACTIONS) if covers(pull, period)]
        if not complete:
            return self._pulls(TRACES)
        last = complete[-1].pulled_at
        return [pull for pull in self._pulls(TRACES) if pull.pulled_at > last]

    def _pulls(self, report: str) -> list[PullRecord]:
        return [pull for pull in self.ledger.pulls(report, self.day) if pull.account_id == self.account_id]

    def _take(self, window: Period) -> PullRecord:
        """Pull a whole window."""
        pulled_at = self.clock()
        answers = [self._request(window)]
        try:
            is_capped = self._looks_capped(answers[0]) and self._prove_whole(answers[0], answers)
            self._sizes.append(answers[0].rows.num_rows)
        finally:  # what was given is kept, also of a window that cannot be proven whole
            rows = _joined(answers)
            counts = self._append(rows, window, pulled_at)
        with_link, unknown = _flags(rows, self.account_id)
        record = PullRecord(
            report=TRACES,
            day=self.day,
            account_id=self.account_id,
            period_start=window.start,
            period_end=window.end,
            pulled_at=pulled_at,
            run_id=self.run_id,
            size=sum(answer.size for answer in answers),
            sha256="+".join(answer.sha256 for answer in answers),
            with_link=with_link,
            largest_window=max(answer.rows.num_rows for answer in answers),
            cap_suspected=int(is_capped),
            flags_unknown=unknown,
            **counts,
        )
        if unknown:
            flags = f"{number(unknown, 'row')} with a hasRecording neither yes nor no"
            self._warn(window, f"{flags}; agents' recordings are requested.")
        # After the rows: a run killed between the two requests this window again, and finds all of it unchanged.
        self.ledger.append_pull(record)
        return record

    def _append(self, rows: pa.Table, window: Period, pulled_at: datetime) -> dict[str, int]:
        """Append new and changed rows; return counts."""
        columns = ["row_key", "row_hash", "segment_end_time_ms"]
        if self._stored is None:
            held = self.ledger.latest_rows(INTERACTIONS, self.day, columns=columns, account_id=self.account_id)
            self._stored = _versions(held)
        stored = self._stored
        ended_after = pc.greater_equal(stored["ended_at"], pa.scalar(window.start))
        ended_before = pc.less(stored["ended_at"], pa.scalar(window.end))
        comes_again = pc.is_in(stored["row_key"], value_set=rows["row_key"])
        # The rows of other windows have not vanished.
        compared = pc.or_kleene(comes_again, pc.and_(ended_after, ended_before))
        fresh, counts = diff_rows(rows, stored.filter(compared))
        self.ledger.append_rows(
            INTERACTIONS, self.day, fresh, account_id=self.account_id, pulled_at=pulled_at, run_id=self.run_id
        )
        is_replaced = pc.is_in(stored["row_key"], value_set=fresh["row_key"])
        self._stored = pa.concat_tables([stored.filter(pc.invert(is_replaced)), _versions(fresh)])
        return counts

    def _is_near_the_cap(self, rows: int) -> bool:
        return self._cap is not None and rows >= self._cap * _NEAR_THE_CAP

    def _looks_capped(self, answer: _WindowResponse) -> bool:
        """Return whether a response's number of rows is near a known cap, round, or the same as an earlier one's, or
        whether its window is empty at the beginning though dense later.
        """
        rows = answer.rows.num_rows
        if self._is_near_the_cap(rows):
            return True
        if rows < _LARGE_CAP:  # a small cap shows only when it is met again, and no answer has more
            return rows >= _SMALLEST_CAP and rows % _ROUND == 0 and rows in self._sizes and rows >= max(self._sizes)
        if rows % _LARGE_CAP == 0 or rows in self._sizes or not answer.ends:
            return True
        first, last = answer.ends[0], answer.ends[-1]
        silent = first - answer.window.start
        length = answer.window.end - answer.window.start
        return silent > max(length / 4, 10 * (last - first) / rows)

    def _prove_whole(self, whole: _WindowResponse, answers: list[_WindowResponse]) -> bool:
        """Request the halves of a window and add their answers to `answers`; return whether the whole was capped.

        A response is whole if its rows fall into both halves and these hold no others. Raises ReportInvalid if that
        cannot be shown.
        """
        start, end, rows = whole.window.start, whole.window.end, whole.rows.num_rows
        seconds = (end - start) // timedelta(seconds=1)
        if end - start < 2 * _SHORTEST:
            if rows < _LARGE_CAP and self._cap is None:  # not a cap within one second, unless one was seen elsewhere
                return False
            raise ReportInvalid(
                f"The interaction_metadata response may be cut off: it had {rows} rows for the {seconds} seconds from "
                f"{start:%Y-%m-%d %H:%M:%S} UTC. Run the date again; if this persists, ask RingCentral how many rows "
                "a response may have."
            )
        middle = start + timedelta(seconds=seconds // 2)
        halves = [self._request(half) for half in (Period(start, middle), Period(middle, end))]
        answers += halves
        if halves[0].keys | halves[1].keys <= whole.keys:
            # A half with all the rows may be capped as the whole was.
            return any(self._prove_whole(half, answers) for half in halves if half.rows.num_rows == rows)
        self._cap = min(self._cap or rows, rows)
        self._warn(whole.window, f"the response had {rows} rows, and those of its halves had more: it was cut off.")
        for half in filter(self._looks_capped, halves):
            self._prove_whole(half, answers)
        return True

    def _request(self, window: Period) -> _WindowResponse:
        answer = whole_answer(partial(self.source.pull, self.account_id, window), self.log)
        rows = with_row_identity(INTERACTIONS, answer.rows, self.account_id)
        return _WindowResponse(window, answer.size, answer.sha256, rows, _ends_within(rows, window))

    def _sum(self, records: Sequence[PullRecord]) -> PullRecord:
        """Return the windows' records as one pull of the date."""
        sums: dict[str, Any] = {name: sum(getattr(record, name) or 0 for record in records) for name in _SUMMED}
        return replace(
            records[0],
            report=INTERACTIONS,
            period_start=self.period.start,
            period_end=self.period.end,
            pulled_at=self.clock(),
            run_id=self.run_id,
            sha256="+".join(record.sha256 for record in records),
            largest_window=max(record.largest_window or 0 for record in records),
            **sums,
        )

    def _warn(self, window: Period, sentence: str) -> None:
        self.log.warning("account %s, window from %s: %s", self.account_id, window.start.isoformat(), sentence)


def _ends_within(rows: pa.Table, window: Period) -> list[datetime]:
    """Return when the rows' segments ended, sorted, without implausible times; raise WrongWindow if one is outside."""
    times = map(parse_moment, rows["segment_end_time_ms"].to_pylist())
    ends = sorted(end for end in times if end and abs(end - window.start) <= _PLAUSIBLE)
    outside = [end for end in ends if not window.start - _TOLERANCE <= end <= window.end + _TOLERANCE]
    if not outside:
        return ends
    before = sum(end < window.start for end in outside)
    if before == len(ends):
        ran = "backward"
    elif before < len(outside):
        ran = "elsewhere"
    else:
        ran = "partly backward"
    raise WrongWindow(
        f"interaction_metadata was requested for the segments that ended from {window.start:%Y-%m-%d %H:%M:%S} to "
        f"{window.end:%Y-%m-%d %H:%M:%S} UTC, and {len(outside)} of {len(ends)} did not: the source's window ran "
        f"{ran}, not forward from segmentEndTime. None of it was kept; ask RingCentral in which direction it runs."
    )


def _versions(rows: pa.Table) -> pa.Table:
    """Return the `row_key` and `row_hash` of rows, and `ended_at`: when their segments ended, null if unknown."""
    ends = pa.array(map(parse_moment, rows["segment_end_time_ms"].to_pylist()), pa.timestamp("us", tz="UTC"))
    versions: dict[str, Any] = {"row_key": rows["row_key"], "row_hash": rows["row_hash"], "ended_at": ends}
    return pa.table(versions)


def _joined(answers: Sequence[_WindowResponse]) -> pa.Table:
    """Return the rows of all answers; of a row that was returned twice, the last version."""
    rows = pa.concat_tables([answer.rows for answer in answers], promote_options="default")
    last = {key: index for index, key in enumerate(rows["row_key"].to_pylist())}
    return rows if len(last) == rows.num_rows else rows.take(sorted(last.values()))


def _flags(rows: pa.Table, account_id: str) -> tuple[int, int]:
    """Count the rows that name a recording, and those whose `hasRecording` is neither yes nor no."""
    names = [name for name in needed_columns(INTERACTIONS) if name != "account_id"]
    listed = [row | {"account_id": account_id} for row in rows.select(names).to_pylist()]
    with_link = [row for row in listed if list(links_of(INTERACTIONS, row))]
    return len(with_link), sum(map(is_flag_unknown, listed))
