"""The table `calls` of a date: a row for each recording that is dated that day, and for each call without one.

It joins what the manifest sealed with what the reports say of the call. It holds personal data (numbers, names,
notes), so it has a prefix of its own and is never part of the catalog. It can be derived again at any time: `write`
replaces it.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain, islice
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import calls_key
from pipelines.archive.proof.manifest import ManifestHead, latest_manifest, manifest_numbers
from pipelines.calendar import day_bounds
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.settings import StorageSettings
from pipelines.steps.calls.legs import REPORTS_OF_CALLS, Leg, columns_of, leg_of, reason_without_recording
from pipelines.steps.calls.numbers import to_e164
from pipelines.steps.link.extract_links import near
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable
from pipelines.steps.link.rows import ROWS, start_of
from pipelines.wording import number

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take

_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "started_at": _TIME,
    "started_local": _TEXT,
    "account_id": _TEXT,
    "uii": _TEXT,
    "session": _TEXT,
    "direction": _TEXT,
    "ani": _TEXT,
    "dnis": _TEXT,
    "ani_e164": _TEXT,
    "dnis_e164": _TEXT,
    "agent_id": _TEXT,
    "agent_login": _TEXT,
    "agent_name": _TEXT,
    "queue_id": _TEXT,
    "queue_name": _TEXT,
    "disposition": _TEXT,
    "notes": _TEXT,
    "call_s": pa.float64(),
    "segment_s": pa.float64(),
    "hold_s": pa.float64(),
    "wrap_s": pa.float64(),
    "layout": _TEXT,
    "agent_channel": pa.int8(),
    "recording_id": _TEXT,
    "state": _TEXT,
    "reason": _TEXT,
    "verdict": _TEXT,
    "key": _TEXT,
    "size": pa.int64(),
    "sha256": _TEXT,
    "version_id": _TEXT,
    "manifest_number": pa.int64(),
    "manifest_sha256": _TEXT,
    "warnings": pa.list_(_TEXT),
}
CALLS_FILE_SCHEMA: Final = pa.schema(list(_COLUMNS.items()))
"""The columns of a date's file. The date is in its path."""

CALLS_SCHEMA: Final = pa.schema([("date", pa.date32()), *_COLUMNS.items()])
"""The columns of what a search finds."""

NO_RECORDING: Final = "none"
"""The state of a call without a recording."""

STATES: Final = (*(str(status) for status in Status), NO_RECORDING)
"""What the column `state` may hold."""

SEPARATOR: Final = "; "
"""Between the agents, queues and dispositions of a recording of a whole call that had several."""

_VERSION: Final = 1
"""Of what a row says; a higher one makes every date's table again."""

_INPUTS: Final = b"ringcx-archive/inputs"
_READ: Final = ("recording_states", "report_rows")
_ROUNDS: Final = 5
_ROW_GROUP: Final = 2_000
_BATCH: Final = 5_000
_CLOCK_SKEW: Final = timedelta(days=2)  # as for recordings: a start after that is not believed
_MERGED: Final = ("agent_id", "agent_login", "agent_name", "queue_id", "queue_name", "disposition")
_OF_CALL: Final = ("direction", "ani", "dnis", "notes", "call_s")


@dataclass(frozen=True, slots=True)
class StoredCalls:
    """The file of a date: its key, its rows in CALLS_FILE_SCHEMA, and whether it was there already as it should be."""

    key: str
    table: pa.Table
    unchanged: bool


def days_to_write(ledger: Ledger, bucket: Bucket, day: date) -> list[date]:
    """Return `day` and the sealed dates whose calls a run of it may change: calls over midnight belong to two."""
    others = near({day}) | RecordingsTable.of(ledger.current([day])).found_on()
    return [day, *(other for other in sorted(others - {day}) if manifest_numbers(bucket, other))]


def write_calls(
    ledger: Ledger, parts: LedgerParts, bucket: Bucket, day: date, *, settings: StorageSettings
) -> StoredCalls:
    """Make the calls of a date and store them, unless they are stored as the same ledger and manifest gave them.

    Raises:
        LedgerDamaged, StoreDamaged: a part of the date, or its manifest, is not what was written.
    """
    key, unchanged = calls_key(bucket.prefix, day), True
    inputs, table = _inputs(parts, bucket, day, settings), _stored(bucket, key)
    for _ in range(_ROUNDS):
        if table is not None and (table.schema.metadata or {}).get(_INPUTS) == inputs:
            break
        table = calls_of(ledger, bucket, day, settings=settings).replace_schema_metadata({_INPUTS: inputs})
        bucket.put(key, encode(table), content_type="application/vnd.apache.parquet")
        # Another run may have written to the date meanwhile, and stored a table that this one has just replaced.
        inputs, unchanged = _inputs(parts, bucket, day, settings), False
    assert table is not None  # noqa: S101 - no round ends without one
    return StoredCalls(key, table.replace_schema_metadata(None), unchanged)


