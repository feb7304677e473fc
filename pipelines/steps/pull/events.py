"""The step that turns stored End Call Events into rows of their date.

Reading is idempotent: an event that was read before gives the same row, which is not appended again. Which files were
read is recorded after their rows, and only saves reading. `link/extract_links.py` reads the links in rows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from itertools import chain, groupby
from operator import attrgetter
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.events.event import call_start, field
from pipelines.events.files import Events, day_folder, malformed_folder, read_frames
from pipelines.ledger.schema import values
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import COLUMNS, EVENTS, canonical_names, fold
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.times import parse_report_time
from pipelines.steps.link.rows import links_of
from pipelines.steps.parallel import map_in_order

_log = logging.getLogger(__name__)
_IDENTITY = ("row_key", "row_hash")
_FOREIGN = "end_call_events_foreign"


def take_events(
    ledger: Ledger, stored: Events, day: date, *, accounts: Collection[str], zone: ZoneInfo, now: datetime, run_id: str
) -> tuple[Counter[str], Counter[str]]:
    """Append those events of `day` that the ledger lacks, or raise EventsUnavailable. `zone`: of `call_start`.

    Return the number of new events by account id, and counts. `events_known`: repeated by the source, or read before.
    `malformed_requests`: requests of that UTC day that were not events.
    """
    # Events of other accounts are left in their files, which are read again once the accounts are others.
    whose = f"?{','.join(sorted(accounts))}"
    read_to = ledger.event_reads(day)
    unread = {name: size for name, size in stored.files(day_folder(day)).items() if size > read_to.get(name + whose, 0)}
    counts = Counter(files_read=len(unread))
    events, damaged = _events_of(stored, unread, zone, counts)
    for _, (records, _) in _read(stored, stored.files(malformed_folder(day))):
        counts["malformed_requests"] += len(records)
    own = sorted((event for event in events if event.account in accounts), key=attrgetter("account", "received_at"))
    counts.update(
        events_read=len(events),
        events_of_other_accounts=len(events) - len(own),
        start_disagrees=sum(event.disagrees for event in events),
    )
    versions = set(_identities(ledger.all_rows(EVENTS, day, columns=_IDENTITY)))
    keys = {key for key, _ in versions}
    new_by_account = Counter[str]()

    def append(account: str, rows: pa.Table) -> None:
        """Append rows but for the versions that the date has: an old one that comes again changes nothing."""
        fresh = rows.filter(pa.array([version not in versions for version in _identities(rows)], pa.bool_()))
        ledger.append_rows(EVENTS, day, fresh, account_id=account, pulled_at=now, run_id=run_id)
        versions.update(_identities(fresh))
        new = set(fresh["row_key"].to_pylist()) - keys
        keys.update(new)
        new_by_account[account] += len(new)
        with_link = fresh.num_rows - fresh["recording_url"].null_count
        counts.update(events_new=len(new), events_changed=fresh.num_rows - len(new), events_with_link=with_link)

    for account, of_account in groupby(own, attrgetter("account")):
        append(account, _rows(account, list(of_account)))
    counts["events_known"] = len(own) - counts["events_new"] - counts["events_changed"]
    for account, rows in _kept_aside(ledger, day, accounts):
        append(account, rows)
    counts["events_of_date"] = len(keys)
    # A damaged file is read by every run, so that the damage stays visible until somebody looks.
    ends = {name + whose: size for name, size in unread.items() if name not in damaged}
    ledger.append_event_reads(day, ends, run_id=run_id, read_at=now)
    return new_by_account, counts


def _events_of(
    stored: Events, names: Iterable[str], zone: ZoneInfo, counts: Counter[str]
) -> tuple[list[_Event], set[str]]:
    """Return the events in these files, and the files that are damaged; count the lines that are not events."""
    events: list[_Event] = []
    damaged: set[str] = set()
    for name, (records, altered) in _read(stored, names):
        own = [record for record in records if _is_event(record)]
        if len(own) < len(records):
            _log.warning("The file %s of the stored events holds lines that no receiver wrote; they are left out", name)
        if altered:
            damaged.add(name)
        counts["damaged_lines"] += altered + len(records) - len(own)
        events += [_Event.of(record, zone) for record in own]
    return events, damaged


def _kept_aside(ledger: Ledger, day: date, accounts: Collection[str]) -> list[tuple[str, pa.Table]]:
    """Return the rows that 0.1.0 kept for accounts that were not archived then; their files may no longer exist."""
    aside = ledger.all_rows(_FOREIGN, day)
    rows = aside.drop_columns(["account_id", "pulled_at", "run_id"])
    own = sorted(set(accounts).intersection(aside["account_id"].to_pylist()))
    return [(account, rows.filter(pc.equal(aside["account_id"], pa.scalar(account)))) for account in own]


@dataclass(frozen=True, slots=True)
class _Event:
    """An event: its account, its fields under canonical names, and facts that are not part of its identity."""

    account: str
    fields: Mapping[str, str]
    received_at: str
    started_at: str | None
    disagrees: bool

    @classmethod
    def of(cls, record: Mapping[str, Any], zone: ZoneInfo) -> _Event:
        given: Mapping[str, str] = record["fields"]
        named = {name: value for name, value in zip(_our_names(tuple(given)), given.values(), strict=True) if value}
        named["uii"] = field(given, "call_id").removeprefix("'")
        started_at, disagrees = call_start(given, zone)
        started = started_at.isoformat() if started_at else None
        return cls(field(given, "account_id"), named, str(record["received_at"]), started, disagrees)


def _is_event(record: Mapping[str, Any]) -> bool:
    fields = record.get("fields")
    if not isinstance(fields, dict):
        return False
    return all(isinstance(text, str) for text in (*fields.values(), record.get("received_at")))


@lru_cache(maxsize=256)
def _our_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the canonical names of an event's fields; its `call_id` is the UII, under the reports' name for that."""
    return tuple(canonical_names(EVENTS, ["uii" if fold(name) == "callid" else name for name in given]))


