"""Matching: the same segment, in the legacy report and in the current API, is one recording with two names.

docs/migration.md has the rules. In doubt nothing is joined: holding a recording twice is no loss, not fetching it may
be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.states import FINAL, RecordingState, Status, reopened, same_recording
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import AGENT, INTERACTIONS, UII_COLUMN, ReportName
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.rows import ROWS, is_agents, links_of, needed_columns, start_of

# The legacy report cuts to seconds, and each system stamps a leg when it learns of it. Legs that agree to the second
# are joined first: an agent may get the same call back within seconds.
WITHIN = (timedelta(seconds=1), timedelta(seconds=10))
AMBIGUOUS = "ambiguous_match"
OTHER_SOURCE = "other_source_failed"


class Call(NamedTuple):
    """The key for matching a call: the UII in lower case, as the two sources may write one in different letter case."""

    account_id: str
    uii: str

    @classmethod
    def of(cls, account_id: str, uii: str) -> Call:
        """Return the key of a call."""
        return cls(account_id, uii.lower())


@dataclass(slots=True, eq=False)
class _Leg:
    """An agent's leg as one source describes it, over all versions of its row."""

    started_at: datetime | None = None
    agent: str | None = None
    recordings: set[str] = field(default_factory=set)

    def add(self, report: ReportName, row: Mapping[str, Any]) -> None:
        """Take over what a version of the leg's row gives."""
        self.started_at = start_of(report, row) or self.started_at
        if agent := row[ROWS[report].agent or ""]:
            self.agent = agent.lower()
        stereo = (link for link in links_of(report, row) if link.layout == "stereo")
        self.recordings.update(link.recording_id for link in stereo)

    def may_be(self, other: _Leg, within: timedelta) -> bool:
        """Return whether two legs may be the same: neither agent nor start contradicts it."""
        if self.agent and other.agent and self.agent != other.agent:
            return False
        return not (self.started_at and other.started_at) or abs(self.started_at - other.started_at) <= within

    def is_identified(self) -> bool:
        """Return whether the leg has what a certain match needs: a start, an agent and one recording."""
        return self.started_at is not None and self.agent is not None and len(self.recordings) == 1


@dataclass(frozen=True, slots=True)
class Pairs:
    """The matches. `partners`: id of either source -> the other's. `ambiguous`: ids without a certain partner."""

    partners: Mapping[str, str]
    ambiguous: frozenset[str]


def pairs_around(ledger: Ledger, day: date, calls: Collection[Call]) -> Pairs:
    """Return which recordings of these calls are the same, from the rows of `day` and of the neighbouring dates."""
    days = sorted(near({day}))
    current = _legs(ledger, INTERACTIONS, days, calls)
    legacy = _legs(ledger, AGENT, days, current.keys())
    partners: dict[str, str] = {}
    ambiguous: set[str] = set()
    for call in legacy.keys() & current.keys():
        _match(list(legacy[call].values()), list(current[call].values()), partners, ambiguous)
    return Pairs(partners, frozenset(ambiguous - partners.keys()))


def _match(legacy: list[_Leg], current: list[_Leg], partners: dict[str, str], ambiguous: set[str]) -> None:
    """Pair the two sources' legs of one call, the closest first; remaining candidates are ambiguous."""
    fitting = [(old, new) for old in legacy for new in current if old.may_be(new, WITHIN[-1])]
    unsure = []
    for within in WITHIN:
        close = [(old, new) for old, new in fitting if old.may_be(new, within)]
        candidates = Counter(chain.from_iterable(close))
        matched = [(old, new) for old, new in close if candidates[old] == candidates[new] == 1]
        for old, new in matched:
            if old.is_identified() and new.is_identified():
                (old_id,) = old.recordings
                (new_id,) = new.recordings
                partners |= {old_id: new_id, new_id: old_id}
            else:
                unsure.append((old, new))
        gone = set(chain.from_iterable(matched))
        fitting = [pair for pair in fitting if gone.isdisjoint(pair)]
    for old, new in [*unsure, *fitting]:
        if old.recordings and new.recordings:
            ambiguous |= old.recordings | new.recordings


def join(pairs: Pairs, known: Mapping[str, RecordingState], *, now: datetime, run_id: str) -> list[RecordingState]:
    """Return the changes to the ledger's lines of each pair; `known` are its present lines, other names included.

    one points to the other    if the other is final, the first is tried itself; else nothing
    one archived               the other points to it
    both pending               the later known points to the earlier
    both archived              nothing: both are held
    final and not archived     nothing: the other may still be fetched
    """
    lines: list[RecordingState] = []
    for first_id, second_id in pairs.partners.items():
        first, second = known.get(first_id), known.get(second_id)
        if first is None or second is None or first_id > second_id:
            continue
        if first.same_as or second.same_as:
            name, main = (first, second) if first.same_as else (second, first)
            if name.same_as == main.recording_id and main.status in FINAL:
                lines.append(reopened(name, OTHER_SOURCE, now, run_id))
            continue
        held = [state for state in (first, second) if state.status is Status.archived]
        if len(held) == 1:
            lines += _named(first if held[0] is second else second, held[0], now, run_id)
        elif first.status is Status.pending and second.status is Status.pending:
            main, name = sorted((first, second), key=lambda state: (state.first_seen_at, state.source))
            lines += _named(name, main, now, run_id)
    return lines


def _named(name: RecordingState, main: RecordingState, now: datetime, run_id: str) -> Iterator[RecordingState]:
    """Yield the line for its own date, and for the recording's if that differs, so that both dates have the line."""
    yield (line := same_recording(name, main, now, run_id))
    if line.date != main.date:
        yield replace(line, date=main.date)


def _legs(
    ledger: Ledger, report: ReportName, days: Iterable[date], calls: Collection[Call]
) -> dict[Call, dict[tuple[str, ...], _Leg]]:
    """Return the legs of these calls: call -> what identifies a leg in this report -> the leg."""
    if not calls:
        return {}
    found: defaultdict[Call, defaultdict[tuple[str, ...], _Leg]] = defaultdict(lambda: defaultdict(_Leg))
    uiis = pa.array({call.uii for call in calls}, pa.string())
    uii = UII_COLUMN[report]
    for rows in chain.from_iterable(ledger.iter_rows(report, day, columns=needed_columns(report)) for day in days):
        of_calls = rows.filter(pc.is_in(pc.utf8_lower(rows[uii]), value_set=uiis))
        for row in of_calls.to_pylist():
            call = Call.of(row["account_id"], row[uii])
            if call in calls and is_agents(report, row):
                leg = tuple((row[name] or "").lower() for name in ROWS[report].leg)
                found[call][leg].add(report, row)
    return {call: dict(legs) for call, legs in found.items()}
