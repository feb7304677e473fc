"""What the rows of a date link to: recordings, each with its link and the date it is stored under.

Every row version ever seen counts, not only the newest: a link that the source took back is still a recording that
should exist. Rows as the source writes them are read in bulk, and the others one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute

from pipelines.calendar import day_bounds, local_day
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import LINK_COLUMN
from pipelines.ringcx.in_bulk import MOMENT, Column, address_parts, link_files, moments, report_times
from pipelines.ringcx.reports import ReportName
from pipelines.ringcx.segments import SegmentLinks
from pipelines.steps.counterparts import WITHIN
from pipelines.steps.rows import INTERACTIONS, ROWS, duration_s, link_of, ready_at, started_at

pc: Any = pyarrow.compute  # as in in_bulk.py

_PATH_DAY = re.compile(r"/(\d{4})(\d{2})/(\d{2})/")
# A start that far after the pulled day is a defect of the row; a partition ahead would not be looked at for long. Held
# against the pulled day and not against the present, so that a recording has the same date in every run.
_CLOCK_SKEW = timedelta(days=2)
# Dates that rows of a day mostly have; the others are worked out one by one.
_NEAR = tuple(timedelta(days=offset) for offset in (-1, 0, 1))
_FIELDS: list[Any] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("recording_id", pa.string(), nullable=False),
    pa.field("link", pa.string(), nullable=False),
    pa.field("date", pa.date32(), nullable=False),
    pa.field("started_at", MOMENT),
    pa.field("by_start", pa.bool_(), nullable=False),
]
_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True, slots=True)
class LinkedRows:
    """The rows of one report of a date, and in `found` a line for each that names a recording.

    `found`: `row` (its place in `rows`), `recording_id`, `link`, `date`, `started_at`, `by_start` (whether the date is
    that of `started_at`).
    """

    report: ReportName
    day: date
    rows: pa.Table
    found: pa.Table

    @property
    def ids(self) -> list[str]:
        """The recordings' ids, line by line."""
        ids: list[Any] = self.found["recording_id"].to_pylist()
        return ids

    def states(self, wanted: Column, *, now: datetime, run_id: str) -> Iterator[RecordingState]:
        """The recordings with these ids as the `pending` states they begin with; one may come twice."""
        columns = ROWS[self.report]
        lines = self.found.filter(pc.is_in(self.found["recording_id"], value_set=wanted))
        rows = self.rows.take(lines["row"]).to_pylist()
        for line, row in zip(lines.to_pylist(), rows, strict=True):
            yield RecordingState(
                recording_id=line["recording_id"],
                account_id=row["account_id"],
                uii=row[columns.uii] or "",
                layout=columns.layout,
                source=self.report,
                date=line["date"],
                status=Status.pending,
                next_attempt_at=ready_at(self.report, row, now),
                run_id=run_id,
                written_at=now,
                link=line["link"],
                found_on=self.day,
                started_at=line["started_at"],
                expected_duration_s=duration_s(self.report, row),
                first_seen_at=now,
            )


def linked_rows(ledger: Ledger, day: date, *, zone: ZoneInfo, segments: SegmentLinks | None = None) -> list[LinkedRows]:
    """The rows of `day` that name recordings, report by report.

    Without `segments` the links of the current API are empty, for callers that look at ids and dates only.
    """
    return [
        _linked(report, day, ledger.all_rows(report, day, columns=columns.needed), zone, segments)
        for report, columns in ROWS.items()
    ]


def dates_by_id(linked: Iterable[LinkedRows]) -> dict[str, date]:
    """Recording id -> the date it is stored under."""
    dates: dict[str, date] = {}
    for one in linked:
        stored: list[Any] = one.found["date"].to_pylist()
        dates.update(zip(one.ids, stored, strict=True))
    return dates


def linked_days(ledger: Ledger, day: date, zone: ZoneInfo) -> set[date]:
    """The dates under which the recordings of `day`'s rows are stored, and those of their other names."""
    days: set[date] = set()
    for report, columns in ROWS.items():

        def gather(rows: pa.Table, report: ReportName = report) -> None:
            days.update(_days(_linked(report, day, rows, zone, None), zone))

        ledger.each_rows(report, day, gather, columns=columns.needed)
    return days


def _days(linked: LinkedRows, zone: ZoneInfo) -> Iterator[date]:
    yield from pc.unique(linked.found["date"]).to_pylist()
    dated = linked.found.filter(linked.found["by_start"]).group_by("date")
    for of_date in dated.aggregate([("started_at", "min"), ("started_at", "max")]).to_pylist():
        yield local_day(of_date["started_at_min"] - WITHIN[-1], zone)
        yield local_day(of_date["started_at_max"] + WITHIN[-1], zone)


