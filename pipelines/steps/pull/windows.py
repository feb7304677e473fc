"""Interaction metadata of one date: window by window, each kept as soon as it is whole.

The source takes few requests (9 in 15 minutes for an account), so a window that was taken is not asked for twice by one
pull: it leaves a trace in the ledger, and a run that takes up a killed one goes on where that one ended. A date is
complete when all its windows are; then it is a pull like any other, and the next one asks for every window again, since
rows still change. Which windows of an unfinished pull are asked for again: `is_fresh`.

The source may cap an answer (about 400 rows were seen, the newest) and says nothing of it. A window that looks capped
is asked for again in halves, until the halves hold nothing that the whole did not; and each row must have ended within
the window it was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.diff import diff_rows
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.reports.bodies import PulledBody, scratch_folder
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.interactions import pull_interactions, windows
from pipelines.ringcx.reports.requests import Period
from pipelines.ringcx.reports.times import parse_moment
from pipelines.steps.link.rows import INTERACTIONS, ROWS, has_link, is_flag_unknown
from pipelines.steps.pull.coverage import covers
from pipelines.steps.pull.reports import pull_each, whole_answer

TRACES = "interaction_metadata_window"
"""The ledger's name of the pulls of single windows."""

# Rows come 10 to 15 minutes after a segment ended (RingCX documentation): before that a window is half empty.
SETTLING = timedelta(minutes=15)
FRESH_LEAST = timedelta(hours=1)
FRESH_MOST = timedelta(hours=12)
SHORTEST = timedelta(seconds=5)
"""Half a window is not requested below this: no account has that many segments in so little time."""
_EDGE = timedelta(seconds=1)
_BELIEVED = timedelta(days=2)
_MANY = 50
_ABOUT_THE_CAP = 0.9
_TIME = pa.timestamp("us", tz="UTC")
_SUMMED = ("size", "rows", "new", "changed", "unchanged", "vanished", "with_link", "cap_suspected", "flags_unknown")


def is_fresh(pull: PullRecord, now: datetime) -> bool:
    """Whether a window that an unfinished pull took need not be asked for again at `now`.

    The older a window, the less its rows change: it is good for as long again as it had been over when it was taken, at
    least an hour and at most half a day.
    """
    age = pull.pulled_at - pull.period_end
    return now - pull.pulled_at < min(max(age, FRESH_LEAST), FRESH_MOST)


@dataclass(frozen=True, slots=True)
class InteractionSource:
    """Where interaction metadata comes from: a client, the API's base, the RingCentral account, the log-in."""

    client: SourceClient
    base_url: str
    rc_account_id: str
    auth: httpx.Auth
    version: str = "v1"


class WrongWindow(ReportInvalid):
    """The source gave rows of another time than was asked for."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer: the window, its body, its rows, and when these ended, sorted."""

    window: Period
    body: PulledBody
    rows: pa.Table
    ends: Sequence[datetime]

    @property
    def keys(self) -> set[Any]:
        return set(self.rows["row_key"].to_pylist())


@dataclass(slots=True)
class _Caps:
    """What the answers of one pull say of a cap: their numbers of rows, and the least that was proven to be one."""

    counts: list[int] = field(default_factory=list)
    least: int | None = None

    def is_near(self, rows: int) -> bool:
        return self.least is not None and rows >= self.least * _ABOUT_THE_CAP

    def may_have_cut(self, answer: _Answer) -> bool:
        """Whether an answer looks capped: at a known cap, of a round number or one that came before, or without rows in
        the beginning of its window though later they are dense.
        """
        rows = answer.rows.num_rows
        if self.is_near(rows) or rows < _MANY:
            return self.is_near(rows)
        if rows % _MANY == 0 or rows in self.counts or not answer.ends:
            return True
        first, last = answer.ends[0], answer.ends[-1]
        silent, length = first - answer.window.start, answer.window.end - answer.window.start
        return silent > max(length / 4, 10 * (last - first) / rows)


