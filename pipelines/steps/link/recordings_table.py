"""What the ledger says of a date's recordings and of their other names: lines of a table until one is asked for.

A date may have a hundred thousand recordings that are held: each is an object only if it is needed as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.ledger.schema import states_by_id, values
from pipelines.ledger.states import FINAL, RecordingState, Status
from pipelines.ledger.store import Ledger

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take
_NO = pa.scalar(False)


@dataclass(frozen=True)
class Recordings:
    """Recordings by the ledger's current lines: those that are `held`, and the `rest`."""

    held: pa.Table
    rest: pa.Table

    @classmethod
    def of(cls, lines: pa.Table) -> Recordings:
        """Tell lines apart; other names are left out."""
        lines = _only(lines, lines["same_as"].is_null())
        held = pc.equal(lines["status"], str(Status.archived))
        return cls(_only(lines, held), _only(lines, pc.invert(held)))

    def __len__(self) -> int:
        return self.held.num_rows + self.rest.num_rows

    @cached_property
    def others(self) -> Mapping[str, RecordingState]:
        """The rest as objects, by id, sorted."""
        return states_by_id(self.rest)

    def pending(self) -> pa.Table:
        """Those that are to be tried again."""
        return self.rest.filter(pc.equal(self.rest["status"], str(Status.pending)))

    def final(self) -> pa.Table:
        """Those that are not held and not tried any more."""
        return self.rest.filter(pc.not_equal(self.rest["status"], str(Status.pending)))

    def by_status(self) -> Counter[Status]:
        """How many stand where."""
        counted = self.rest.group_by("status").aggregate([("recording_id", "count")])
        numbers = zip(values(counted["status"]), values(counted["recording_id_count"]), strict=True)
        return Counter({Status.archived: self.held.num_rows} | {Status(status): number for status, number in numbers})

    def owners(self, keys: pa.ChunkedArray[Any]) -> dict[str, str]:
        """Which of these keys of the archive they have, each with the recording's id."""
        found: dict[str, str] = {}
        for lines in (self.held, self.rest):
            if lines["key"].null_count < lines.num_rows:
                own = lines.filter(pc.is_in(lines["key"], value_set=keys))
                found |= zip(values(own["key"]), values(own["recording_id"]), strict=True)
        return found

    def reasons(self) -> pa.Table:
        """How many of those that are not held stand where and why: a line for each `status` and `reason`, with the
        number of `recordings`, when the first is tried again (`next_attempt_at`), and one of them (`example`).
        """
        groups = self.rest.group_by(["status", "reason"])
        found = groups.aggregate([("recording_id", "count"), ("next_attempt_at", "min"), ("recording_id", "min")])
        return found.rename_columns(["status", "reason", "recordings", "next_attempt_at", "example"])

    def states(self, ids: Iterable[str]) -> dict[str, RecordingState]:
        """Those of these ids that are among them, sorted."""
        wanted = set(ids)
        found = [lines.filter(_are(lines, wanted)) for lines in (self.held, self.rest)] if wanted else []
        return states_by_id(pa.concat_tables(found)) if found else {}

    def columns(self, *names: str) -> Iterable[tuple[Any, ...]]:
        """The values of these columns, line by line, of those that are held."""
        return zip(*(values(self.held[name]) for name in names), strict=True)

    def of_each_origin(self) -> list[RecordingState]:
        """One of those that are held for each source and beginning of a link, up to what differs in every link."""
        begins = pc.replace_substring_regex(self.held["link"], r"(?s)^([^/?#]*//[^/?#]*(?:/[a-z]+)?).*$", r"\1")
        groups = (
            self.held.select(["source", "recording_id"]).append_column("begins", begins).group_by(["source", "begins"])
        )
        return list(self.states(values(groups.aggregate([("recording_id", "min")])["recording_id_min"])).values())

    def dated_otherwise(self, day: date) -> int:
        """How many are stored under another date."""
        return sum(pc.sum(pc.not_equal(lines["date"], day)).as_py() or 0 for lines in (self.held, self.rest))

    def held_by(self, run_id: str) -> pa.Table:
        """Those that this run archived."""
        return self.held.filter(pc.equal(self.held["run_id"], run_id))

    def held_dates(self) -> list[date]:
        """The dates that those that are held are stored under."""
        return values(pc.unique(self.held["date"]))

    def size(self) -> int:
        """Bytes of all of them together."""
        return sum(pc.sum(lines["size"]).as_py() or 0 for lines in (self.held, self.rest))


class Known:
    """Current lines of the ledger (`Ledger.current`).

    Attributes:
        names: other name -> the recording it is one of.
    """

    def __init__(self, lines: pa.Table) -> None:
        self._lines = lines
        named = lines.filter(lines["same_as"].is_valid())
        self.names: dict[str, str] = dict(zip(values(named["recording_id"]), values(named["same_as"]), strict=True))

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of recordings and of their other names."""
        return frozenset(values(self._lines["recording_id"]))

    def states(self, ids: Iterable[str]) -> dict[str, RecordingState]:
        """Those of these ids that are known, also as another name."""
        wanted = self.ids.intersection(ids)
        return states_by_id(self._lines.filter(_are(self._lines, wanted))) if wanted else {}

    def concerning(self, day: date, ids: Iterable[str] = ()) -> Recordings:
        """The recordings dated `day` or found by its pull, and those of these ids."""
        of_day = pc.or_(pc.equal(self._lines["date"], day), pc.equal(self._lines["found_on"], day))
        return Recordings.of(_only(self._lines, pc.or_(of_day, _are(self._lines, ids))))

    def say(self, lines: pa.Table) -> pa.ChunkedArray[Any]:
        """Whether each recording of `lines` is known with the very link that it has there."""
        place = pc.index_in(lines["recording_id"], value_set=self._lines["recording_id"])
        said: pa.ChunkedArray[Any] = pc.equal(self._lines["link"].take(place), lines["link"]).fill_null(_NO)
        return said

    def settled(self) -> set[str]:
        """The other names of recordings that are not final: nothing is left to do for them."""
        mains = self.states(self.names.values())
        return {key for key, main in self.names.items() if main in mains and mains[main].status not in FINAL}


def recordings_of(ledger: Ledger, day: date, linked: Iterable[date]) -> Recordings:
    """Return the recordings that concern a run of `day`, whose rows link to recordings dated `linked`.

    A call over midnight is found by one day's pull and stored under the next.
    """
    return Known(ledger.current({day, *linked})).concerning(day)


def _only(lines: pa.Table, mask: pa.ChunkedArray[Any]) -> pa.Table:
    """The lines of the mask: the very same where that is all of them, since a date's are no small copy."""
    return lines if pc.all(mask, min_count=0).as_py() else lines.filter(mask)


def _are(lines: pa.Table, ids: Iterable[str]) -> pa.ChunkedArray[Any]:
    among: pa.ChunkedArray[Any] = pc.is_in(lines["recording_id"], value_set=pa.array(list(ids), pa.string()))
    return among
