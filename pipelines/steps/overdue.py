"""What is missing now, over all dates, and what the source will purge before it is held.

The cost follows what happens: a date is read again when its states changed (one listing tells), or while something of
it is pending. What was found of the others is remembered in a file under `DATA_DIR`. That file is only a convenience:
without it, or once a week all the same, everything is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

from pipelines.calendar import local_day
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.states import FINAL, RecordingState, RetryRules, Status
from pipelines.ledger.store import Ledger, LedgerDamaged
from pipelines.ringcx.columns import REPORTS, ReportName
from pipelines.steps.changes import NEVER, Position, changed_dates
from pipelines.steps.completeness import overdue, stuck
from pipelines.steps.coverage import unpulled
from pipelines.steps.findings import SAMPLE, Finding, Level, Row, Table, examples, number
from pipelines.steps.known import Recordings

READ_ALL_EVERY = timedelta(days=7)
# The night's run takes yesterday at 04:30; before noon it may still be at it.
PULLED_WITHIN = timedelta(hours=12)
_ONE_DAY = timedelta(days=1)
_BUCKETS = (0, 7, 14, 30, 60)


@dataclass(slots=True)
class Memory:
    """What an earlier look found. `open`: date -> state and reason -> recordings not held; `whole`: dates fully pulled.

    `of` says what it is a memory of; another ledger, zone or account begins anew.
    """

    of: str
    read_all_at: datetime = NEVER
    position: Position = field(default_factory=Position)
    open: dict[date, dict[str, int]] = field(default_factory=dict)
    whole: set[date] = field(default_factory=set)

    @classmethod
    def load(cls, file: Path, of: str, now: datetime) -> Self:
        """Read it back; an absent, damaged, foreign or week-old one is an empty one, and so is one of a clock ahead."""
        try:
            stored: dict[str, Any] = json.loads(file.read_text())
            position, read_all_at = Position.of(stored), datetime.fromisoformat(stored["read_all_at"])
            if stored["of"] != of or now - read_all_at > READ_ALL_EVERY or position.read_to > now:
                return cls(of)
            return cls(
                of,
                read_all_at,
                position,
                {date.fromisoformat(day): counts for day, counts in stored["open"].items()},
                {date.fromisoformat(day) for day in stored["whole"]},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(of)  # derived data: reading everything is always right

    def save(self, file: Path) -> bool:
        """Write it beside and rename: two runs may do so at once, and the later one wins. False: it cannot be kept."""
        text = json.dumps(
            {
                "of": self.of,
                "read_all_at": self.read_all_at.isoformat(),
                **self.position.as_json(),
                "open": {day.isoformat(): counts for day, counts in sorted(self.open.items())},
                "whole": sorted(day.isoformat() for day in self.whole),
            }
        )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}.partial")
            beside.write_text(text)
            beside.replace(file)
        except OSError:
            return False  # a full disk or a read-only one: the next look reads everything again
        return True

    def refresh(self, ledger: Ledger, now: datetime) -> tuple[int, list[str]]:
        """Read the dates whose states changed; return how many, and a sentence for each that is damaged."""

        def read(day: date) -> dict[str, int]:
            reasons = Recordings.of(ledger.current([day])).reasons().to_pylist()
            return {f"{one['status']}/{one['reason'] or 'new'}": one["recordings"] for one in reasons}

        if self.position.read_to == NEVER:
            self.read_all_at = now
        number, damaged = 0, []
        for day, counts in changed_dates(ledger, self.position, now, read):
            number += 1
            self.open.pop(day, None)
            if isinstance(counts, LedgerDamaged):
                damaged.append(str(counts))
            elif counts:
                self.open[day] = dict(sorted(counts.items()))
        return number, damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the look over all dates needs besides the ledger."""

    memory: Path
    ledger_url: str
    accounts: Sequence[str]
    reports: Sequence[ReportName]
    zone: ZoneInfo
    start: date
    rules: RetryRules
    retention_days: int
    margin_days: int

    @property
    def of(self) -> str:
        """What a memory is bound to. A digest: the file then says nothing of the installation."""
        parts = (self.ledger_url, *self.accounts, *self.reports, self.zone.key, self.start.isoformat())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def nothing_is_overdue(
    ledger: Ledger, parts: LedgerParts, standing: Standing, *, busy: Collection[date], now: datetime
) -> Finding:
    """Say what is missing now. `busy`: the dates that an unfinished run works on, where being late is no fault.

    `bad`: recordings late, stuck or about to be purged, or lost while the source still has them. `doubtful`: lost for
    good, or dates that nobody pulled.
    """
    memory = Memory.load(standing.memory, standing.of, now)
    read, damaged = memory.refresh(ledger, now)
    gaps = _never_pulled(ledger, standing, memory, now, damaged)
    kept = memory.save(standing.memory)
    strange = sorted(parts.strange().items())
    pending = list(_pending(ledger, memory))
    today = local_day(now, standing.zone)
    astray = [one for one in pending if not any(standing.start <= day <= today for day in (one.date, one.found_on))]
    late = [one for one in pending if overdue(one, now) and not {one.date, one.found_on} & set(busy)]
    hung = [one for one in pending if stuck(one, standing.rules, now)]
    left = {one.recording_id: _days_left(one, standing.retention_days, now) for one in pending}
    risky = sorted((one for one in pending if left[one.recording_id] < standing.margin_days), key=_by_date)
    lost = {day: _lost(counts) for day, counts in memory.open.items() if _lost(counts)}
    horizon = today - timedelta(days=standing.retention_days)
    retrievable = sum(count for day, count in lost.items() if day > horizon)
    counts = {
        "missing_now": sum(sum(counts.values()) for counts in memory.open.values()),
        "pending": len(pending),
        "overdue": len(late),
        "stuck": len(hung),
        "without_partition": len(astray),
        "at_risk": len(risky),
        "lost": sum(lost.values()),
        "lost_within_retention": retrievable,
        "dates_not_pulled": len(gaps),
        "dates_with_something_missing": len(memory.open),
        "dates_read": read,
        "dates_damaged": len(damaged),
        "strange_files": len(strange),
        "memory_kept": int(kept),
    }
    level = Level.good
    if late or hung or risky or retrievable or astray or damaged:
        level = Level.bad
    elif lost or gaps or strange:
        level = Level.doubtful
    matters: dict[str, tuple[str, RecordingState]] = {}
    for matter, members in (("without_partition", astray), ("at_risk", risky), ("overdue", late), ("stuck", hung)):
        for one in members:
            matters.setdefault(one.recording_id, (matter, one))
    sample = list(matters.values())[:SAMPLE]
    sample += [("lost", one) for one in _lost_states(ledger, lost, SAMPLE - len(sample))]
    return Finding(
        level=level,
        sentence=_sentence(counts, standing, gaps, min((one.date for one in astray), default=None)),
        counts=counts,
        tables={
            **({"by_reason": _reasons(memory)} if memory.open else {}),
            **({"by_days_left": _by_days_left(list(left.values()), standing)} if left else {}),
            **({"sample": examples(sample)} if sample else {}),
            **({"not_pulled": Table(("date",), [(day.isoformat(),) for day in gaps[:SAMPLE]])} if gaps else {}),
            **({"strange_files": Table(("file", "why"), strange[:SAMPLE])} if strange else {}),
            **({"damaged": Table(("problem",), [(one,) for one in damaged[:SAMPLE]])} if damaged else {}),
        },
    )