@dataclass(frozen=True, slots=True)
class WindowedPull:
    """The interaction metadata of one date, about to be pulled for every account.

    `bounds`: of the day; `period`: the part of it that is over long enough; `window_s`: RINGCX_METADATA_WINDOW;
    `afresh`: ask for every window, whatever was taken already.
    """

    day: date
    bounds: tuple[datetime, datetime]
    period: Period
    window_s: int
    source: InteractionSource
    ledger: Ledger
    run_id: str
    clock: Callable[[], datetime]
    log: logging.Logger
    afresh: bool = False

    def run(self, account_ids: Sequence[str]) -> list[PullRecord]:
        """Pull each account's windows and append their new and changed rows to the ledger.

        Raises:
            PullFailed: some accounts' windows were refused or unavailable; what the others gave is kept.
        """
        return pull_each(INTERACTIONS, self.day, account_ids, self._account)

    def _account(self, account_id: str) -> PullRecord:
        taken = [] if self.afresh else self._taken(account_id)
        seen = _Seen.of(self.ledger, self.day, account_id)
        caps = _Caps()
        records: list[PullRecord] = []
        broken: list[ReportInvalid] = []
        for window in windows(self.period, self.window_s):
            now = self.clock()
            kept = [one for one in taken if covers(one, (window.start, window.end)) and is_fresh(one, now)]
            if kept:
                records.append(kept[-1])
                caps.counts.append(kept[-1].largest_window or 0)
                continue
            try:
                records.append(self._window(account_id, window, seen, caps))
            except WrongWindow:  # as the others would be
                raise
            except ReportInvalid as error:  # the other windows may be whole, and their recordings need not wait
                broken.append(error)
                self.log.warning("account %s, window from %s: %s", account_id, window.start.isoformat(), error)
        for place, before in enumerate(records):
            if caps.is_near(before.largest_window or before.rows) and not before.cap_suspected:
                window = Period(before.period_start, before.period_end)
                try:
                    records[place] = self._window(account_id, window, seen, caps, before)
                except ReportInvalid as error:
                    broken.append(error)
        if broken:
            self.log.warning("account %s: %d windows taken, %d not", account_id, len(records), len(broken))
            raise broken[0]
        record = self._whole(records)
        self.ledger.append_pull(record)
        self.log.info(
            "account %s: %d windows, %d of them taken before; %d rows, %d new, %d changed, %d vanished, %d with a link",
            *(account_id, len(records), sum(one in taken for one in records), record.rows, record.new, record.changed),
            *(record.vanished, record.with_link),
        )
        return record

    def _taken(self, account_id: str) -> list[PullRecord]:
        """The windows that were taken since the date was last complete."""
        whole = [pull for pull in self.ledger.pulls(INTERACTIONS, self.day) if covers(pull, self.bounds)]
        since = max((pull.pulled_at for pull in whole if pull.account_id == account_id), default=None)
        traces = [pull for pull in self.ledger.pulls(TRACES, self.day) if pull.account_id == account_id]
        return [one for one in traces if since is None or one.pulled_at > since]

    def _window(
        self, account_id: str, window: Period, seen: _Seen, caps: _Caps, before: PullRecord | None = None
    ) -> PullRecord:
        """Take a window whole. `before`: what was taken of it when it did not look capped yet."""
        pulled_at = self.clock()
        answers: list[_Answer] = []
        counts: dict[str, int] = {}
        try:
            answers.append(self._ask(account_id, window))
            capped = caps.may_have_cut(answers[0]) and self._prove(account_id, answers[0], caps, answers)
            caps.counts.append(answers[0].rows.num_rows)
        finally:  # what was given is kept, also of a window that cannot be had whole
            if answers:
                rows = _joined(answers)
                append = partial(
                    self.ledger.append_rows,
                    INTERACTIONS,
                    self.day,
                    account_id=account_id,
                    pulled_at=pulled_at,
                    run_id=self.run_id,
                )
                counts = seen.take(rows, window, append)
        for name in ("rows", "new", "changed", "unchanged") if before else ():
            counts[name] += getattr(before, name)
        with_link, unknown = _flags(rows, account_id)
        record = PullRecord(
            report=TRACES,
            day=self.day,
            account_id=account_id,
            period_start=window.start,
            period_end=window.end,
            pulled_at=pulled_at,
            run_id=self.run_id,
            size=sum(one.body.size for one in answers),
            sha256="+".join(one.body.sha256 for one in answers),
            with_link=with_link,
            largest_window=max(one.rows.num_rows for one in answers),
            cap_suspected=int(capped),
            flags_unknown=unknown,
            **counts,
        )
        if unknown:
            self.log.warning(
                "account %s, window from %s: hasRecording of %d rows is neither yes nor no; no recordings expected.",
                *(account_id, window.start.isoformat(), unknown),
            )
        # After the rows: a run killed between the two asks for this window again, and finds all of it unchanged.
        self.ledger.append_pull(record)
        return record

    def _prove(self, account_id: str, whole: _Answer, caps: _Caps, answers: list[_Answer]) -> bool:
        """Ask for the halves of a window whose answer may be capped, add theirs to `answers`; return whether it was.

        An answer is whole when its rows fall into both halves, and these hold no others.

        Raises:
            ReportInvalid: it cannot be shown that the answers hold the whole window.
        """
        start, end, rows = whole.window.start, whole.window.end, whole.rows.num_rows
        seconds = (end - start) // timedelta(seconds=1)
        if seconds < 2 * SHORTEST.total_seconds():
            raise ReportInvalid(
                f"The answer to interaction_metadata may be cut off: it had {rows} rows for the {seconds} seconds from "
                f"{start:%Y-%m-%d %H:%M:%S} UTC. Run the date again; if it stays so, ask RingCentral how many rows an "
                "answer may have."
            )
        middle = start + timedelta(seconds=seconds // 2)
        halves = [self._ask(account_id, half) for half in (Period(start, middle), Period(middle, end))]
        answers += halves
        if halves[0].keys | halves[1].keys <= whole.keys:
            # A half with all the rows may be capped as the whole was.
            return any(self._prove(account_id, one, caps, answers) for one in halves if one.rows.num_rows == rows)
        caps.least = min(caps.least or rows, rows)
        self.log.warning(
            "account %s, window from %s: the answer had %d rows, and those of its halves had more: it was cut off.",
            *(account_id, start.isoformat(), rows),
        )
        for half in filter(caps.may_have_cut, halves):
            self._prove(account_id, half, caps, answers)
        return True

    def _ask(self, account_id: str, window: Period) -> _Answer:
        with scratch_folder() as scratch:
            ask = partial(
                pull_interactions,
                self.source.client,
                base_url=self.source.base_url,
                rc_account_id=self.source.rc_account_id,
                auth=self.source.auth,
                account_id=account_id,
                window=window,
                into=scratch / "rows",
                version=self.source.version,
            )
            body, table = whole_answer(INTERACTIONS, ask, self.log)
        rows = with_row_identity(INTERACTIONS, table, account_id)
        return _Answer(window, body, rows, _ends_within(rows, window))

    def _whole(self, records: Sequence[PullRecord]) -> PullRecord:
        """The windows of an account as one pull of the date."""
        sums: dict[str, Any] = {name: sum(getattr(one, name) or 0 for one in records) for name in _SUMMED}
        return replace(
            records[0],
            report=INTERACTIONS,
            period_start=self.period.start,
            period_end=self.period.end,
            pulled_at=self.clock(),
            run_id=self.run_id,
            sha256="+".join(one.sha256 for one in records),
            largest_window=max(one.largest_window or 0 for one in records),
            **sums,
        )


@dataclass(slots=True)
class _Seen:
    """An account's rows of the date as they were seen last, kept up to date from window to window: they are read from
    the ledger once.
    """

    rows: pa.Table
    counted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, ledger: Ledger, day: date, account_id: str) -> _Seen:
        names = ["row_key", "row_hash", "segment_end_time_ms"]
        return cls(_known(ledger.latest_rows(INTERACTIONS, day, columns=names, account_id=account_id)))

    def take(self, rows: pa.Table, window: Period, append: Callable[[pa.Table], None]) -> dict[str, int]:
        """Append what is new or changed, and count. A row at the border of two windows is in both and counts once."""
        of_window = pc.and_(
            pc.greater_equal(self.rows["ended"], pa.scalar(window.start, _TIME)),
            pc.less(self.rows["ended"], pa.scalar(window.end, _TIME)),
        )
        difference = diff_rows(rows, self.rows)
        vanished = diff_rows(rows, self.rows.filter(of_window)).vanished
        fresh = pa.concat_tables([rows.slice(0, 0), *difference.fresh()])
        append(fresh)
        replaced = pc.is_in(self.rows["row_key"], value_set=fresh["row_key"].combine_chunks())
        self.rows = pa.concat_tables([self.rows.filter(pc.invert(replaced)), _known(fresh)])
        keys: set[Any] = set(rows["row_key"].to_pylist())
        again = len(keys & self.counted)
        self.counted |= keys
        return {
            "rows": rows.num_rows - again,
            "new": difference.new,
            "changed": difference.changed,
            "unchanged": difference.unchanged - again,
            "vanished": vanished,
        }


