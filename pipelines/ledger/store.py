"""The ledger: append parts, read the lines that count. The only module that knows which folder holds what
(docs/storage.md, "Ledger").

Nothing is ever rewritten, so two writers cannot lose each other's lines, and a killed writer leaves nothing half done.
The cost of reading a date depends on that date alone. Columns: `schema.py`; bytes on disk or in S3: `files.py`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from ulid import ULID

from pipelines.ledger.files import Files, date_of_folder
from pipelines.ledger.parts import LedgerParts, part_names, read_parts, written_at
from pipelines.ledger.schema import (
    ACCEPTANCE_SCHEMA,
    EVENT_READ_SCHEMA,
    IN_PATH,
    ROW_COLUMNS,
    ROW_SCHEMA,
    STATE_SCHEMA,
    Acceptance,
    PullRecord,
    conform,
    encode,
    records_of,
    rows_schema,
    state_ranks,
    states_by_id,
    states_from,
    table_of,
    values,
)
from pipelines.ledger.states import PRECEDENCE, RecordingState, Status


class Ledger:
    """The archive's database of rows, pulls and states; `parts` are its files. Safe for threads and for processes.

    Methods raise LedgerUnavailable if the storage does not answer, and LedgerDamaged for a part that was altered.
    """

    def __init__(self, files: Files, *, clock: Callable[[], datetime]) -> None:
        self.parts = LedgerParts(files)
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._last_name = 0
        # The steps of a run read the states of its date seven times.
        self._last_read: tuple[list[str], pa.Table] = ([], STATE_SCHEMA.empty_table())

    def uri(self, kind: str, day: date, report: str | None = None) -> str:
        """Return the address of the folder that holds a date's parts of a kind (a name of SCHEMAS)."""
        return self._files.uri + _folder(kind, day, report)

    def append_rows(
        self, report: str, day: date, rows: pa.Table, *, account_id: str, pulled_at: datetime, run_id: str
    ) -> None:
        """Append rows of a pull: `row_key`, `row_hash` and text columns; raise the errors of `conform`."""
        added = {"account_id": account_id, "pulled_at": pulled_at, "run_id": run_id}
        self._append(_folder("report_rows", day, report), conform(rows, rows_schema(rows.column_names), added))

    def latest_rows(
        self, report: str, day: date, *, columns: Sequence[str] | None = None, account_id: str | None = None
    ) -> pa.Table:
        """Return one line per `row_key`, the one pulled last, in the order of writing; only `columns` in that order,
        null if a part is older than the column, or else ROW_COLUMNS and every column that any part has.
        """
        table = self._rows(report, day, columns)
        if account_id is not None:
            table = table.filter(pc.equal(table["account_id"], pa.scalar(account_id)))
        return _select(_latest(table, "row_key", table.select(["pulled_at"])), columns)

    def all_rows(self, report: str, day: date, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return every line, even if a later line of its `row_key` replaced it; columns as in `latest_rows`."""
        return _select(self._rows(report, day, columns), columns)

    def iter_rows(self, report: str, day: date, *, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield every line part by part, so that all lines are never in memory at once."""
        for table in self._parts([_folder("report_rows", day, report)], [*columns, *ROW_COLUMNS]):
            yield _select(table, columns)

    def append_pull(self, pull: PullRecord) -> None:
        """Append the record of one pull, whatever it returned."""
        self._append(_folder("report_pulls", pull.day, pull.report), table_of(PullRecord, [pull]))

    def pulls(self, report: str, day: date) -> list[PullRecord]:
        """Return the pulls of a report for a date, each once, in the order in which they were made."""
        tables = self._parts([_folder("report_pulls", day, report)])
        found = dict.fromkeys(pull for table in tables for pull in records_of(PullRecord, table))
        return sorted(found, key=lambda pull: pull.pulled_at)

    def append_event_reads(self, day: date, read_to: Mapping[str, int], *, run_id: str, read_at: datetime) -> None:
        """Append how many bytes of each file of a date's stored events were read, by file name."""
        lines: list[dict[str, Any]] = [
            {"name": name, "read_to": end, "run_id": run_id, "read_at": read_at} for name, end in read_to.items()
        ]
        self._append(_folder("event_reads", day), pa.Table.from_pylist(lines, EVENT_READ_SCHEMA))

    def event_reads(self, day: date) -> dict[str, int]:
        """Return how many bytes of each file of a date's stored events were read, by file name."""
        lines = pa.concat_tables([EVENT_READ_SCHEMA.empty_table(), *self._parts([_folder("event_reads", day)])])
        furthest = lines.group_by("name").aggregate([("read_to", "max")]).to_pydict()
        return dict(zip(furthest["name"], furthest["read_to_max"], strict=True))

    def append_acceptances(self, acceptances: Sequence[Acceptance]) -> None:
        """Append decisions on lost recordings, in one part per date."""
        self._append_by_date("accepted_losses", table_of(Acceptance, acceptances))

    def acceptances(self, days: Iterable[date]) -> dict[str, Acceptance]:
        """Return the latest decisions on recordings of those dates, by recording id."""
        folders = [_folder("accepted_losses", day) for day in sorted(set(days))]
        lines = pa.concat_tables([ACCEPTANCE_SCHEMA.empty_table(), *self._parts(folders)])
        latest = records_of(Acceptance, _latest(lines, "recording_id", lines.select(["at"])))
        return {acceptance.recording_id: acceptance for acceptance in latest}

    def append_states(self, states: Iterable[RecordingState]) -> None:
        """Append changes of state, in one part per date."""
        self._append_by_date("recording_states", table_of(RecordingState, list(states)))

    def states(self, days: Iterable[date]) -> dict[str, RecordingState]:
        """Return the current state of every recording of the dates, sorted by recording id."""
        lines = self.current(days)
        return states_by_id(lines.filter(pc.is_null(lines["same_as"])))

    def current(self, days: Iterable[date], ids: Iterable[str] | None = None) -> pa.Table:
        """Return the lines of all recordings of those dates, or of those with these ids, in STATE_SCHEMA; for an id
        that is another name of a recording, the line with `same_as`. No Python object is made for a line.
        """
        names = part_names(self._files, (_folder("recording_states", day) for day in sorted(set(days))))
        read, lines = self._last_read
        if names != read:
            lines = current_lines(list(read_parts(self._files, names)))
            self._last_read = names, lines
        if ids is None:
            return lines
        return lines.filter(pc.is_in(lines["recording_id"], value_set=pa.array(list(ids), pa.string())))

    def pending(self, day: date) -> list[RecordingState]:
        """Return the current `pending` states of the date; other states become no object."""
        table = self.current([day])
        return states_from(table.filter(pc.equal(table["status"], pa.scalar(str(Status.pending)))))

    def state_days(self) -> dict[date, datetime]:
        """Return the dates that have recordings, each with the time of its newest part, with one listing per month."""
        months = sorted({f"recording_states/date={day:%Y-%m}-" for day in self.days("recording_states")})
        newest: dict[date, datetime] = {}
        for name in part_names(self._files, months):  # sorted: the last part of each date is its newest
            if day := date_of_folder(name.split("/")[1]):
                newest[day] = written_at(name)
        return newest

    def days(self, kind: str, report: str | None = None) -> list[date]:
        """Return the dates that have a folder of a kind (a name of SCHEMAS), and of `report` if given, sorted."""
        folders = self._files.folders(f"{kind}/" if report is None else f"{kind}/report={report}/")
        return sorted(filter(None, map(date_of_folder, folders)))

    def _parts(self, folders: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        return read_parts(self._files, part_names(self._files, folders), columns)

    def _rows(self, report: str, day: date, columns: Sequence[str] | None) -> pa.Table:
        needed = None if columns is None else [*columns, *ROW_COLUMNS]
        parts = self._parts([_folder("report_rows", day, report)], needed)
        return pa.concat_tables([ROW_SCHEMA.empty_table(), *parts], promote_options="default")

    def _append_by_date(self, kind: str, lines: pa.Table) -> None:
        for day in sorted(values(pc.unique(lines["date"]))):
            self._append(_folder(kind, day), lines.filter(pc.equal(lines["date"], pa.scalar(day))))

    def _append(self, folder: str, lines: pa.Table) -> None:
        """Write lines as a part; write nothing if there are none."""
        if lines.num_rows:
            in_file = lines.select([name for name in lines.column_names if name not in IN_PATH])
            self._files.create(f"{folder}{self._next_name()}.parquet", encode(in_file))

    def _next_name(self) -> ULID:
        """Return a ULID greater than the last, even within a millisecond or if the clock is set back."""
        fresh = int.from_bytes(ULID.from_datetime(self._clock()).bytes)
        with self._lock:
            self._last_name = max(fresh, self._last_name + 1)
            return ULID(self._last_name.to_bytes(16))


def current_lines(parts: list[pa.Table]) -> pa.Table:
    """Return the line of each recording that counts (`states.PRECEDENCE`).

    `parts` is emptied one by one, so that all lines and a copy of those that count are never in memory together.
    """
    lines = pa.concat_tables([STATE_SCHEMA.empty_table(), *parts])
    order = lines.append_column("rank", state_ranks(lines)).select(list(PRECEDENCE))
    is_latest = _is_latest(lines["recording_id"], order)
    del lines, order
    kept = [STATE_SCHEMA.empty_table()]
    while parts:
        part = parts.pop()
        is_latest, of_part = np.split(is_latest, [len(is_latest) - part.num_rows])
        kept.append(part.filter(pa.array(of_part)))
    return pa.concat_tables(reversed(kept))


def _latest(table: pa.Table, key: str, order: pa.Table) -> pa.Table:
    """Return one line per `key`: the greatest by `order`, the last of equals. The lines keep their order."""
    # A mask and not `take`: taking joins the chunks of a text column, which ends at 2 GiB.
    return table.filter(pa.array(_is_latest(table[key], order)))


def _is_latest(key: "pa.ChunkedArray[Any]", order: pa.Table) -> "npt.NDArray[np.bool_]":
    """Return for each line whether `_latest` keeps it."""
    keys = pc.unique(key)
    if len(keys) == len(key):
        return np.ones(len(key), bool)
    codes = pc.index_in(key, value_set=keys).to_numpy()
    order = order.append_column("line", pa.array(np.arange(len(key))))
    # Sorted in descending order, nulls last, then reversed: the greatest line of each key is written last.
    ordered = pc.sort_indices(order, sort_keys=[(name, "descending") for name in order.column_names]).to_numpy()[::-1]
    latest = np.empty(len(keys), np.int64)
    latest[codes[ordered]] = ordered
    is_latest = np.zeros(len(key), bool)
    is_latest[latest] = True
    return is_latest


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table.select(list(columns))


def _folder(kind: str, day: date, report: str | None = None) -> str:
    of_report = "" if report is None else f"report={report}/"
    return f"{kind}/{of_report}date={day.isoformat()}/"
