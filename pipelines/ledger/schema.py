"""How the ledger's lines are laid down in Parquet, and how they are read back.

Ids and the report's columns are text, never numbers; times are microseconds in UTC. `report` and `date` stand in the
path (`report=…/date=…/`) and not in the file, as Hive-style readers expect: pyarrow, pandas, DuckDB and Spark add them
by themselves and refuse a file that repeats them with another type.

A column added later must be nullable: parts from before it read as null. Where the parts are stored: `store.py`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ledger.states import RANKS, RecordingState, Status

_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.string()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

IN_PATH = ("report", "date")
"""Columns that the part's path carries."""


def _required(name: str, kind: pa.DataType) -> pa.Field[Any]:
    return pa.field(name, kind, nullable=False)


ROW_SCHEMA = pa.schema(
    [
        _required("row_key", _TEXT),
        _required("row_hash", _TEXT),
        _required("account_id", _TEXT),
        _required("pulled_at", _TIME),
        _required("run_id", _TEXT),
    ]
)
"""What the ledger adds to a report's own columns, which follow as nullable text."""

ROW_COLUMNS: tuple[str, ...] = tuple(ROW_SCHEMA.names)

STATE_SCHEMA = pa.schema(
    [
        _required("recording_id", _TEXT),
        _required("account_id", _TEXT),
        _required("uii", _TEXT),
        _required("layout", _TEXT),
        _required("source", _TEXT),
        _required("date", pa.date32()),
        _required("status", _TEXT),
        pa.field("reason", _TEXT),
        _required("attempts", pa.int32()),
        pa.field("next_attempt_at", _TIME),
        pa.field("key", _TEXT),
        pa.field("size", pa.int64()),
        pa.field("sha256", _TEXT),
        pa.field("duration_s", pa.float64()),
        _required("run_id", _TEXT),
        _required("written_at", _TIME),
        _required("link", _TEXT),
        _required("found_on", pa.date32()),
        pa.field("started_at", _TIME),
        pa.field("expected_duration_s", pa.float64()),
        _required("epoch", pa.int32()),
        pa.field("version_id", _TEXT),
        pa.field("etag", _TEXT),
        pa.field("warnings", pa.list_(_TEXT)),
        _required("first_seen_at", _TIME),
        pa.field("same_as", _TEXT),
        pa.field("first_attempt_at", _TIME),
        pa.field("body_sha256", _TEXT),
        pa.field("body_size", pa.int64()),
        pa.field("quarantine_key", _TEXT),
    ]
)

PULL_SCHEMA = pa.schema(
    [
        _required("report", _TEXT),
        _required("date", pa.date32()),
        _required("account_id", _TEXT),
        _required("period_start", _TIME),
        _required("period_end", _TIME),
        _required("pulled_at", _TIME),
        _required("run_id", _TEXT),
        _required("size", pa.int64()),
        _required("sha256", _TEXT),
        _required("rows", pa.int64()),
        _required("new", pa.int64()),
        _required("changed", pa.int64()),
        _required("unchanged", pa.int64()),
        _required("vanished", pa.int64()),
        _required("with_link", pa.int64()),
        pa.field("largest_window", pa.int64()),
        pa.field("cap_suspected", pa.int64()),
        pa.field("flags_unknown", pa.int64()),
        pa.field("lines_skipped", pa.int64()),
    ]
)


EVENT_READ_SCHEMA = pa.schema(
    [
        _required("name", _TEXT),
        _required("read_to", pa.int64()),
        _required("run_id", _TEXT),
        _required("read_at", _TIME),
    ]
)
"""How far a file of stored events was taken into report rows, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRecord:
    """One pull of a report for one date and account: what was asked, what came, what was new. Sizes in bytes.

    A report that comes in several bodies is one pull: `size` is their sum, `sha256` their hashes joined by `+`.
    `largest_window`: rows of the largest answer for a window. `cap_suspected`: windows whose halves held more rows than
    they. `flags_unknown`: rows whose `hasRecording` is neither yes nor no. `lines_skipped`: lines that are no rows.
    """

    report: str
    day: date
    account_id: str
    period_start: datetime
    period_end: datetime
    pulled_at: datetime
    run_id: str
    size: int
    sha256: str
    rows: int
    new: int
    changed: int
    unchanged: int
    vanished: int
    with_link: int
    largest_window: int | None = None
    cap_suspected: int | None = None
    flags_unknown: int | None = None
    lines_skipped: int | None = None


def encode(schema: pa.Schema, tables: Iterable[pa.Table]) -> bytes:
    """Return tables of that schema as one Parquet file, with a checksum on every page.

    Each table becomes row groups of its own and is let go, so that a million rows need not be there at once.
    """
    sink = io.BytesIO()  # gives its bytes away without a copy
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()


def decode(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, only `columns` where it has them, and verify every page that is read.

    Raises:
        pa.ArrowException, OSError: if the bytes are not the file that was written.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        there = file.schema_arrow.names
        wanted = None if columns is None else [name for name in there if name in set(columns)]
        # The parts of a date are read side by side already.
        table = file.read(columns=wanted, use_threads=False)
    table.validate()
    return table.replace_schema_metadata(None)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the schema's columns in its order: ones from after the part was written are null, unknown ones left out.

    Raises:
        ValueError: if a required column or value is missing or a column has another type. Numbers are never turned
            into text: an id that became one somewhere may have lost digits.
    """
    columns: list[pa.Array[Any] | pa.ChunkedArray[Any]] = []
    for field in schema:
        place = table.schema.get_field_index(field.name)
        column = pa.nulls(table.num_rows, field.type) if place < 0 else table.column(place)
        if place < 0 and not field.nullable:
            raise ValueError(f"its column {field.name} is missing")
        if column.type != field.type:
            column = _as_text(column, field.name) if field.type == _TEXT else _as_null(column, field)
        if column.null_count and not field.nullable:
            raise ValueError(f"its column {field.name} has a null")
        columns.append(column)
    return pa.table(columns, schema=schema)


