"""Extract from the rows of a date the recordings they name, each with its link and the date it is stored under.

Every row version ever seen counts, not only the newest: a link that the source took back is still a recording that
should exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.calendar import day_bounds, local_day
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.ringcx.reports.interactions import SegmentLinks
from pipelines.steps.link.matching import WITHIN
from pipelines.steps.link.rows import ROWS, Cells, RowLink, duration_s, links_of, ready_at, starts

_PATH_DAY = re.compile(r"/(\d{4})(\d{2})/(\d{2})/", re.ASCII)
# A start that far after the pulled day is a defect of the row; a partition ahead would not be looked at for long. Held
# against the pulled day and not against the present, so that a recording has the same date in every run.
_CLOCK_SKEW = timedelta(days=2)
_ONE_DAY = timedelta(days=1)
_BATCH = 5_000
_FIELDS: list[Any] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("recording_id", pa.string(), nullable=False),
    pa.field("link", pa.string(), nullable=False),
    pa.field("layout", pa.string(), nullable=False),
    pa.field("date", pa.date32(), nullable=False),
    pa.field("started_at", pa.timestamp("us", tz="UTC")),
    pa.field("expected_duration_s", pa.float64()),
]
_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True, slots=True)
class LinkedRows:
    """The rows of one report of a date, and in `found` a line for each recording that a row names.

    `found`: `row` (its place in `rows`), `recording_id`, `link`, `layout`, `date`, `started_at` (null where no time of
    the row is believed), `expected_duration_s`. `elsewhere`: other dates that the rows name, under which a recording
    may be known already because ARCHIVE_START_DATE was another one then.
    """

    report: ReportName
    day: date
    rows: pa.Table
    found: pa.Table
    elsewhere: frozenset[date]

    @property
    def ids(self) -> list[str]:
        """The recordings' ids, line by line."""
        ids: list[Any] = self.found["recording_id"].to_pylist()
        return ids

    @property
    def layouts(self) -> list[str]:
        """The recordings' layouts, line by line."""
        layouts: list[Any] = self.found["layout"].to_pylist()
        return layouts

    def states(
        self, wanted: pa.Array[Any] | pa.ChunkedArray[Any], *, now: datetime, run_id: str
    ) -> Iterator[RecordingState]:
        """The recordings with these ids as the `pending` states they begin with; one may come twice."""
        lines = self.found.filter(pc.is_in(self.found["recording_id"], value_set=wanted))
        rows = self.rows.take(lines["row"]).to_pylist()
        for line, row in zip(lines.to_pylist(), rows, strict=True):
            yield RecordingState(
                recording_id=line["recording_id"],
                account_id=row["account_id"],
                uii=row[ROWS[self.report].uii] or "",
                layout=line["layout"],
                source=self.report,
                date=line["date"],
                status=Status.pending,
                next_attempt_at=ready_at(self.report, row, now),
                run_id=run_id,
                written_at=now,
                link=line["link"],
                found_on=self.day,
                started_at=line["started_at"],
                expected_duration_s=line["expected_duration_s"],
                first_seen_at=now,
            )


class _Dates:
    """Which date a recording is stored under, by the rows of the day `pulled`.

    The start counts, then the time in the UII, then the date in the file's path, each only within
    [`first`, `pulled` + 2 days]; else the pulled day. `first` is ARCHIVE_START_DATE.
    """

    def __init__(self, pulled: date, first: date, zone: ZoneInfo) -> None:
        self._pulled, self._zone = pulled, zone
        self._first, self._last = min(first, pulled), pulled + _CLOCK_SKEW
        self._bounds = day_bounds(self._first, zone)[0], day_bounds(self._last, zone)[1]
        # Of most rows nothing else needs to be looked at.
        yesterday, tomorrow = pulled - _ONE_DAY, pulled + _ONE_DAY
        self._usual = max(self._bounds[0], day_bounds(yesterday, zone)[0]), day_bounds(tomorrow, zone)[1]
        self.elsewhere: set[date] = set()

    def of(self, report: ReportName, row: Cells, link: RowLink) -> tuple[date, datetime | None]:
        """Return the recording's date, and the time by which it is that, if any."""
        first = next(starts(report, row, link), None)
        if first and self._usual[0] <= first < self._usual[1]:
            return local_day(first, self._zone), first
        told = list(starts(report, row, link))
        by_path = _path_day(link.file_path)
        self.elsewhere.update(day for day in (by_path, *map(self._day, told)) if day is not None)
        for instant in told:
            if self._bounds[0] <= instant < self._bounds[1]:
                return local_day(instant, self._zone), instant
        if by_path and self._first <= by_path <= self._last:
            return by_path, None
        return self._pulled, None

    def _day(self, instant: datetime) -> date | None:
        try:
            return local_day(instant, self._zone)
        except OverflowError:  # of the first or the last year that there is
            return None


