"""The current lines of a date's recordings as tables: of 100,000 archived recordings, few are needed as objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.ledger.schema import states_by_id, values
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take


@dataclass(frozen=True)
class RecordingsTable:
    """The current lines of recordings (STATE_SCHEMA): those that are `archived`, and the `rest`."""

    archived: pa.Table
    rest: pa.Table

    @classmethod
    def of(cls, lines: pa.Table) -> RecordingsTable:
        """Return a table of ledger lines, without those of other names."""
        lines = _filter(lines, lines["same_as"].is_null())
        is_archived = pc.equal(lines["status"], str(Status.archived))
        return cls(_filter(lines, is_archived), _filter(lines, pc.invert(is_archived)))

    def __len__(self) -> int:
        return self.archived.num_rows + self.rest.num_rows

    @property
    def lines(self) -> pa.Table:
        """All lines, without a copy."""
        return pa.concat_tables([self.archived, self.rest])

    def final(self) -> pa.Table:
        """Return the lines of recordings that are not archived and no longer tried."""
        return self.rest.filter(pc.not_equal(self.rest["status"], str(Status.pending)))

    def by_status(self) -> Counter[Status]:
        """Count the recordings in each state."""
        counted = pc.value_counts(self.rest["status"]).to_pylist()
        numbers = {Status(state["values"]): state["counts"] for state in counted}
        return Counter({Status.archived: self.archived.num_rows} | numbers)

    def reasons(self) -> pa.Table:
        """Count the recordings not archived by `status` and `reason`, with the first `next_attempt_at` of each."""
        groups = self.rest.group_by(["status", "reason"])
        found = groups.aggregate([("recording_id", "count"), ("next_attempt_at", "min")])
        return found.rename_columns(["status", "reason", "recordings", "next_attempt_at"])

    def found_on(self) -> set[date]:
        """Return the dates whose pulls found the recordings."""
        return set(values(pc.unique(self.lines["found_on"])))

    def size(self) -> int:
        """Return the sum of the recordings' sizes in bytes."""
        return pc.sum(self.lines["size"]).as_py() or 0


class LedgerSnapshot:
    """Current lines of the ledger (`Ledger.current`). `names`: another name -> the recording that has it."""

    def __init__(self, lines: pa.Table) -> None:
        self._lines = lines
        named = lines.filter(lines["same_as"].is_valid())
        self.names: dict[str, str] = dict(zip(values(named["recording_id"]), values(named["same_as"]), strict=True))

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of recordings and of their other names."""
        return frozenset(values(self._lines["recording_id"]))

    def states(self, ids: Iterable[str]) -> dict[str, RecordingState]:
        """Return the lines with these ids as objects, by id, sorted; also lines of other names."""
        return states_by_id(self._lines.filter(_has_id(self._lines, ids)))

    def concerning(self, day: date, ids: Iterable[str] = ()) -> RecordingsTable:
        """Return the recordings dated `day` or found by its pull, and those with these ids."""
        of_day = pc.or_(pc.equal(self._lines["date"], day), pc.equal(self._lines["found_on"], day))
        return RecordingsTable.of(_filter(self._lines, pc.or_(of_day, _has_id(self._lines, ids))))

    def has_links(self, lines: pa.Table) -> pa.ChunkedArray[Any]:
        """Return a mask: whether the ledger has the recording of each of `lines` with the same link."""
        index = pc.index_in(lines["recording_id"], value_set=self._lines["recording_id"])
        is_same: pa.ChunkedArray[Any] = pc.equal(self._lines["link"].take(index), lines["link"])
        return is_same.fill_null(pa.scalar(False))


def recordings_of(ledger: Ledger, day: date, linked: Iterable[date]) -> RecordingsTable:
    """Return the recordings that concern a run of `day`, whose rows link to recordings dated `linked`."""
    return LedgerSnapshot(ledger.current({day, *linked})).concerning(day)


def _filter(lines: pa.Table, mask: pa.ChunkedArray[Any]) -> pa.Table:
    """Return the lines that the mask selects; the same table if all, since a date's lines are large to copy."""
    return lines if pc.all(mask, min_count=0).as_py() else lines.filter(mask)


def _has_id(lines: pa.Table, ids: Iterable[str]) -> pa.ChunkedArray[Any]:
    mask: pa.ChunkedArray[Any] = pc.is_in(lines["recording_id"], value_set=pa.array(list(ids), pa.string()))
    return mask