def _pending(ledger: Ledger, memory: Memory) -> Iterator[RecordingState]:
    for day, counts in sorted(memory.open.items()):
        if any(key.startswith(f"{Status.pending}/") for key in counts):
            yield from ledger.pending(day)


def _never_pulled(ledger: Ledger, standing: Standing, memory: Memory, now: datetime, damaged: list[str]) -> list[date]:
    """Return the dates since the first one archived, within the retention, of which no source was pulled whole; those
    whose record of pulls is damaged are added to `damaged`.
    """
    begun = [days[0] for report in REPORTS if (days := ledger.row_days(report))]
    if not begun:
        return []
    last = local_day(now - PULLED_WITHIN, standing.zone) - _ONE_DAY
    oldest = local_day(now, standing.zone) - timedelta(days=standing.retention_days)
    day = max(min(begun), oldest, standing.start)
    memory.whole = {known for known in memory.whole if known >= day}
    gaps = []
    while day <= last:
        if day not in memory.whole:
            try:
                if unpulled(ledger, day, standing.accounts, standing.zone, standing.reports):
                    gaps.append(day)
                else:
                    memory.whole.add(day)
            except LedgerDamaged as error:
                damaged.append(str(error))
        day += _ONE_DAY
    return gaps


def _days_left(state: RecordingState, retention_days: int, now: datetime) -> float:
    """Days until the source purges the recording, counted from its start, else from the beginning of its date."""
    born = state.started_at or datetime.combine(state.date, time(), UTC)
    return retention_days - (now - born) / _ONE_DAY


