"""Stored End Call Events become rows of their date: read once, told apart from what is known, appended.

Reading is idempotent: an event that was read before is the same row again, and is not appended. How far each file was
read is written down after its rows, and only spares reading. Not here: what a row's link leads to (`links.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from statistics import median, quantiles
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.events.event import call_start, field
from pipelines.events.files import Events, Frames, StoredFile, day_folder, malformed_folder, read_frames
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import COLUMNS, canonical_names, fold
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.times import parse_report_time
from pipelines.steps.link.rows import EVENTS, links_of

FOREIGN = "end_call_events_foreign"
"""The report name under which events of accounts lie that are not in RINGCX_ACCOUNT_IDS, until they are."""
_READERS = 8
_IDENTITY = ("row_key", "row_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsTaken:
    """What a run found in the stored events of a date. Counts of events, those of `account` by its id.

    `known`: repeated by the source, or read before. `foreign`: of accounts that are not archived. `start_disagrees`:
    `call_start` and UII tell different times. `damaged`: lines that are not what was written. `malformed`: requests of
    that UTC day that were no event.
    """

    files: int
    read: int
    new: int
    changed: int
    known: int
    foreign: int
    with_link: int
    start_disagrees: int
    damaged: int
    malformed: int
    account: Mapping[str, int]


def take_events(
    ledger: Ledger,
    stored: Events,
    day: date,
    *,
    accounts: Collection[str],
    zone: ZoneInfo,
    now: datetime,
    run_id: str,
) -> EventsTaken:
    """Append what the stored events of `day` hold and the ledger does not. `zone`: that of `call_start`.

    Raises:
        EventsUnavailable: a file cannot be listed or read; nothing was appended.
    """
    read_to = ledger.event_reads(day)
    fresh = [file for file in stored.files(day_folder(day)) if file.size > read_to.get(file.name, 0)]
    frames = _read(stored, fresh, read_to)
    lines = [_Line.of(record, zone) for one in frames for record in one.records]
    seen = _Seen(ledger, EVENTS, day)
    new = changed = with_link = 0
    by_account: dict[str, int] = {}
    own = [line for line in lines if line.account in accounts]
    for account, rows in [*_rows_by_account(own), *_adopted(ledger, day, accounts)]:
        kept, its_new, its_changed = seen.unseen(rows)
        ledger.append_rows(EVENTS, day, kept, account_id=account, pulled_at=now, run_id=run_id)
        new, changed = new + its_new, changed + its_changed
        with_link += kept.num_rows - kept["recording_url"].null_count
        by_account[account] = by_account.get(account, 0) + its_new
    others = _Seen(ledger, FOREIGN, day)
    foreign = [line for line in lines if line.account not in accounts]
    for account, rows in _rows_by_account(foreign):
        ledger.append_rows(FOREIGN, day, others.unseen(rows)[0], account_id=account, pulled_at=now, run_id=run_id)
    settled = {file.name: read_to.get(file.name, 0) + one.settled for file, one in zip(fresh, frames, strict=True)}
    moved = {name: end for name, end in settled.items() if end > read_to.get(name, 0)}
    ledger.append_event_reads(day, moved, run_id=run_id, read_at=now)
    return EventsTaken(
        files=len(fresh),
        read=len(lines),
        new=new,
        changed=changed,
        known=max(0, len(own) - new - changed),
        foreign=len(foreign),
        with_link=with_link,
        start_disagrees=sum(line.disagrees for line in lines),
        damaged=sum(one.damaged for one in frames),
        malformed=sum(len(one.records) for one in _read(stored, stored.files(malformed_folder(day)), {})),
        account=by_account,
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """One event: its fields under our names, the account it names, and what is not part of its identity."""

    account: str
    fields: Mapping[str, str]
    received_at: str
    started_at: str | None
    disagrees: bool

    @classmethod
    def of(cls, record: Mapping[str, Any], zone: ZoneInfo) -> _Line:
        given: Mapping[str, str] = record["fields"]
        named = {name: value for name, value in zip(_our_names(tuple(given)), given.values(), strict=True) if value}
        named["uii"] = field(given, "call_id").removeprefix("'")
        started_at, disagrees = call_start(given, zone)
        started = started_at.isoformat() if started_at else None
        return cls(field(given, "account_id"), named, str(record["received_at"]), started, disagrees)


@lru_cache(maxsize=256)
def _our_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Our names of an event's fields; its `call_id` is the UII, which the reports call so too."""
    return tuple(canonical_names(EVENTS, ["uii" if fold(name) == "callid" else name for name in given]))


def _read(stored: Events, files: Sequence[StoredFile], read_to: Mapping[str, int]) -> list[Frames]:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="events") as pool:
        return list(pool.map(lambda file: _frames(stored, file, read_to.get(file.name, 0)), files))


