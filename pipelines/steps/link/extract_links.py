"""Extraction of the recordings that a date's rows name, each with its link and the date it is stored under.

Every row version ever seen counts, not only the newest: a recording should exist even if its link was withdrawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.calendar import local_day
from pipelines.ledger.schema import STATE_SCHEMA, values
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import SegmentLinks
from pipelines.ringcx.reports.columns import REPORTS, UII_COLUMN, ReportName
from pipelines.settings import Calendar
from pipelines.steps.link.matching import WITHIN
from pipelines.steps.link.recording_date import RecordingDates, near
from pipelines.steps.link.rows import ROWS, duration_s, links_of, needed_columns, over_at, ready_at

_BATCH = 5_000
_FIELDS = "recording_id", "account_id", "uii", "source", "layout", "link", "date", "started_at", "expected_duration_s"
_SCHEMA = pa.schema([*map(STATE_SCHEMA.field, _FIELDS), pa.field("over_at", pa.timestamp("us", tz="UTC"))])


@dataclass(frozen=True, slots=True)
class ExtractedLinks:
    """The recordings that the rows of a date name.

    `table`: a line for each mention of a recording in a row, report by report. `started_at` is null if no time of the
    row is plausible; `over_at`: when the call ended or was reported, if an earlier request would be useless.
    """

    day: date
    table: pa.Table

    @property
    def days(self) -> set[date]:
        """The pulled day, and the dates under which its recordings are stored."""
        return {self.day, *values(pc.unique(self.table["date"]))}

    def states(self, ids: pa.Array[Any], *, now: datetime, run_id: str) -> Iterator[RecordingState]:
        """Yield the first (`pending`) states of the recordings with these ids; an id may repeat."""
        lines = self.table.filter(pc.is_in(self.table["recording_id"], value_set=ids))
        for batch in lines.to_batches(_BATCH):
            for line in batch.to_pylist():
                fields: dict[str, Any] = line
                yield RecordingState(
                    status=Status.pending,
                    next_attempt_at=ready_at(fields["source"], fields.pop("over_at"), now),
                    run_id=run_id,
                    written_at=now,
                    found_on=self.day,
                    first_seen_at=now,
                    **fields,
                )


def extract_links(
    ledger: Ledger, day: date, calendar: Calendar, *, with_links: bool = False, segments: SegmentLinks | None = None
) -> ExtractedLinks:
    """Return the recordings that `day`'s rows name. Without `with_links`, the column `link` is left out; without
    `segments`, links of the current API are empty.

    A run's steps ask for these five times, and parsing 100,000 rows takes seconds: what was extracted last is kept,
    without its links, as long as the date has the same parts, which never change.
    """
    (parts,) = ledger.parts.names(day, ["report_rows"]).values()
    key = ledger, day, calendar.zone, calendar.archive_start_date, *parts
    if (last := _last_ids.get(key)) is not None and not with_links:  # read once: other threads replace it
        return last
    dates = RecordingDates(day, calendar)
    tables = [_SCHEMA.empty_table()]
    for report in ROWS:
        for part in ledger.iter_rows(report, day, columns=needed_columns(report)):
            for batch in part.to_batches(_BATCH):
                lines = list(_lines(report, batch, dates, segments))
                tables.append(pa.Table.from_pylist(lines, _SCHEMA))
    table = pa.concat_tables(tables)
    _last_ids.clear()
    _last_ids[key] = ids = ExtractedLinks(day, table.drop_columns("link"))
    return ExtractedLinks(day, table) if with_links else ids


_last_ids: dict[Hashable, ExtractedLinks] = {}


def _lines(
    report: ReportName, rows: pa.RecordBatch, dates: RecordingDates, segments: SegmentLinks | None
) -> Iterator[dict[str, Any]]:
    """Yield a line of `_SCHEMA` for each recording that a row names."""
    for row in rows.to_pylist():
        for link in links_of(report, row, segments):
            date_, started_at = dates.of(report, row, link)
            yield {
                "recording_id": link.recording_id,
                "account_id": row["account_id"],
                "uii": row[UII_COLUMN[report]] or "",
                "source": report,
                "layout": link.layout,
                "link": link.url,
                "date": date_,
                "started_at": started_at,
                "expected_duration_s": duration_s(report, row, link),
                "over_at": over_at(report, row),
            }


def linked_days(ledger: Ledger, day: date, calendar: Calendar) -> set[date]:
    """Return `day`, the dates under which the recordings of its rows and their other names are stored, and neighbours
    that were never pulled: another ARCHIVE_TIMEZONE may have dated recordings of `day` to them.
    """
    links = extract_links(ledger, day, calendar)
    days = links.days
    extremes = links.table.group_by("date").aggregate([("started_at", "min"), ("started_at", "max")])
    for line in extremes.to_pylist():
        if line["started_at_min"]:
            days.add(local_day(line["started_at_min"] - WITHIN[-1], calendar.zone))
            days.add(local_day(line["started_at_max"] + WITHIN[-1], calendar.zone))
    neighbours = (near(days) - days).intersection(ledger.days("recording_states"))
    for report in REPORTS:
        if neighbours:  # each report is a listing, and usually there are none, or the first report leaves none
            neighbours.difference_update(ledger.days("report_pulls", report))
    return days | neighbours


def shared_ids(links: ExtractedLinks, known: pa.Table) -> list[str]:
    """Return the ids that rows of more than one call name, sorted; only the source can tell such recordings apart.
    `known`: the ledger's lines, whose recordings rows of another date may have named.
    """
    columns = ["recording_id", "uii"]
    known = known.filter(pc.is_in(known["recording_id"], value_set=pc.unique(links.table["recording_id"])))
    calls = pa.concat_tables([links.table.select(columns), known.select(columns)]).to_pandas()
    calls = calls[calls["uii"] != ""].assign(uii=calls["uii"].str.strip().str.lower()).drop_duplicates()
    return sorted({*calls["recording_id"][calls["recording_id"].duplicated()]})