def _by_date(state: RecordingState) -> tuple[date, str]:
    return state.date, state.recording_id


def _lost(counts: dict[str, int]) -> int:
    return sum(count for key, count in counts.items() if not key.startswith(f"{Status.pending}/"))


def _lost_states(ledger: Ledger, lost: Collection[date], wanted: int) -> Iterator[RecordingState]:
    """Examples of what is lost, from the newest dates, where something can still be done."""
    for day in sorted(lost, reverse=True):
        if not wanted:
            return
        found = [one for one in ledger.states([day]).values() if one.status in FINAL][:wanted]
        wanted -= len(found)
        yield from found


def _reasons(memory: Memory) -> Table:
    total = Counter[str]()
    for counts in memory.open.values():
        total.update(counts)
    rows: list[Row] = [(*key.split("/", 1), count) for key, count in sorted(total.items())]
    return Table(("state", "reason", "recordings"), rows)


def _by_days_left(left: Sequence[float], standing: Standing) -> Table:
    """How many pending recordings have so many days left; the margin is one of the steps."""
    edges = sorted({*(edge for edge in _BUCKETS if edge < standing.retention_days), standing.margin_days})
    rows: list[Row] = [
        ("purged already" if edges[0] == 0 else f"under {edges[0]}", sum(one < edges[0] for one in left))
    ]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        name = f"{low} and more" if high is None else f"{low} to {high}"
        rows.append((name, sum(low <= one and (high is None or one < high) for one in left)))
    return Table(("days_left", "pending_recordings"), rows)


def _sentence(counts: dict[str, int], standing: Standing, gaps: Sequence[date], astray: date | None) -> str:
    said = []
    if counts["dates_damaged"]:
        said.append(
            f"The ledger cannot be read for {number(counts['dates_damaged'], 'date')}, so their recordings are not "
            "counted here: the table `damaged` names each part and what to do."
        )
    if astray:
        pending = number(counts["without_partition"], "pending recording has", "pending recordings have")
        said.append(
            f"{pending} a date that has no partition (before ARCHIVE_START_DATE={standing.start} or in the future), "
            f"the earliest {astray}, so no run fetches them: set ARCHIVE_START_DATE to their date or earlier."
        )
    if counts["at_risk"]:
        said.append(
            f"{number(counts['at_risk'], 'pending recording has', 'pending recordings have')} less than "
            f"{number(standing.margin_days, 'day')} left: the source purges {number(standing.retention_days, 'day')} "
            "after the call. Deal with these first."
        )
    if counts["overdue"]:
        late = number(counts["overdue"], "is late", "are late")
        said.append(f"{late}: the time of the next attempt has passed and no run came; is the daemon running?")
    if counts["stuck"]:
        asked = number(counts["stuck"], "was asked", "were asked")
        said.append(f"{asked} for longer than ARCHIVE_GIVE_UP_DAYS without a deciding answer.")
    if counts["lost"]:
        said.append(
            f"{number(counts['lost'], 'is lost', 'are lost')} (`missing`, `rejected` or `denied`); by date the source "
            f"should still have {counts['lost_within_retention']}: fix the cause and run `recordings` of the date "
            "with `retry_final: true`."
        )
    if gaps:
        dates = number(len(gaps), "date since the archive began was", "dates since the archive began were")
        said.append(f"{dates} never pulled whole: run what is missing, {gaps[0]} first.")
    if counts["strange_files"]:
        files = number(
            counts["strange_files"], "file in the ledger is not a part of it", "files in the ledger are not parts of it"
        )
        said.append(
            f"{files}, so what they hold is not counted: the table `strange_files` names them. Move them out of the "
            "ledger, or back into place."
        )
    if not counts["missing_now"] and not said:
        return "Nothing is missing: every recording known on any date is archived."
    if not said:
        young = "recording is young and waits for its", "recordings are young and wait for their"
        return f"Nothing is late or lost: {number(counts['pending'], *young)} next attempt."
    if counts["missing_now"]:
        said.insert(0, f"{number(counts['missing_now'], 'recording is', 'recordings are')} not archived now.")
    return " ".join(said)