def calls_of(ledger: Ledger, bucket: Bucket, day: date, *, settings: StorageSettings) -> pa.Table:
    """Return the calls of a date in CALLS_FILE_SCHEMA, by UII, which is by time, and recording id.

    A call over midnight is found by the pull of one date and may be stored under the next, so the rows of the dates
    next to `day` are looked at too.
    """
    days = near({day})
    lines = ledger.current(days)
    names = LedgerSnapshot(lines).names
    of_day = lines.filter(pc.and_(pc.equal(lines["date"], day), lines["same_as"].is_null()))
    recorded = set(zip(lines["account_id"].to_pylist(), pc.utf8_lower(lines["uii"]).to_pylist(), strict=True))
    window = _Window(day, settings.archive_start_date, settings.zone)
    found_on = set(pc.unique(of_day["found_on"]).to_pylist())
    legs = list(_legs(ledger, sorted(days | found_on), window, set(pc.unique(of_day["uii"]).to_pylist())))
    by_recording: defaultdict[str, list[Leg]] = defaultdict(list)
    by_call: defaultdict[tuple[str, str], list[Leg]] = defaultdict(list)
    for leg in legs:
        by_call[leg.call].append(leg)
        for name in leg.recordings:
            by_recording[names.get(name, name)].append(leg)
    sealed, region = _sealed(latest_manifest(bucket, day)), settings.archive_phone_region

    def rows() -> Iterator[dict[str, Any]]:
        for line in chain.from_iterable(batch.to_pylist() for batch in of_day.to_batches(_BATCH)):
            call = line["account_id"], line["uii"].lower()
            yield _row(by_recording.get(line["recording_id"], []), by_call.get(call, []), line)
        for call, parts in by_call.items():
            if call[1] and call not in recorded and not any(leg.recordings for leg in parts) and window.holds(parts):
                yield _row([], parts, {"started_at": window.start(parts)})

    def complete(row: dict[str, Any]) -> dict[str, Any]:
        started = row["started_at"]
        local = started.astimezone(settings.zone).isoformat(timespec="seconds") if started else None
        e164 = {f"{side}_e164": to_e164(row[side], region) for side in ("ani", "dnis")}
        return row | sealed | e164 | {"started_local": local}

    left, tables = map(complete, rows()), [CALLS_FILE_SCHEMA.empty_table()]
    while batch := list(islice(left, _BATCH)):  # all of them as objects would take 2 KB each
        tables.append(pa.Table.from_pylist(batch, CALLS_FILE_SCHEMA))
    return pa.concat_tables(tables).sort_by([("uii", "ascending"), ("recording_id", "ascending")])


def summary(table: pa.Table) -> str:
    """Return as a sentence what a date's table holds."""
    kept = table.filter(table["recording_id"].is_valid())
    calls = kept.group_by(["account_id", "uii"]).aggregate([]).num_rows
    without = table.num_rows - kept.num_rows
    return f"{number(kept.num_rows, 'recording')} of {number(calls, 'call')}, {number(without, 'call')} without one."