def rows_table(rows: pa.Table, *, account_id: str, pulled_at: datetime, run_id: str) -> pa.Table:
    """Lay down report rows: `row_key`, `row_hash` and text columns go in, ROW_SCHEMA and the text columns come out.

    Raises:
        ValueError: if an identity is missing, a column is not text or bears one of the ledger's own names.
    """
    own = {"row_key", "row_hash"}
    clash = sorted((set(ROW_COLUMNS) - own | set(IN_PATH)) & set(rows.column_names))
    if clash or len(set(rows.column_names)) < rows.num_columns:
        raise ValueError(
            f"report columns must be distinct and not bear the ledger's names ({', '.join(clash) or '-'})."
        )
    report_fields = [pa.field(name, _TEXT) for name in rows.column_names if name not in own]
    added: dict[str, tuple[object, pa.DataType]] = {
        "account_id": (account_id, _TEXT),
        "pulled_at": (_utc(pulled_at, "pulled_at"), _TIME),
        "run_id": (run_id, _TEXT),
    }
    for name, (value, kind) in added.items():
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, kind))
    try:
        return conform(rows, pa.schema([*ROW_SCHEMA, *report_fields]))
    except ValueError as error:
        raise ValueError(
            f"the report rows cannot be written: {error}; give every row its identity and keep text text."
        ) from error


def states_table(states: Sequence[RecordingState]) -> pa.Table:
    """Lay down states, one line each, in STATE_SCHEMA."""
    return _lay_down(states, STATE_SCHEMA)


def states_from(table: pa.Table) -> list[RecordingState]:
    """Read lines of STATE_SCHEMA back.

    Raises:
        ValueError: if a line is no state, for instance because a newer version wrote it.
    """
    state_ranks(table)
    columns = {name: values(table[name]) for name in STATE_SCHEMA.names}
    statuses = {str(status): status for status in Status}  # a third of the time of calling Status
    columns["status"] = [statuses[status] for status in columns["status"]]
    columns["warnings"] = [tuple(some or ()) for some in columns["warnings"]]
    return [RecordingState(**dict(zip(columns, line, strict=True))) for line in zip(*columns.values(), strict=True)]


def states_by_id(table: pa.Table) -> dict[str, RecordingState]:
    """Read lines of STATE_SCHEMA back, one for each recording, by its id, sorted; raises as `states_from`."""
    return {state.recording_id: state for state in states_from(table.sort_by("recording_id"))}


def state_ranks(table: pa.Table) -> pa.ChunkedArray[Any]:
    """Return each line's rank (`states.RANKS`).

    Raises:
        ValueError: if a line has a status that this version does not know.
    """
    known = pc.index_in(table["status"], value_set=pa.array([str(status) for status in RANKS], _TEXT))
    if known.null_count:
        raise ValueError("a line has a status that this version of the archive does not know")
    return pa.chunked_array([list(RANKS.values())], pa.int8()).take(known)


def pulls_table(pulls: Sequence[PullRecord]) -> pa.Table:
    """Lay down pulls, one line each, in PULL_SCHEMA; the record's `day` is the column `date`."""
    return _lay_down(pulls, PULL_SCHEMA, renamed={"date": "day"})


def pulls_from(table: pa.Table) -> list[PullRecord]:
    """Read lines of PULL_SCHEMA back."""
    columns = {"day" if name == "date" else name: values(table[name]) for name in PULL_SCHEMA.names}
    return [PullRecord(**dict(zip(columns, line, strict=True))) for line in zip(*columns.values(), strict=True)]


def _lay_down(records: Iterable[object], schema: pa.Schema, renamed: dict[str, str] | None = None) -> pa.Table:
    records = list(records)
    columns = []
    for field in schema:
        attribute = (renamed or {}).get(field.name, field.name)
        values = [getattr(record, attribute) for record in records]
        if field.type == _TIME:
            values = [None if value is None else _utc(value, attribute) for value in values]
        columns.append(pa.array(values, field.type))
    return conform(pa.table(columns, names=schema.names), schema)


def _utc(moment: datetime, name: str) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{name} has no time zone; give it one.")
    return moment.astimezone(UTC)


def values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return Python values: pyarrow's own way, except where it makes a slow new object for every line."""
    kind = column.type
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_list(kind) and not pc.max(pc.list_value_length(column)).as_py():
        return [None] * len(column)
    if not pa.types.is_temporal(kind):
        return column.to_pylist()
    distinct = pc.unique(column)  # of times and dates a day has few
    values: list[Any]
    if pa.types.is_timestamp(kind):
        stamps: list[int | None] = distinct.cast(pa.int64()).to_pylist()
        values = [None if stamp is None else _EPOCH + timedelta(microseconds=stamp) for stamp in stamps]
    else:
        values = distinct.to_pylist()
    places: list[Any] = pc.index_in(column, value_set=distinct).to_pylist()
    return [values[place] for place in places]


def _as_text(column: pa.Array[Any] | pa.ChunkedArray[Any], name: str) -> pa.Array[Any] | pa.ChunkedArray[Any]:
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if not (pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string(kind)):
        raise ValueError(f"its column {name} is {column.type} and not text")
    return column.cast(_TEXT)


def _as_null(
    column: pa.Array[Any] | pa.ChunkedArray[Any], field: pa.Field[Any]
) -> pa.Array[Any] | pa.ChunkedArray[Any]:
    if not pa.types.is_null(column.type):
        raise ValueError(f"its column {field.name} is {column.type} and not {field.type}")
    return column.cast(field.type)
