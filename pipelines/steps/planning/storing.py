"""What the runs will ask of S3, and what that costs by a small table of prices.

The requests are those that a run of a date makes, counted: a test counts them again. Prices are settings; Amazon bills
puts and listings at one price, reads and looks at another, and a GB as 2**30 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.steps.fetch import FLUSH_LINES

# Catalog, manifest, and a witness for each of manifests, states, pulls and rows.
_SEALING_PUTS = 6
# States: once when links are found, once when recordings are held, each time for the date and, after a call over
# midnight, for the next one.
_STATE_PARTS = 4
# Of one date: steps and checks list and read the date's parts again and again, and those of the days beside it.
_LISTS = 122
_READS = 56
_READS_OF_A_PART = 8
_GB = 2**30


@dataclass(frozen=True, slots=True)
class Prices:
    """Per 1000 puts and listings, per 1000 reads and looks, per GB and month; in `currency`."""

    put_per_1000: float
    get_per_1000: float
    gb_month: float
    currency: str


@dataclass(frozen=True, slots=True)
class S3Requests:
    """How many of each kind."""

    puts: int
    lists: int
    reads: int
    looks: int

    @classmethod
    def total(cls, parts: Iterable[S3Requests]) -> S3Requests:
        """All together."""
        every = list(parts)
        return cls(
            sum(one.puts for one in every),
            sum(one.lists for one in every),
            sum(one.reads for one in every),
            sum(one.looks for one in every),
        )

    def cost(self, prices: Prices) -> float:
        """Once."""
        return (self.puts + self.lists) / 1000 * prices.put_per_1000 + (
            self.reads + self.looks
        ) / 1000 * prices.get_per_1000


def requests_of_a_date(recordings: int, pulls: int) -> S3Requests:
    """What one run of a date asks for, where the store keeps to `If-None-Match` as S3 does: others are looked at first.

    Args:
        recordings: to be stored.
        pulls: how many times a report is pulled: for each account, and for the current API for each window.
    """
    pulled_parts = 2 * pulls  # the rows, and the trace of the pull
    ledger_parts = pulled_parts + _STATE_PARTS + recordings // FLUSH_LINES
    return S3Requests(
        puts=recordings + ledger_parts + _SEALING_PUTS,
        lists=_LISTS + pulls + recordings // 1000,
        reads=_READS + _READS_OF_A_PART * pulled_parts,
        looks=ledger_parts,
    )


def monthly_cost(size: float, prices: Prices) -> float:
    """What it costs to keep so many bytes for a month."""
    return size / _GB * prices.gb_month
