"""The result of a verification: discrepancies, a result for each date, and one JSON document with both.

`format`: `ringcx-archive/verification/1`; `bucket`, `prefix`, `from`, `to`, `started_at`, `finished_at`; `read_data`:
`{"share", "seed"}` or null; `verdict`: of all dates together; `dates`: one object a date (`DayResult`); `doubts`: one
for each discrepancy (`date`, `kind`, `subject`, `sentence`); `arriving`: the same for what a running run may have
written; `notes`: sentences about what was not checked; `sum`; `good`: whether there is no discrepancy; `sentence`.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, NamedTuple, Protocol

from pipelines.steps.check.verdict import Verdict, sentence_of, worst
from pipelines.wording import number

FORMAT = "ringcx-archive/verification/1"


class Flag(Protocol):
    """A function that reports a discrepancy of the current date, or an object that is `arriving`."""

    def __call__(self, kind: str, subject: str, sentence: str, *, arriving: bool = False) -> None:  # noqa: D102
        ...


class Discrepancy(NamedTuple):
    """A fact about a date, or about the whole archive if `date` is empty, that cannot be proved. `subject`: the key,
    ledger part or recording id concerned. An `arriving` object is not a discrepancy: a run may be writing it.
    """

    date: str
    kind: str
    subject: str
    sentence: str
    arriving: bool = False


@dataclass
class DayResult:
    """The findings on one date (ISO 8601), named as in the JSON document.

    `verdict` and its `reason` come from `steps/check/verdict`; a date may be as it was sealed and lack recordings.
    `objects` counts what is in the bucket, `read` and `bytes_read` what was read again and hashed, `doubts` the
    discrepancies by kind, `arriving` what a running run may have written; the other figures are the manifest's, or else
    the ledger's. `found` is None while it is unknown what the date should hold. `accepted_elsewhere`: recording id ->
    their own date, whose manifest lists the accepted loss.
    """

    date: str
    verdict: Verdict = Verdict.unknown
    reason: str = ""
    manifest: int | None = None
    manifest_sha256: str | None = None
    found: int | None = None
    held: int = 0
    pending: int = 0
    lost: int = 0
    accepted_losses: int = 0
    accepted_elsewhere: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    objects: int = 0
    read: int = 0
    bytes_read: int = 0
    doubts: Counter[str] = field(default_factory=Counter)
    arriving: int = 0


class Verification:
    """A collector of discrepancies, in a temporary file so that any number fits, and of the results of dates."""

    def __init__(self, head: Mapping[str, object]) -> None:
        self.dates: list[DayResult] = []
        self.notes: list[str] = []
        self._head = head
        self._count = self._strays = 0
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="verify-")  # noqa: SIM115 - see close

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def add(self, discrepancy: Discrepancy) -> None:
        """Add a discrepancy."""
        self._count += not discrepancy.arriving
        self._strays += not discrepancy.date
        self._file.write(f"{json.dumps(discrepancy._asdict())}\n")

    def discrepancies(self, *, arriving: bool = False) -> Iterator[dict[str, str]]:
        """Yield the discrepancies so far, or what is arriving, in the order of adding."""
        self._file.seek(0)
        yield from (row for row in map(json.loads, self._file) if row.pop("arriving") == arriving)

    def sum(self) -> dict[str, int]:
        """Return the totals over all dates. `strays`: the number of discrepancies without a date."""
        summed = {"held": "held", "held_bytes": "bytes", "pending": "pending", "lost": "lost"}
        summed |= {"read": "read", "read_bytes": "bytes_read", "arriving": "arriving"}
        return {
            "dates": len(self.dates),
            "doubtful_dates": sum(bool(day.doubts) for day in self.dates),
            "doubts": self._count,
            "strays": self._strays,
            **{name: sum(getattr(day, of_day) for day in self.dates) for name, of_day in summed.items()},
        }

    def sentence(self) -> str:
        """Return one sentence with the whole result."""
        total = self.sum()
        dates = number(total["dates"], "date")
        read = f"{number(total['read'], 'recording')} read again ({total['read_bytes'] / 1e6:,.1f} MB)"
        if not self.dates:
            return "There was no date to verify."
        if total["doubts"]:
            strays = f" ({total['strays']:,} of these without a date)" if total["strays"] else ""
            return (
                f"{number(total['doubts'], 'discrepancy', 'discrepancies')}{strays} on {total['doubtful_dates']:,} of "
                f"{dates}; the list of discrepancies says what to do about each; {read}."
            )
        arriving = ""
        if total["arriving"]:
            arriving = f" {number(total['arriving'], 'item is', 'items are')} arriving: verify again after the run."
        return (
            f"No discrepancy: the archive of {dates} is as it was sealed.{arriving} It holds "
            f"{number(total['held'], 'recording')} ({total['held_bytes'] / 1e6:,.1f} MB); "
            f"the ledger counts {total['lost']:,} lost and {total['pending']:,} pending; {read}. "
            f"{sentence_of((day.verdict for day in self.dates), sum(day.accepted_losses > 0 for day in self.dates))}"
        )

    def write(self, into: IO[str], finished_at: datetime) -> None:
        """Write the JSON document, one discrepancy at a time."""
        head: dict[str, Any] = {
            "format": FORMAT,
            **self._head,
            "finished_at": finished_at.isoformat(),
            "good": not self._count,
            "verdict": worst(day.verdict for day in self.dates),
            "sentence": self.sentence(),
            "notes": self.notes,
            "sum": self.sum(),
            "dates": [{**vars(day), "doubts": dict(sorted(day.doubts.items()))} for day in self.dates],
        }
        into.write(json.dumps(head, indent=1)[:-2])
        for name, arriving in (("doubts", False), ("arriving", True)):
            rows = enumerate(self.discrepancies(arriving=arriving))
            into.write(f',\n "{name}": [')
            into.writelines(f"{',' if index else ''}\n  {json.dumps(row)}" for index, row in rows)
            into.write("\n ]")
        into.write("\n}\n")