def _frames(stored: Events, file: StoredFile, start: int) -> Frames:
    # Not past the listed length: what is appended meanwhile is left to the next run, which lists a longer file.
    frames = read_frames(stored.read(file.name, start)[: file.size - start])
    sound = [one for one in frames.records if isinstance(one.get("fields", one.get("why")), (dict, str))]
    return replace(frames, records=sound, damaged=frames.damaged + len(frames.records) - len(sound))


def _rows_by_account(lines: Iterable[_Line]) -> list[tuple[str, pa.Table]]:
    groups: dict[str, list[_Line]] = {}
    for line in sorted(lines, key=lambda one: one.received_at):
        groups.setdefault(line.account, []).append(line)
    return [(account, _rows(account, group)) for account, group in sorted(groups.items())]


def _rows(account: str, lines: Sequence[_Line]) -> pa.Table:
    """The events of one account as rows with their identity, each distinct one once, by when they first came.

    When an event came, and what its start is taken to be, say nothing about what the source sent: they are no part of
    the row's hash, so that a repeated event is the same row.
    """
    names = [*COLUMNS[EVENTS], *sorted({name for line in lines for name in line.fields} - set(COLUMNS[EVENTS]))]
    plain = pa.table({name: pa.array([line.fields.get(name) for line in lines], pa.string()) for name in names})
    place = pa.array([f"{number}" for number in range(len(lines))], pa.string())
    # `date` is one of the names that no hash covers; it carries each row's place through the removal of equal rows.
    identified = with_row_identity(EVENTS, plain.append_column("date", place), account)
    kept = [lines[int(number or 0)] for number in identified["date"].to_pylist()]
    # The number of a key shared by rows of one reading would be another one in the next: all versions bear the key.
    key: Any = pc.replace_substring_regex(identified["row_key"], "#[0-9]+$", "")
    rows = identified.drop_columns(["date", "row_key"]).add_column(0, "row_key", key)
    rows = rows.append_column("received_at", pa.array([line.received_at for line in kept], pa.string()))
    return rows.append_column("call_start_dts", pa.array([line.started_at for line in kept], pa.string()))


def _adopted(ledger: Ledger, day: date, accounts: Collection[str]) -> list[tuple[str, pa.Table]]:
    """Rows kept aside for accounts that have been added to RINGCX_ACCOUNT_IDS since."""
    aside = ledger.all_rows(FOREIGN, day)
    found = []
    present: list[Any] = pc.unique(aside["account_id"]).to_pylist()
    for account in sorted(set(present) & set(accounts)):
        rows = aside.filter(pc.equal(aside["account_id"], pa.scalar(account)))
        found.append((account, rows.drop_columns(["account_id", "pulled_at", "run_id"])))
    return found


class _Seen:
    """Every version of every row that the ledger has: an old version that comes again changes nothing."""

    def __init__(self, ledger: Ledger, report: str, day: date) -> None:
        self._versions = set(_identities(ledger.all_rows(report, day, columns=list(_IDENTITY))))
        self._keys = {key for key, _ in self._versions}

    def unseen(self, rows: pa.Table) -> tuple[pa.Table, int, int]:
        """Return the rows not seen yet, which are seen from now on; how many of them are new, and how many changed."""
        mask, new, changed = [], 0, 0
        for key, digest in _identities(rows):
            fresh = (key, digest) not in self._versions
            mask.append(fresh)
            new += fresh and key not in self._keys
            changed += fresh and key in self._keys
            self._versions.add((key, digest))
            self._keys.add(key)
        return rows.filter(pa.array(mask, pa.bool_())), new, changed


def _identities(rows: pa.Table) -> Iterator[tuple[str, str]]:
    columns: list[list[Any]] = [rows[name].to_pylist() for name in _IDENTITY]
    return zip(*columns, strict=True)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from an event to its recording in the archive, over `recordings` of them."""

    recordings: int
    median_s: float
    p95_s: float


def waits(ledger: Ledger, days: Iterable[date], archived: Mapping[str, datetime]) -> list[float]:
    """How long recordings, archived when `archived` says, took from their event, by the events of `days`, in seconds;
    nothing of those that had none.
    """
    sent: dict[str, datetime] = {}
    columns = ["account_id", "recording_url", "received_at"]
    for row in (
        row for day in days for rows in ledger.iter_rows(EVENTS, day, columns=columns) for row in rows.to_pylist()
    ):
        at = parse_report_time(row["received_at"])
        for recording_id in (link.recording_id for link in links_of(EVENTS, row)):
            if at and recording_id in archived:
                sent[recording_id] = min(at, sent.get(recording_id, at))
    return [(archived[recording_id] - at).total_seconds() for recording_id, at in sent.items()]


def latency(taken: Sequence[float]) -> Latency | None:
    """What many waits (`waits`) come to; None for none."""
    if not taken:
        return None
    p95 = quantiles(taken, n=20, method="inclusive")[-1] if len(taken) > 1 else taken[0]
    return Latency(len(taken), round(median(taken), 1), round(p95, 1))
