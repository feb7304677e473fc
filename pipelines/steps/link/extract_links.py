"""Extraction of the recordings that a date's rows name, each with its link and the date it is stored under.

Every row version ever seen counts, not only the newest: a recording should exist even if its link was withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.calendar import local_day
from pipelines.ledger.schema import STATE_SCHEMA, values
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import SegmentLinks
from pipelines.ringcx.reports.columns import REPORTS, ReportName
from pipelines.settings import Calendar
from pipelines.steps.link.matching import WITHIN
from pipelines.steps.link.recording_date import RecordingDates, near
from pipelines.steps.link.rows import ROWS, duration_s, links_of, over_at, ready_at

_BATCH = 5_000
_FIELDS = "recording_id", "account_id", "uii", "source", "layout", "link", "date", "started_at", "expected_duration_s"
_SCHEMA = pa.schema([*map(STATE_SCHEMA.field, _FIELDS), pa.field("over_at", pa.timestamp("us", tz="UTC"))])


@dataclass(frozen=True, slots=True)
class ExtractedLinks:
    """The recordings that the rows of a date name.

    `table`: a line for each mention of a recording in a row, report by report. `started_at` is null if no time of the
    row is plausible; `over_at`: when the call ended or was reported, if an earlier request would be useless.
    `elsewhere`: other dates that the rows name, under which a recording may already be in the ledger because
    ARCHIVE_START_DATE was different then.
    """

    day: date
    table: pa.Table
    elsewhere: frozenset[date]

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

    The steps of a run ask for it five times, and parsing 100,000 rows takes seconds: what was extracted last is kept,
    without its links, as long as the date has the same parts, which never change.
    """
    parts = {report: ledger.row_parts(report, day) for report in ROWS}
    key = ledger, day, calendar.zone, calendar.archive_start_date, *chain.from_iterable(parts.values())
    if key in _last_ids and not with_links:
        return _last_ids[key]
    dates = RecordingDates(day, calendar)
    tables = [_SCHEMA.empty_table()]
    for report, columns in ROWS.items():
        for part in ledger.iter_rows(report, day, columns=columns.needed, parts=parts[report]):
            for batch in part.to_batches(_BATCH):
                lines = list(_lines(report, batch, dates, segments))
                if lines:
                    columns_of = zip(zip(*lines, strict=True), _SCHEMA.types, strict=True)
                    arrays = [pa.array(column, kind) for column, kind in columns_of]
                    tables.append(pa.table(arrays, schema=_SCHEMA))
    links = ExtractedLinks(day, pa.concat_tables(tables), frozenset(dates.elsewhere))
    _last_ids.clear()
    _last_ids[key] = ids = replace(links, table=links.table.drop_columns("link"))
    return links if with_links else ids


_last_ids: dict[Hashable, ExtractedLinks] = {}


def _lines(
    report: ReportName, rows: pa.RecordBatch, dates: RecordingDates, segments: SegmentLinks | None
) -> Iterator[tuple[object, ...]]:
    """Yield a line of `_SCHEMA` for each recording that a row names."""
    for row in rows.to_pylist():
        for link in links_of(report, row, segments):
            yield (
                link.recording_id,
                row["account_id"],
                row[ROWS[report].uii] or "",
                report,
                link.layout,
                link.url,
                *dates.of(report, row, link),
                duration_s(report, row, link),
                over_at(report, row),
            )


def days_of(ledger: Ledger, links: ExtractedLinks) -> set[date]:
    """Return the dates under which the ledger may have these recordings: the pulled day, their current dates, and those
    of their possible earlier dates that exist.
    """
    return {links.day, *values(pc.unique(links.table["date"])), *_existing(ledger, links.elsewhere)}


def linked_days(ledger: Ledger, day: date, calendar: Calendar) -> set[date]:
    """Return `day`, and the dates under which the recordings of its rows and their other names are stored, or were
    before ARCHIVE_START_DATE changed.

    Neighbouring dates that were never pulled and hold recordings are included: `day` may have found these when
    ARCHIVE_TIMEZONE was different, and no run of their own fetches them.
    """
    links = extract_links(ledger, day, calendar)
    days = days_of(ledger, links)
    extremes = links.table.group_by("date").aggregate([("started_at", "min"), ("started_at", "max")])
    for line in extremes.to_pylist():
        if line["started_at_min"]:
            days.add(local_day(line["started_at_min"] - WITHIN[-1], calendar.zone))
            days.add(local_day(line["started_at_max"] + WITHIN[-1], calendar.zone))
    if next_to := _existing(ledger, near(days) - days):
        days |= next_to.difference(*(ledger.pull_days(report) for report in REPORTS))
    return days


def shared_ids(links: ExtractedLinks, known: pa.Table) -> list[str]:
    """Return the ids that rows of more than one call name, sorted; only the source can tell such recordings apart.
    `known`: the ledger's lines, whose recordings rows of another date may have named.
    """
    columns = ["recording_id", "uii"]
    known = known.filter(pc.is_in(known["recording_id"], value_set=pc.unique(links.table["recording_id"])))
    calls = pa.concat_tables([links.table.select(columns), known.select(columns)]).to_pandas()
    calls = calls[calls["uii"] != ""].assign(uii=calls["uii"].str.strip().str.lower()).drop_duplicates()
    return sorted({*calls["recording_id"][calls["recording_id"].duplicated()]})


def _existing(ledger: Ledger, days: Collection[date]) -> set[date]:
    return {*days}.intersection(ledger.recording_days()) if days else set()
