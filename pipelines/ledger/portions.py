"""A date with very many recordings is taken in portions, so that a run's memory does not grow with them.

A portion is a range of recording ids: whatever the ledger says of a recording stands in one portion, in however many
parts and lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.ledger.reading import Part
from pipelines.ledger.schema import values

__all__ = ["ALL", "PORTION", "Among", "IdRange", "Portion", "Sizing", "one_of"]

pc: Any = pyarrow.compute  # the stubs know few of the argument kinds that the kernels take

PORTION = 100_000
"""Lines that are held at a time; a line takes 300 to 400 bytes."""

_SAMPLE = 2000  # ids of a portion that are kept to see how they lie

Ids = Any
"""A column of recording ids."""

Among = Callable[[Ids], Any]
"""Which of some recording ids are meant, as a mask."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids from `first` on that stand before `before`, by code point; None where there is no such bound."""

    first: str | None = None
    before: str | None = None

    def __call__(self, ids: Ids) -> Any:  # noqa: ANN401 - an array or a chunked array, as what is given
        """Say of each id whether it is one of them."""
        mask = pc.is_valid(ids)
        if self.first is not None:
            mask = pc.and_(mask, pc.greater_equal(ids, self.first))
        if self.before is not None:
            mask = pc.and_(mask, pc.less(ids, self.before))
        return mask

    def overlaps(self, bounds: tuple[str, str] | None) -> bool:
        """Whether ids between these two, both included, may be among them; None is not known."""
        if bounds is None:
            return True
        least, greatest = bounds
        return (self.first is None or greatest >= self.first) and (self.before is None or least < self.before)


ALL = IdRange()


def one_of(wanted: Iterable[str]) -> Among:
    """These ids."""
    among = pa.array(sorted(set(wanted)), pa.string())
    return lambda ids: pc.is_in(ids, value_set=among)


class Portion(NamedTuple):
    """Which recordings it has, and the current lines of the ledger about them (`Ledger.current`). It is the `number`th
    `of` so many.
    """

    among: IdRange
    lines: pa.Table
    number: int = 1
    of: int = 1


class Sizing:
    """Reads parts whole as long as they come to at most `most` lines, and else only sees how their ids lie.

    Lines are counted in the one thread that takes parts apart.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._every = max(1, most // _SAMPLE)
        self._lines = 0
        self._ids: list[pa.ChunkedArray[Any]] = []
        self._weights: list[float] = []

    @property
    def fits(self) -> bool:
        """Whether everything that was read is one portion."""
        return self._lines <= self._most

    def read(self, part: Part) -> pa.Table | None:
        """All lines of the part; None if they are too many together with those of others."""
        if not self.fits:
            part.each_of(self._take, ["recording_id"])
            return None
        tables = [one for one in part.each(self._take) if one is not None]
        return pa.concat_tables(tables) if tables else None

    def _take(self, lines: pa.Table) -> pa.Table | None:
        """Count them; they themselves if that is not too many."""
        ids = lines["recording_id"]
        kept = ids.take(pa.array(range(0, len(ids), self._every)))
        self._lines += len(ids)
        self._ids.append(kept)
        self._weights += [len(ids) / max(len(kept), 1)] * len(kept)
        return lines if self.fits else None

    def ranges(self) -> list[IdRange]:
        """Ranges of about `most` lines each that have all ids between them."""
        ids = pa.chunked_array(self._ids, pa.string())
        order = pc.sort_indices(ids)
        upto = np.cumsum(np.array(self._weights)[order.to_numpy()])
        count = -(-self._lines // self._most)
        places = np.searchsorted(upto, [self._lines * number / count for number in range(1, count)])
        cuts = sorted(set(values(ids.take(order.take(pa.array(places, pa.int64()))))))
        return [IdRange(first, before) for first, before in pairwise([None, *cuts, None])]
