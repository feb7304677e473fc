"""The table `calls` of a date: a row for each recording dated that day, and for each call without one.

The table joins sealed facts of the manifest with the reports' facts about the call. It holds personal data, so it has
its own prefix and is never part of the catalog. It can be derived again at any time: `write_calls` replaces it.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
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
from pipelines.calendar import day_bounds, local_day
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.calls.legs import (
    REPORTS_OF_CALLS,
    Leg,
    begins,
    call_of,
    columns_of,
    key_columns_of,
    leg_of,
    reason_without_recording,
)
from pipelines.steps.calls.numbers import to_e164
from pipelines.steps.link.recording_date import CLOCK_SKEW, near
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable
from pipelines.steps.pull.coverage import pulls_of, unpulled
from pipelines.wording import number

Row = Mapping[str, Any]  # of the table `calls`
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
"""The columns of a search's result."""

NO_RECORDING: Final = "none"
"""The state of a call without a recording."""

STATES: Final = (*(str(status) for status in Status), NO_RECORDING)
"""The values of the column `state`."""

SEPARATOR: Final = "; "
"""The separator of agents, queues and dispositions if a recording of a whole call has several."""

_VERSION: Final = 3
"""The version of the content; a higher one makes every date's table again."""

PARTIAL: Final = b"ringcx-archive/partial"
"""The key in the metadata of a file that may lack calls, because a report was not pulled for the whole day."""

_INPUTS: Final = b"ringcx-archive/inputs"
_READ: Final = ("recording_states", "report_rows")
_ROUNDS: Final = 5
_ROW_GROUP: Final = 2_000
_BATCH: Final = 5_000
_ONE_DAY: Final = timedelta(days=1)  # as `near` reaches
_NEAR: Final = timedelta(days=3)
_AGENT: Final = ("agent_id", "agent_login", "agent_name")
_QUEUE: Final = ("queue_id", "queue_name")
_MERGED: Final = (*_AGENT, *_QUEUE, "disposition")
_OF_LEG: Final = ("disposition", "session", "segment_s", "hold_s", "wrap_s")
_OF_CALL: Final = ("direction", "ani", "dnis", "notes", "call_s")


@dataclass(frozen=True, slots=True)
class StoredCalls:
    """The file of a date: its key, its rows in CALLS_FILE_SCHEMA, whether it was already stored and current, and
    whether calls may be missing from it (PARTIAL).
    """

    key: str
    table: pa.Table
    unchanged: bool
    partial: bool

    def summary(self) -> str:
        """Return a sentence on the content of the file, and what to do if calls may be missing."""
        kept = self.table.filter(self.table["recording_id"].is_valid())
        calls = number(kept.group_by(["account_id", "uii"]).aggregate([]).num_rows, "call")
        without = number(self.table.num_rows - kept.num_rows, "call")
        more = " Calls may be missing: the date is unknown, run it." if self.partial else ""
        return f"{number(kept.num_rows, 'recording')} of {calls}, {without} without one.{more}"


def days_to_write(ledger: Ledger, bucket: Bucket, day: date) -> list[date]:
    """Return `day` and the sealed dates whose calls a run of it may change: a call over midnight belongs to two."""
    others = near({day}) | RecordingsTable.of(ledger.current([day])).found_on()
    return [day, *(other for other in sorted(others - {day}) if manifest_numbers(bucket, other))]


def write_calls(ledger: Ledger, bucket: Bucket, day: date, *, settings: VerifySettings) -> StoredCalls:
    """Make and store the calls of a date, unless they are stored; raise LedgerDamaged, StoreDamaged at bad inputs."""
    key, unchanged = calls_key(bucket.prefix, day), True
    table = _stored(bucket, key)
    for _ in range(_ROUNDS):
        inputs = _inputs(ledger, bucket, day, settings)
        if table is not None and (table.schema.metadata or {}).get(_INPUTS) == inputs:
            break
        table = calls_of(ledger, bucket, day, settings=settings)
        table = table.replace_schema_metadata({_INPUTS: inputs, **(table.schema.metadata or {})})
        bucket.put(key, encode(table), content_type="application/vnd.apache.parquet")
        # Another run may have written to the date meanwhile, and stored a table that this one has just replaced.
        unchanged = False
    assert table is not None  # noqa: S101 - no round ends without one
    return StoredCalls(key, table.replace_schema_metadata(None), unchanged, PARTIAL in table.schema.metadata)