def linked_rows(
    ledger: Ledger, day: date, *, zone: ZoneInfo, first: date, segments: SegmentLinks | None = None
) -> list[LinkedRows]:
    """Return the rows of `day` that name recordings, report by report. `first`: ARCHIVE_START_DATE.

    Without `segments` the links of the current API are empty, for callers that look at ids and dates only.
    """
    return [
        _linked(report, day, ledger.all_rows(report, day, columns=columns.needed), (zone, first), segments)
        for report, columns in ROWS.items()
    ]


def days_of(ledger: Ledger, linked: Iterable[LinkedRows]) -> set[date]:
    """Return the dates under which the ledger may know the recordings of these rows: the pulled day, those they are
    stored under now, and of those they may once have been stored under the ones that exist.
    """
    days: set[Any] = set()
    elsewhere: set[date] = set()
    for rows in linked:
        days |= {rows.day, *pc.unique(rows.found["date"]).to_pylist()}
        elsewhere |= rows.elsewhere
    return days | _existing(ledger, elsewhere)


def linked_days(ledger: Ledger, day: date, zone: ZoneInfo, first: date) -> set[date]:
    """Return the dates under which the recordings of `day`'s rows are stored, or were before ARCHIVE_START_DATE
    changed, and those of their other names; from some thousand rows at a time.
    """
    days: set[date] = set()
    elsewhere: set[date] = set()
    for report, columns in ROWS.items():
        for rows in ledger.iter_rows(report, day, columns=columns.needed):
            linked = _linked(report, day, rows, (zone, first), None)
            elsewhere.update(linked.elsewhere)
            starts_of = linked.found.group_by("date").aggregate([("started_at", "min"), ("started_at", "max")])
            for of_date in starts_of.to_pylist():
                days.add(of_date["date"])
                if of_date["started_at_min"]:
                    days.add(local_day(of_date["started_at_min"] - WITHIN[-1], zone))
                    days.add(local_day(of_date["started_at_max"] + WITHIN[-1], zone))
    return days | _existing(ledger, elsewhere)


def shared_ids(linked: Iterable[LinkedRows]) -> list[str]:
    """Return the ids that rows of more than one call name, sorted: links that are one to us and not to the source."""
    named = [
        pd.DataFrame({"id": rows.ids, "uii": rows.rows[ROWS[rows.report].uii].take(rows.found["row"]).to_pylist()})
        for rows in linked
    ]
    calls = pd.concat(named).dropna()
    counted = calls["uii"].map(str.lower).groupby(calls["id"]).nunique()
    return sorted(counted[counted > 1].index)


def near(days: Iterable[date]) -> set[date]:
    """Return `days` and the ones next to them: two sources may date one recording on either side of midnight."""
    return {day + step * _ONE_DAY for day in days for step in (-1, 0, 1)}


def _linked(
    report: ReportName, day: date, rows: pa.Table, dated: tuple[ZoneInfo, date], segments: SegmentLinks | None
) -> LinkedRows:
    dates = _Dates(day, dated[1], dated[0])
    tables = [_SCHEMA.empty_table()]
    for start in range(0, rows.num_rows, _BATCH):
        lines: list[tuple[object, ...]] = []
        for place, row in enumerate(rows.slice(start, _BATCH).to_pylist(), start=start):
            for link in links_of(report, row, segments):
                stored, began = dates.of(report, row, link)
                length = duration_s(report, row, link)
                lines.append((place, link.recording_id, link.url, link.layout, stored, began, length))
        tables.append(_table(lines))
    return LinkedRows(report, day, rows, pa.concat_tables(tables), frozenset(dates.elsewhere))


def _table(lines: Sequence[tuple[object, ...]]) -> pa.Table:
    columns: Any = zip(*lines, strict=True) if lines else [()] * len(_FIELDS)
    return pa.table([pa.array(one, field.type) for one, field in zip(columns, _FIELDS, strict=True)], schema=_SCHEMA)


def _existing(ledger: Ledger, days: set[date]) -> set[date]:
    return days.intersection(ledger.recording_days()) if days else set()


def _path_day(file_path: str) -> date | None:
    match = _PATH_DAY.search(f"/{file_path}")
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None
