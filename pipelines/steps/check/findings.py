"""What a check found, in words and figures that a compliance officer can read. Data only: the judging is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from pipelines.ledger.states import RecordingState

SAMPLE = 20
"""Counts are exact; of what is counted so many examples are shown."""

Row = tuple[str | int | float, ...]


class Level(StrEnum):
    """`good`: nothing to do. `doubtful`: somebody should look. `bad`: recordings are lost, late or unknown."""

    good = "good"
    doubtful = "doubtful"
    bad = "bad"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures under their headings."""

    columns: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of one check. `counts` are exact, tables of examples hold at most `SAMPLE` rows; no personal data."""

    level: Level
    sentence: str
    counts: Mapping[str, int]
    tables: Mapping[str, Table] = field(default_factory=dict)


def examples(states: Iterable[tuple[str, RecordingState]]) -> Table:
    """The first `SAMPLE` of (what is the matter, state), with what the ledger says of them."""
    rows: list[Row] = [
        (one.recording_id, matter, str(one.status), one.reason or "", one.date.isoformat(), one.attempts)
        for matter, one in islice(states, SAMPLE)
    ]
    return Table(("recording", "matter", "state", "reason", "date", "attempts"), rows)