def calls_of(ledger: Ledger, bucket: Bucket, day: date, *, settings: VerifySettings) -> pa.Table:
    """Return the calls of a date in CALLS_FILE_SCHEMA, sorted by UII, which sorts by time, and by recording id; with
    the metadata PARTIAL if its manifest calls the date unknown, or, without a verdict, if a report was not pulled.

    A call over midnight is found by the pull of one date and may be stored under the next, so the rows of the
    adjacent dates are read too. A call without a recording has the date of its first leg (`_Window.day_of`), so a call
    whose rows were pulled on one date, or on it and the next, is in one table only.
    """
    days = near({day})
    lines = ledger.current(days)
    names = LedgerSnapshot(lines).names
    of_day = lines.filter(pc.and_(pc.equal(lines["date"], day), lines["same_as"].is_null()))
    recorded = _calls_in(lines)
    window = _Window(day, settings.archive_start_date, settings.zone)
    found_on = set(pc.unique(of_day["found_on"]).to_pylist())
    by_recording: defaultdict[str, list[Leg]] = defaultdict(list)
    by_call: defaultdict[tuple[str, str], list[Leg]] = defaultdict(list)
    for leg in _legs(ledger, sorted(days | found_on), window, _calls_in(of_day)):
        by_call[leg.call].append(leg)
        for name in leg.recordings:
            by_recording[names.get(name, name)].append(leg)
    sealed, region = _sealed(latest_manifest(bucket, day)), settings.archive_phone_region

    def with_recording() -> Iterator[dict[str, Any]]:
        for line in _cells(of_day):
            call = line["account_id"], line["uii"].strip().lower()
            exact = by_recording.get(line["recording_id"], [])
            line["started_at"] = line["started_at"] or window.start(exact)
            yield _row(exact, by_call.get(call, []), line)

    def without_recording() -> Iterator[dict[str, Any]]:
        for call, parts in by_call.items():
            is_recorded = call in recorded or any(leg.recordings for leg in parts)
            if not is_recorded and window.holds(parts):
                yield _row([], parts, {"started_at": window.start(parts)})

    def complete(row: dict[str, Any]) -> dict[str, Any]:
        started = row["started_at"]
        local = started.astimezone(settings.zone).isoformat(timespec="seconds") if started else None
        e164 = {f"{side}_e164": to_e164(row[side], region) for side in ("ani", "dnis")}
        return row | sealed | e164 | {"started_local": local}

    rows = map(complete, chain(with_recording(), without_recording()))
    tables = [CALLS_FILE_SCHEMA.empty_table()]
    while batch := list(islice(rows, _BATCH)):  # all of them as objects would take 2 KB each
        tables.append(pa.Table.from_pylist(batch, CALLS_FILE_SCHEMA))
    found = pa.concat_tables(tables).sort_by([("uii", "ascending"), ("recording_id", "ascending")])
    verdict = sealed["verdict"]  # None: not sealed, or by 0.1.0
    is_partial = verdict == "unknown" or (verdict is None and unpulled(pulls_of(ledger, day), day, settings))
    return found.replace_schema_metadata({PARTIAL: b"1"} if is_partial else None)


