"""What the ledger says of a date's recordings and of their other names: lines of a table until one is asked for.

A date may have a hundred thousand recordings of which nothing is to be done: each is an object only if it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines.ledger.schema import states_from
from pipelines.ledger.states import FINAL, RecordingState

pc: Any = pyarrow.compute  # as in in_bulk.py
_NO = pa.scalar(False)


class Known:
    """Current lines of the ledger (`Ledger.current`).

    Attributes:
        ids: of recordings and of their other names.
        names: other name -> the recording it is one of.
    """

    def __init__(self, lines: pa.Table) -> None:
        self._lines = lines
        self.ids: frozenset[str] = frozenset(_texts(lines, "recording_id"))
        named = lines.filter(lines["same_as"].is_valid())
        self.names = dict(zip(_texts(named, "recording_id"), _texts(named, "same_as"), strict=True))

    def states(self, ids: Iterable[str]) -> dict[str, RecordingState]:
        """Those of these ids that are known, also as another name."""
        wanted = self.ids.intersection(ids)
        return _by_id(self._lines.filter(self._are(wanted))) if wanted else {}

    def concerning(self, day: date, ids: Iterable[str] = ()) -> dict[str, RecordingState]:
        """The recordings dated `day` or found by its pull, and those of these ids, by id, sorted. Other names are
        left out.
        """
        of_day = pc.or_(pc.equal(self._lines["date"], day), pc.equal(self._lines["found_on"], day))
        ours = pc.or_(of_day, self._are(self.ids.intersection(ids)))
        return _by_id(self._lines.filter(pc.and_(ours, self._lines["same_as"].is_null())))

    def say(self, lines: pa.Table) -> pa.ChunkedArray[Any]:
        """Whether each recording of `lines` is known with the very link that it has there."""
        place = pc.index_in(lines["recording_id"], value_set=self._lines["recording_id"])
        said: pa.ChunkedArray[Any] = pc.equal(self._lines["link"].take(place), lines["link"]).fill_null(_NO)
        return said

    def settled(self) -> set[str]:
        """The other names of recordings that are not final: nothing is left to do for them."""
        mains = self.states(self.names.values())
        return {key for key, main in self.names.items() if main in mains and mains[main].status not in FINAL}

    def _are(self, ids: Iterable[str]) -> pa.ChunkedArray[Any]:
        among: pa.ChunkedArray[Any] = pc.is_in(self._lines["recording_id"], value_set=pa.array(ids, pa.string()))
        return among


def _texts(lines: pa.Table, name: str) -> list[str]:
    texts: list[Any] = lines[name].to_pylist()
    return texts


def _by_id(lines: pa.Table) -> dict[str, RecordingState]:
    return {state.recording_id: state for state in states_from(lines.sort_by("recording_id"))}
