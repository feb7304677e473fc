"""What a verification says: one sentence for each doubt, one line for each date. Data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

Kind = Literal[
    "catalog_stale",
    "ledger_differs",
    "ledger_lacks",
    "ledger_part_altered",
    "ledger_part_removed",
    "manifest_altered",
    "manifest_lacks",
    "manifest_removed",
    "never_pulled",
    "never_sealed",
    "object_altered",
    "object_missing",
    "object_stray",
    "partly_pulled",
    "signature_missing",
    "signature_wrong",
    "stale",
    "totals_wrong",
    "unreadable",
    "unwitnessed",
    "witness_altered",
]


@dataclass(frozen=True, slots=True)
class Doubt:
    """One reason not to believe a date, or the archive as a whole where `day` is None. `subject`: the key, ledger part
    or recording id that it is about.
    """

    day: date | None
    kind: str
    subject: str
    sentence: str

    def as_json(self) -> dict[str, str]:
        """The form in which it is written to JSON."""
        return {
            "date": self.day.isoformat() if self.day else "",
            "kind": self.kind,
            "subject": self.subject,
            "sentence": self.sentence,
        }


Tell = Callable[[str, str, str], None]
"""Takes a doubt of the date at hand: kind, subject, sentence."""


@dataclass(slots=True)
class DayVerdict:
    """What was found of one date. `listed` counts the objects in the bucket, `read` and `read_bytes` what was read
    again and hashed; the others are the manifest's own figures, or the ledger's where there is no good manifest.
    """

    day: date
    manifest: int | None = None
    found: int = 0
    held: int = 0
    pending: int = 0
    lost: int = 0
    held_bytes: int = 0
    listed: int = 0
    read: int = 0
    read_bytes: int = 0
    doubts: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        """Whether nothing is in doubt."""
        return not self.doubts

    def as_json(self) -> dict[str, Any]:
        """The form in which it is written to JSON."""
        return {
            "date": self.day.isoformat(),
            "manifest": self.manifest,
            "found": self.found,
            "held": self.held,
            "pending": self.pending,
            "lost": self.lost,
            "bytes": self.held_bytes,
            "objects": self.listed,
            "read": self.read,
            "bytes_read": self.read_bytes,
            "doubts": dict(sorted(self.doubts.items())),
        }


@dataclass(slots=True)
class Sum:
    """All dates together. `strays`: the doubts of no date."""

    dates: int = 0
    doubtful_dates: int = 0
    doubts: int = 0
    strays: int = 0
    held: int = 0
    held_bytes: int = 0
    pending: int = 0
    lost: int = 0
    read: int = 0
    read_bytes: int = 0

    def add(self, day: DayVerdict) -> None:
        """Count a date."""
        self.dates += 1
        self.doubtful_dates += not day.good
        self.doubts += day.doubts.total()
        self.held += day.held
        self.held_bytes += day.held_bytes
        self.pending += day.pending
        self.lost += day.lost
        self.read += day.read
        self.read_bytes += day.read_bytes

    def sentence(self) -> str:
        """The whole in one sentence."""
        dates = _number(self.dates, "date")
        read = f"{_number(self.read, 'recording')} read again ({self.read_bytes / 1e6:,.1f} MB)"
        if not self.dates:
            return "There was no date to verify."
        if self.doubts:
            of_these = f" ({self.strays:,} of these without a date)" if self.strays else ""
            where = f"{self.doubtful_dates:,} of {dates}"
            return f"{_number(self.doubts, 'doubt')}{of_these} on {where}: each is named above with what to do; {read}."
        return (
            f"No doubt: the archive of {dates} is as sealed. It holds "
            f"{_number(self.held, 'recording')} ({self.held_bytes / 1e6:,.1f} MB); "
            f"the ledger counts {self.lost:,} lost and {self.pending:,} pending; {read}."
        )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