def _known(rows: pa.Table) -> pa.Table:
    ended = [parse_moment(text) for text in rows["segment_end_time_ms"].to_pylist()]
    # Again, because rows read from the ledger have a stricter schema than pulled ones.
    columns: dict[str, Any] = {name: rows[name] for name in ("row_key", "row_hash")}
    return pa.table(columns | {"ended": pa.array(ended, _TIME)})


def _ends_within(rows: pa.Table, window: Period) -> list[datetime]:
    """Return when the rows' segments ended, sorted; times days away from the window are errors of their rows.

    Raises:
        WrongWindow: some ended outside the window.
    """
    read = (parse_moment(text) for text in rows["segment_end_time_ms"].to_pylist())
    ends = sorted(end for end in read if end and abs(end - window.start) <= _BELIEVED)
    outside = [end for end in ends if not window.start - _EDGE <= end <= window.end + _EDGE]
    if not outside:
        return ends
    before = sum(end < window.start for end in outside)
    ran = "backward" if before == len(ends) else "elsewhere" if before < len(outside) else "partly backward"
    raise WrongWindow(
        f"interaction_metadata was asked for the segments that ended from {window.start:%Y-%m-%d %H:%M:%S} to "
        f"{window.end:%Y-%m-%d %H:%M:%S} UTC, and {len(outside)} of {len(ends)} did not: the source's window ran "
        f"{ran}, not forward from segmentEndTime. Nothing of it was taken; ask RingCentral which way it runs."
    )


def _joined(answers: Sequence[_Answer]) -> pa.Table:
    """The rows of all answers; of one that came twice the version that came last."""
    rows = pa.concat_tables([one.rows for one in answers], promote_options="default")
    last = {key: place for place, key in enumerate(rows["row_key"].to_pylist())}
    return rows if len(last) == rows.num_rows else rows.take(sorted(last.values()))


def _flags(rows: pa.Table, account_id: str) -> tuple[int, int]:
    """Count the rows that name a recording, and those whose `hasRecording` is neither yes nor no."""
    names = [name for name in ROWS[INTERACTIONS].needed if name != "account_id"]
    cells = [row | {"account_id": account_id} for row in rows.select(names).to_pylist()]
    return sum(has_link(INTERACTIONS, row) for row in cells), sum(map(is_flag_unknown, cells))