def _linked(report: ReportName, day: date, rows: pa.Table, zone: ZoneInfo, segments: SegmentLinks | None) -> LinkedRows:
    """What these rows of the report link to; `rows` are left that may name a recording."""
    columns = ROWS[report]
    if report == INTERACTIONS:
        rows, files, links = _segments(rows, segments)
        started = moments(rows[columns.start])
    else:
        links = rows[columns.link[0]]
        rows, links = rows.filter(links.is_valid()), links.drop_null()
        files, started = link_files(links), report_times(rows[columns.start])
    dates = _dates(started, day, zone)
    plain = pc.and_(files.is_valid(), dates.is_valid())
    lines = pa.table(
        [
            pa.array(range(rows.num_rows), pa.int64()),
            pc.binary_join_element_wise(rows["account_id"], files, pa.scalar("/")),
            *(links, dates, started, plain),
        ],
        names=_SCHEMA.names,
    ).filter(plain)
    alone = pc.indices_nonzero(pc.invert(plain))
    lines = lines.cast(_SCHEMA)
    if len(alone):
        reader = _OneByOne(report, day, zone, segments)
        lines = pa.concat_tables([lines, reader.lines(rows.take(alone), alone)]).sort_by("row")
    return LinkedRows(report, day, rows, lines)


def _segments(rows: pa.Table, segments: SegmentLinks | None) -> tuple[pa.Table, Column, Column]:
    """The rows of interaction metadata that may name a recording, their files and their links."""
    digital = pc.fill_null(pc.equal(rows["channel_class"], "DIGITAL"), fill_value=False)
    recorded = pc.fill_null(pc.equal(pc.utf8_lower(rows[LINK_COLUMN[INTERACTIONS]]), "true"), fill_value=False)
    named = pc.and_(pc.invert(digital), pc.or_(recorded, rows["segment_recording_url"].is_valid()))
    rows, recorded = rows.filter(named), recorded.filter(named)
    dialogs, parts = address_parts(rows["dialog_id"]), address_parts(rows["segment_id"])
    files = pc.if_else(recorded, pc.binary_join_element_wise(dialogs, parts, pa.scalar("/")), None)
    if segments is None:
        return rows, files, pa.chunked_array([pa.repeat(pa.scalar(""), rows.num_rows)])
    accounts = pc.unique(rows["account_id"])
    below = pa.array([segments.dialogs(one) for one in accounts.to_pylist()], pa.string())
    here = pa.chunked_array([below]).take(pc.index_in(rows["account_id"], value_set=accounts))
    return rows, files, pc.binary_join_element_wise(here, dialogs, pa.scalar("/segments/"), parts, pa.scalar(""))


def _dates(started: Column, day: date, zone: ZoneInfo) -> Column:
    """The local day of each time that is near `day`; null for the others."""
    dates: Any = pa.chunked_array([pa.nulls(len(started), pa.date32())])
    for offset in _NEAR:
        near = day + offset
        first, last = (pa.scalar(one, MOMENT) for one in day_bounds(near, zone))
        within = pc.and_(pc.greater_equal(started, first), pc.less(started, last))
        dates = pc.if_else(pc.fill_null(within, fill_value=False), pa.scalar(near, pa.date32()), dates)
    return dates


@dataclass(frozen=True, slots=True)
class _OneByOne:
    """Reads rows that are not as the source writes them."""

    report: ReportName
    day: date
    zone: ZoneInfo
    segments: SegmentLinks | None

    def lines(self, rows: pa.Table, places: Column) -> pa.Table:
        """The lines of `LinkedRows.found` for these rows, which have those places."""
        lines = []
        for place, row in zip(places.to_pylist(), rows.to_pylist(), strict=True):
            found = link_of(self.report, row, self.segments)
            if found is not None:
                began = started_at(self.report, row)
                stored, by_start = _recording_day(began, found.file_path, self.day, self.zone)
                lines.append((place, found.recording_id, found.url, stored, began, by_start))
        columns: Any = zip(*lines, strict=True) if lines else [()] * len(_FIELDS)
        arrays = [pa.array(one, field.type) for one, field in zip(columns, _FIELDS, strict=True)]
        return pa.table(arrays, schema=_SCHEMA)


def _recording_day(started: datetime | None, file_path: str, pulled: date, zone: ZoneInfo) -> tuple[date, bool]:
    """The recording's own day: by its start (and whether it is by that); else by its path; else the pulled day."""
    if started is not None and (own := local_day(started, zone)) <= pulled + _CLOCK_SKEW:
        return own, True
    if match := _PATH_DAY.search(f"/{file_path}"):
        try:
            return date(*(int(part) for part in match.groups())), False
        except ValueError:
            return pulled, False
    return pulled, False
