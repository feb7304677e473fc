"""The columns of the ledger's Parquet files (docs/storage.md, "Ledger"), and how lines are written and read back.

A column added later must be nullable: parts from before it read as null.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ledger.states import RANKS, RecordingState, Status

_R = TypeVar("_R")
_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.string()
_GROUP_ROWS = 32_768  # a group is encoded in memory before it is written

IN_PATH = ("report", "date")
"""The columns that a part's path carries: Hive-style readers refuse a file that repeats one with another type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRecord:
    """One pull of a report for one date and account, in the columns of docs/storage.md, "Ledger". A report that arrives
    in several bodies is one pull: `size` is their sum in bytes, `sha256` their hashes joined by `+`.
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
    of_another_time: int | None = None
    empty_parts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A person's decision to accept a lost recording, or to revoke an acceptance (`accepted` is False).

    An acceptance holds only while the recording has the state, reason and epoch that were reviewed.
    """

    recording_id: str
    day: date
    status: str
    reason: str
    epoch: int
    accepted: bool
    accepted_by: str
    why: str
    at: datetime
    run_id: str

    def holds(self, status: str, reason: str | None, epoch: int) -> bool:
        """Return whether this acceptance applies to a recording with that state, reason and epoch."""
        return self.accepted and (self.status, self.reason, self.epoch) == (status, reason or "", epoch)


def _required(**kinds: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


def _schema_of(record: type, **kinds: pa.DataType) -> pa.Schema:
    """Return a column for each field of a dataclass, nullable if it may be None or empty. `kinds`: special types."""
    usual: dict[Any, pa.DataType] = {
        str: _TEXT,
        Status: _TEXT,
        int: pa.int64(),
        bool: pa.bool_(),
        float: pa.float64(),
        date: pa.date32(),
        datetime: _TIME,
        tuple[str, ...]: pa.list_(_TEXT),
    }
    columns = []
    for name, hint in get_type_hints(record).items():
        options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        kind = _TEXT if get_origin(hint) is Literal else usual[options[0]]
        nullable = NoneType in options or pa.types.is_list(kind)
        columns.append(pa.field("date" if name == "day" else name, kinds.get(name, kind), nullable=nullable))
    return pa.schema(columns)


ROW_SCHEMA = _required(row_key=_TEXT, row_hash=_TEXT, account_id=_TEXT, pulled_at=_TIME, run_id=_TEXT)
"""The columns that the ledger adds to a report's own, which follow as nullable text."""

ROW_COLUMNS: tuple[str, ...] = tuple(ROW_SCHEMA.names)

EVENT_READ_SCHEMA = _required(name=_TEXT, read_to=pa.int64(), run_id=_TEXT, read_at=_TIME)
"""How far a file of stored events was taken into report rows, in bytes."""

STATE_SCHEMA = _schema_of(RecordingState, attempts=pa.int32(), epoch=pa.int32())
PULL_SCHEMA = _schema_of(PullRecord)
ACCEPTANCE_SCHEMA = _schema_of(Acceptance, epoch=pa.int32())
_OF_RECORD = {RecordingState: STATE_SCHEMA, PullRecord: PULL_SCHEMA, Acceptance: ACCEPTANCE_SCHEMA}

SCHEMAS = {
    "accepted_losses": ACCEPTANCE_SCHEMA,
    "event_reads": EVENT_READ_SCHEMA,
    "recording_states": STATE_SCHEMA,
    "report_pulls": PULL_SCHEMA,
    "report_rows": ROW_SCHEMA,
}
"""The schema of the parts in each of the ledger's folders."""


def encode(table: pa.Table) -> bytes:
    """Return a table as a Parquet file, with a checksum on every page."""
    sink = io.BytesIO()  # gives its bytes away without a copy
    pq.write_table(table, sink, row_group_size=_GROUP_ROWS, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def decode(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, only `columns` as far as it has them, and verify every page that is read; raise
    pa.ArrowException or OSError if the bytes are not the file that was written.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        # The parts of a date are read side by side already.
        table = file.read(columns=None if columns is None else list(set(columns)), use_threads=False)
    table.validate()
    return table.replace_schema_metadata(None)


def conform(table: pa.Table, schema: pa.Schema, constants: Mapping[str, object]) -> pa.Table:
    """Return the schema's columns in its order: null if added after the part was written; unknown columns are left out.
    A column in `constants` has that value in every line. Raise ValueError if a required column or value is missing, or
    pa.ArrowException if a column has another type.
    """
    table = table.select([name for name in table.column_names if name not in constants])
    for field in schema:
        if field.name in constants:
            value = pa.scalar(constants[field.name], field.type)
            table = table.append_column(field, pa.repeat(value, table.num_rows))
    table = pa.concat_tables([schema.empty_table(), table], promote_options="default")
    return table.select(schema.names).cast(schema)


def rows_schema(columns: Sequence[str]) -> pa.Schema:
    """Return ROW_SCHEMA, followed by a report's own `columns`."""
    own = [name for name in columns if name not in {*ROW_COLUMNS, *IN_PATH}]
    return pa.schema([*ROW_SCHEMA, *(pa.field(name, _TEXT) for name in own)])


def states_from(table: pa.Table) -> list[RecordingState]:
    """Return the states in lines of STATE_SCHEMA; raise ValueError if a line (of a newer version) is not a state."""
    state_ranks(table)
    columns = {name: values(table[name]) for name in STATE_SCHEMA.names}
    statuses = {str(status): status for status in Status}  # a third of the time of calling Status
    columns["status"] = [statuses[status] for status in columns["status"]]
    columns["warnings"] = [tuple(warnings or ()) for warnings in columns["warnings"]]
    return [RecordingState(**dict(zip(columns, line, strict=True))) for line in zip(*columns.values(), strict=True)]


def states_by_id(table: pa.Table) -> dict[str, RecordingState]:
    """Return the states in lines of STATE_SCHEMA by recording id, sorted; raise the errors of `states_from`."""
    return {state.recording_id: state for state in states_from(table.sort_by("recording_id"))}


def state_ranks(table: pa.Table) -> pa.ChunkedArray[Any]:
    """Return each line's rank (`states.RANKS`); raise ValueError if this version does not know a status."""
    index = pc.index_in(table["status"], value_set=pa.array([str(status) for status in RANKS], _TEXT))
    if index.null_count:
        raise ValueError("a line has a status that this version of the archive does not know")
    return pa.chunked_array([list(RANKS.values())], pa.int8()).take(index)


def table_of(kind: type, records: Sequence[object]) -> pa.Table:
    """Return records of one of the ledger's dataclasses as lines of its schema."""
    schema = _OF_RECORD[kind]
    fields = zip(get_type_hints(kind), schema, strict=True)
    columns = [pa.array([getattr(record, name) for record in records], field.type) for name, field in fields]
    return pa.table(columns, schema=schema)


def records_of(kind: type[_R], table: pa.Table) -> list[_R]:
    """Return the records of a dataclass that `table_of` turned into lines; for states use `states_from`."""
    names = get_type_hints(kind)
    columns = [values(table[name]) for name in _OF_RECORD[kind].names]
    return [kind(**dict(zip(names, line, strict=True))) for line in zip(*columns, strict=True)]


def values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return a column's Python values; convert each distinct time or date once, since each conversion takes 6 µs."""
    if not pa.types.is_temporal(column.type):
        return column.to_pylist()
    distinct = pc.unique(column)
    values = [value.astimezone(UTC) if isinstance(value, datetime) else value for value in distinct.to_pylist()]
    indices: list[Any] = pc.index_in(column, value_set=distinct).to_pylist()
    return [values[index] for index in indices]
