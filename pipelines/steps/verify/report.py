"""What a verification says: a sentence for each doubt, a line for each date, and one JSON document of it all.

`format`: `ringcx-archive/verification/1`; `bucket`, `prefix`, `from`, `to`, `started_at`, `finished_at`; `read_data`:
`{"share", "seed"}` or null; `dates`: one object a date; `doubts`: one object each (`date`, `kind`, `subject`,
`sentence`); `notes`: sentences about what was not checked; `sum`; `good`; `sentence`.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pipelines.wording import number

FORMAT = "ringcx-archive/verification/1"

Tell = Callable[[str, str, str], None]
"""Takes a doubt of the date at hand: kind, subject, sentence."""


class Doubt(NamedTuple):
    """A reason not to believe a date, or the archive as a whole where `date` is empty. `subject`: the key, ledger part
    or recording id that it is about.
    """

    date: str
    kind: str
    subject: str
    sentence: str


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

    def as_json(self) -> dict[str, Any]:
        """Return the form in which it is written to JSON."""
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


class Report:
    """Takes doubts and verdicts as they come. Doubts wait in a temporary file, so that any number fits."""

    def __init__(self, **head: object) -> None:
        self.dates: list[DayVerdict] = []
        self.notes: list[str] = []
        self._head = head
        self._told = self._strays = 0
        self._doubts = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="verify-")  # noqa: SIM115 - gone with this

    def tell(self, doubt: Doubt) -> None:
        """Take a doubt."""
        self._told += 1
        self._strays += not doubt.date
        self._doubts.write(f"{json.dumps(doubt._asdict())}\n")

    def doubts(self) -> Iterator[dict[str, str]]:
        """Yield the doubts so far, in the order of telling."""
        self._doubts.seek(0)
        yield from map(json.loads, self._doubts)

    def sum(self) -> dict[str, int]:
        """All dates together. `strays`: the doubts of no date."""
        counted = ("held", "held_bytes", "pending", "lost", "read", "read_bytes")
        return {
            "dates": len(self.dates),
            "doubtful_dates": sum(bool(day.doubts) for day in self.dates),
            "doubts": self._told,
            "strays": self._strays,
            **{name: sum(getattr(day, name) for day in self.dates) for name in counted},
        }

    def sentence(self) -> str:
        """The whole in one sentence."""
        every = self.sum()
        dates = number(every["dates"], "date")
        read = f"{number(every['read'], 'recording')} read again ({every['read_bytes'] / 1e6:,.1f} MB)"
        if not self.dates:
            return "There was no date to verify."
        if every["doubts"]:
            of_these = f" ({every['strays']:,} of these without a date)" if every["strays"] else ""
            where = f"{every['doubtful_dates']:,} of {dates}"
            return (
                f"{number(every['doubts'], 'doubt')}{of_these} on {where}; the list of doubts says what to do about "
                f"each; {read}."
            )
        return (
            f"No doubt: the archive of {dates} is as sealed. It holds "
            f"{number(every['held'], 'recording')} ({every['held_bytes'] / 1e6:,.1f} MB); "
            f"the ledger counts {every['lost']:,} lost and {every['pending']:,} pending; {read}."
        )

    def write(self, into: TextIO, finished_at: datetime) -> None:
        """Write the whole document, doubt by doubt."""
        rest = {
            "format": FORMAT,
            **self._head,
            "finished_at": finished_at.isoformat(),
            "good": not self._told,
            "sentence": self.sentence(),
            "notes": self.notes,
            "sum": self.sum(),
            "dates": [day.as_json() for day in self.dates],
        }
        into.write(f'{json.dumps(rest, indent=1)[:-2]},\n "doubts": [')
        into.writelines(f"{',' if place else ''}\n  {json.dumps(doubt)}" for place, doubt in enumerate(self.doubts()))
        into.write("\n ]\n}\n")

    def write_file(self, path: Path, finished_at: datetime) -> None:
        """Write the document next to `path`, then rename it: it is there whole or not at all."""
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            self.write(file, finished_at)
        partial.replace(path)