def encode(table: pa.Table) -> bytes:
    """Return a date's calls as Parquet, with statistics of small row groups, so that a search reads few of them."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
    return out.getvalue()


def _inputs(ledger: Ledger, bucket: Bucket, day: date, settings: VerifySettings) -> bytes:
    """Return what determines a date's table, also the rows of dates, not adjacent, whose pulls found its recordings."""
    manifests = manifest_numbers(bucket, day)
    distant = sorted(RecordingsTable.of(ledger.current([day])).found_on() - near({day}))
    content = (
        _VERSION,
        [names for near_day in sorted(near({day})) for names in ledger.parts.names(near_day, _READ).values()],
        [(str(other), *ledger.parts.names(other, ["report_rows"]).values()) for other in distant],
        manifests[-1:],
        (settings.archive_timezone, str(settings.archive_start_date), settings.archive_phone_region),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest().encode()


def _stored(bucket: Bucket, key: str) -> pa.Table | None:
    try:
        body = pa.BufferReader(bucket.get_bytes(key))
        table = pq.read_table(body, page_checksum_verification=True)
    except (KeyMissing, pa.ArrowException, OSError, ValueError):
        return None  # what is damaged is replaced
    return table if table.schema.equals(CALLS_FILE_SCHEMA) else None


def _sealed(manifest: ManifestHead | None) -> dict[str, Any]:
    if manifest is None:
        return dict.fromkeys(("verdict", "manifest_number", "manifest_sha256"))
    verdict = manifest.document["totals"].get("verdict")
    return {"verdict": verdict, "manifest_number": manifest.number, "manifest_sha256": manifest.sha256}


class _Window:
    """The rule that decides which calls without a recording belong to a day."""

    def __init__(self, day: date, first: date, zone: ZoneInfo) -> None:
        self.day = day
        self._first = first
        self._zone = zone

    def may_hold(self, pulled: date, start: datetime | None) -> bool:
        """Return whether a row belongs to the day, or was pulled with rows that do."""
        return pulled == self.day or self.day_of(pulled, start) == self.day

    def day_of(self, pulled: date, start: datetime | None) -> date:
        """Return the date of a row: the day it starts, if that date's table would read it; else the day of its pull."""
        noon = datetime.combine(pulled, time(12), UTC)
        if start is None or abs(start - noon) > _NEAR:  # also a year outside the range of `datetime` in some zone
            return pulled
        day = local_day(start, self._zone)
        return day if abs(day - pulled) <= _ONE_DAY and day >= min(self._first, pulled) else pulled

    def holds(self, legs: Iterable[Leg]) -> bool:
        """Return whether a call belongs to the day, which is the date of its first leg."""
        return min(self.day_of(leg.pulled, leg.started_at) for leg in legs) == self.day

    def start(self, legs: Iterable[Leg]) -> datetime | None:
        """Return when a call began: the earliest plausible time of its rows."""
        return min((leg.started_at for leg in legs if leg.started_at and self._believes(leg)), default=None)

    def _believes(self, leg: Leg) -> bool:
        first = day_bounds(min(self._first, leg.pulled), self._zone)[0]
        last = day_bounds(leg.pulled + CLOCK_SKEW, self._zone)[1]
        return leg.started_at is not None and first <= leg.started_at < last


def _calls_in(lines: pa.Table) -> set[tuple[str, str]]:
    columns = (lines[name].to_pylist() for name in ("account_id", "uii"))
    return {(account_id, uii.strip().lower()) for account_id, uii in zip(*columns, strict=True)}


def _legs(ledger: Ledger, days: Iterable[date], window: _Window, calls: set[tuple[str, str]]) -> Iterator[Leg]:
    """Yield the legs in the rows pulled on `days`: all that belong to the day, and from other dates those of its calls.

    `calls`: the calls of the day's recordings.
    """
    calls = set(calls)
    for report in REPORTS_OF_CALLS:
        for day in days:
            keys = ledger.latest_rows(report, day, columns=key_columns_of(report))
            calls.update(call_of(report, row) for row in _cells(keys) if window.may_hold(day, begins(report, row)))
    for report in REPORTS_OF_CALLS:
        for day in days:
            rows = ledger.latest_rows(report, day, columns=columns_of(report))
            if day != window.day:
                keys = rows.select(key_columns_of(report))
                rows = rows.filter(pa.array((call_of(report, row) in calls for row in _cells(keys)), pa.bool_()))
            for row in _cells(rows):
                if (leg := leg_of(report, row, day)) is not None:
                    yield leg


def _cells(rows: pa.Table) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(batch.to_pylist() for batch in rows.to_batches(_BATCH))


def _row(exact: Sequence[Leg], call: Sequence[Leg], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table: first from the rows that name the recording, then from the others of its call.

    `line`: the recording's own line, or for a call without a recording only its start.
    """
    row: dict[str, Any] = dict.fromkeys(CALLS_FILE_SCHEMA.names)
    everything = list(dict.fromkeys([*exact, *call]))
    if line.get("layout") == "stereo":
        row |= _of_leg([*exact, *_same_part(exact, everything)])
    else:  # of the whole call: everybody who took part, also those that one report alone names
        row |= {name: _all_values(everything, name) for name in _MERGED}
        row |= {name: _total(everything, name) for name in ("hold_s", "wrap_s")}
    row |= {name: _first_value(everything, name) for name in _OF_CALL}
    if "recording_id" in line:
        row |= {name: line[name] for name in _FROM_STATE}
        return row | {"state": line["status"], "warnings": line["warnings"] or []}
    ids = {"account_id": call[0].account_id, "uii": call[0].uii}
    return row | ids | {"state": NO_RECORDING, "reason": reason_without_recording(call), **line}


def _of_leg(main: Sequence[Leg]) -> dict[str, Any]:
    """Return what is known of one agent's part, from the rows about it."""
    agent = _first_value(main, "agent_id")
    of_agent = [leg for leg in main if leg.agent_id == agent]
    found = {name: _first_value(of_agent, name) for name in _AGENT}
    found |= {name: getattr(_queue(main), name, None) for name in _QUEUE}
    return found | {name: _first_value(main, name) for name in _OF_LEG}


_FROM_STATE: Final = (
    *("account_id", "uii", "layout", "recording_id", "started_at", "reason", "key", "size", "sha256", "version_id"),
)


def _same_part(exact: Sequence[Leg], call: Iterable[Leg]) -> Iterator[Leg]:
    """Yield the row about the same part of the call from each report that does not name the recording.

    That is the row of the same agent and session, else the row with the longest overlap. An agent may get a call
    twice; the other part must not be mixed in.
    """
    agent = _first_value(exact, "agent_id")
    own = next((leg for leg in exact if leg.agent_id == agent), None)
    if agent is None or own is None:
        return
    naming = {leg.report for leg in exact}
    for report in REPORTS_OF_CALLS:
        if report not in naming:
            part = _matching_leg(own, [leg for leg in call if leg.report == report and leg.agent_id == agent])
            if part is not None:
                yield part


def _matching_leg(own: Leg, others: Sequence[Leg]) -> Leg | None:
    """Return the leg of the same session, or with the longest overlap; an only one also if a start is unknown."""
    for leg in others:
        if leg.session and leg.session == own.session:
            return leg
    overlaps = [_overlap_s(own, leg) for leg in others]
    longest = max((seconds for seconds in overlaps if seconds is not None), default=-1.0)
    if longest >= 0:
        return others[overlaps.index(longest)]
    return others[0] if overlaps == [None] else None


def _overlap_s(leg: Leg, other: Leg) -> float | None:
    """Return for how many seconds two legs overlap, below zero for a gap; None if a start is unknown."""
    begun, other_begun = leg.started_at, other.started_at
    if begun is None or other_begun is None:
        return None
    apart = (other_begun - begun).total_seconds()
    return min(_length_s(leg) - apart, _length_s(other) + apart, _length_s(leg), _length_s(other))


def _length_s(leg: Leg) -> float:
    return next((length for length in (leg.segment_s, leg.call_s) if length is not None), 0.0)


def _queue(legs: Iterable[Leg]) -> Leg | None:
    """Return the first leg with both id and name of its queue, else the first with one of them."""
    legs = [leg for leg in legs if leg.queue_id or leg.queue_name]
    return next((leg for leg in legs if leg.queue_id and leg.queue_name), legs[0] if legs else None)


def _first_value(legs: Iterable[Leg], name: str) -> Any:  # noqa: ANN401 - text or seconds
    return next((value for leg in legs if (value := getattr(leg, name)) is not None), None)


def _all_values(legs: Iterable[Leg], name: str) -> str | None:
    return SEPARATOR.join(dict.fromkeys(value for leg in legs if (value := getattr(leg, name)))) or None


def _total(legs: Iterable[Leg], name: str) -> float | None:
    found = [value for leg in legs if (value := getattr(leg, name)) is not None]
    return sum(found) if found else None