def encode(table: pa.Table) -> bytes:
    """Return a date's calls as Parquet, with statistics in small groups, so that a search reads few of them."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
    return out.getvalue()


def _inputs(parts: LedgerParts, bucket: Bucket, day: date, settings: StorageSettings) -> bytes:
    """Return what decides the content of a date's table: parts of the ledger, manifest, settings, columns."""
    manifests = manifest_numbers(bucket, day)
    content = (
        _VERSION,
        [names[kind] for names in map(parts.names, sorted(near({day}))) for kind in _READ],
        manifests[-1:],
        (settings.archive_timezone, str(settings.archive_start_date), settings.archive_phone_region),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest().encode()


def _stored(bucket: Bucket, key: str) -> pa.Table | None:
    try:
        body = pa.BufferReader(bucket.get_bytes(key))
        table = pq.read_table(body, page_checksum_verification=True)
    except KeyMissing:
        return None
    except (pa.ArrowException, OSError, ValueError):
        return None  # damaged: replaced
    return table if table.schema.equals(CALLS_FILE_SCHEMA) else None


def _sealed(manifest: ManifestHead | None) -> dict[str, Any]:
    if manifest is None:
        return dict.fromkeys(("verdict", "manifest_number", "manifest_sha256"))
    verdict = manifest.document["totals"].get("verdict")
    return {"verdict": verdict, "manifest_number": manifest.number, "manifest_sha256": manifest.sha256}


class _Window:
    """Which calls are dated a day: those that start on it, and those of its pull whose start is not believed."""

    def __init__(self, day: date, first: date, zone: ZoneInfo) -> None:
        self.day = day
        self._bounds = day_bounds(day, zone)
        self._first = day_bounds(min(first, day), zone)[0]
        self._zone = zone

    def includes(self, instant: datetime | None) -> bool:
        return instant is not None and self._bounds[0] <= instant < self._bounds[1]

    def start(self, legs: Iterable[Leg]) -> datetime | None:
        """Return when a call began: the earliest time of its rows that is believed."""
        return min((leg.started_at for leg in legs if leg.started_at and self._believes(leg)), default=None)

    def holds(self, legs: Sequence[Leg]) -> bool:
        start = self.start(legs)
        return self.includes(start) if start else min(leg.pulled for leg in legs) == self.day

    def _believes(self, leg: Leg) -> bool:
        last = day_bounds(leg.pulled + _CLOCK_SKEW, self._zone)[1]
        return leg.started_at is not None and self._first <= leg.started_at < last


def _legs(ledger: Ledger, days: Iterable[date], window: _Window, uiis: Collection[str]) -> Iterator[Leg]:
    """Yield what the rows pulled on `days` tell: all of the day's own, and of the others what belongs to it.

    `uiis`: of the recordings of the day.
    """
    for report in REPORTS_OF_CALLS:
        for day in days:
            rows = ledger.latest_rows(report, day, columns=columns_of(report))
            if day != window.day:
                known = pc.is_in(rows[ROWS[report].uii], value_set=pa.array(list(uiis), _TEXT))
                rows = rows.filter(pc.or_(known, _starting(report, rows, window)))
            for row in chain.from_iterable(batch.to_pylist() for batch in rows.to_batches(_BATCH)):
                if (leg := leg_of(report, row, day)) is not None:
                    yield leg


def _starting(report: ReportName, rows: pa.Table, window: _Window) -> pa.Array[Any]:
    columns = rows.select([ROWS[report].start]).to_pylist()
    return pa.array([window.includes(start_of(report, row)) for row in columns], pa.bool_())


def _row(exact: Sequence[Leg], call: Sequence[Leg], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row: what the rows that name the recording tell, then what the others of its call do.

    `line`: the recording's own, or for a call without one only when it began.
    """
    row: dict[str, Any] = dict.fromkeys(CALLS_FILE_SCHEMA.names)
    is_leg = line.get("layout") == "stereo"
    if is_leg:
        agents = {leg.agent_id for leg in exact if leg.agent_id}
        # The other reports tell of the same agent's part of the call, for instance the name of the queue.
        main = [*exact, *(leg for leg in call if leg not in exact and leg.agent_id in agents)]
        row |= {name: _one(main, name) for name in (*_MERGED, "session", "segment_s", "hold_s", "wrap_s")}
    else:
        agents = {leg.agent_id for leg in exact or call if leg.agent_id}
        agents = agents or {leg.agent_id for leg in call if leg.agent_id}
        main = [leg for leg in call if leg.agent_id in agents] or list(call)
        row |= {name: _all(main, name) for name in _MERGED}
        row |= {name: _sum(main, name) for name in ("hold_s", "wrap_s")}
    row |= {name: _one([*exact, *call], name) for name in _OF_CALL}
    if "recording_id" not in line:
        one = call[0]
        reason = reason_without_recording(call)
        return row | {"account_id": one.account_id, "uii": one.uii, "state": NO_RECORDING, "reason": reason, **line}
    own = {name: line[name] for name in _FROM_STATE}
    started = line["started_at"] or next((leg.started_at for leg in exact if leg.started_at), None)
    return row | own | {"state": line["status"], "started_at": started, "warnings": line["warnings"] or []}


_FROM_STATE: Final = ("account_id", "uii", "layout", "recording_id", "reason", "key", "size", "sha256", "version_id")


def _one(legs: Iterable[Leg], name: str) -> Any:  # noqa: ANN401 - text or seconds
    return next((value for leg in legs if (value := getattr(leg, name)) is not None), None)


def _all(legs: Iterable[Leg], name: str) -> str | None:
    return SEPARATOR.join(dict.fromkeys(value for leg in legs if (value := getattr(leg, name)))) or None


def _sum(legs: Iterable[Leg], name: str) -> float | None:
    found = [value for leg in legs if (value := getattr(leg, name)) is not None]
    return sum(found) if found else None