def _read(stored: Events, names: Iterable[str]) -> Iterator[tuple[str, tuple[list[Mapping[str, Any]], int]]]:
    """Yield the name of each file with its records and its number of altered lines."""
    return map_in_order(lambda name: read_frames(stored.read(name)), names)


def _rows(account: str, events: Sequence[_Event]) -> pa.Table:
    """Return the distinct events of one account as rows with their identity, in order of arrival.

    The arrival time of an event and the start derived from it were not sent by the source and are not part of the
    row's hash, so that a repeated event is the same row.
    """
    documented = list(COLUMNS[EVENTS])
    others = {name for event in events for name in event.fields}.difference(documented)
    columns = {
        name: _text_column(event.fields.get(name) for event in events) for name in (*documented, *sorted(others))
    }
    # `date` is one of the names that no hash covers; it carries each row's index through the removal of equal rows.
    columns["date"] = _text_column(str(index) for index in range(len(events)))
    rows = with_row_identity(EVENTS, pa.table(columns), account)
    kept = [events[int(index or 0)] for index in rows["date"].to_pylist()]
    # Rows of one reading that share a key are numbered, but another reading would number them differently.
    key: Any = pc.replace_substring_regex(rows["row_key"], "#[0-9]+$", "")
    rows = rows.drop_columns(["date", "row_key"]).add_column(0, "row_key", key)
    rows = rows.append_column("received_at", _text_column(event.received_at for event in kept))
    return rows.append_column("call_start_dts", _text_column(event.started_at for event in kept))


def _text_column(texts: Iterable[str | None]) -> pa.Array[Any]:
    return pa.array(texts, pa.string())


def _identities(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in _IDENTITY), strict=True)


def seconds_to_archive(ledger: Ledger, days: Iterable[date], archived: pa.Table) -> pd.Series[float]:
    """Return how long archived recordings (STATE_SCHEMA) took from their event of these days, if they had one."""
    events: dict[str, datetime] = {}
    columns = ["account_id", "recording_url", "received_at"]
    for row in chain.from_iterable(ledger.all_rows(EVENTS, day, columns=columns).to_pylist() for day in days):
        received_at = parse_report_time(row["received_at"])
        if received_at is not None:
            for link in links_of(EVENTS, row):
                events[link.recording_id] = min(received_at, events.get(link.recording_id, received_at))
    lines = zip(values(archived["recording_id"]), values(archived["written_at"]), strict=True)
    return pd.Series([(at - events[key]).total_seconds() for key, at in lines if key in events], dtype=float)
