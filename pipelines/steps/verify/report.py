"""The result of a verification: discrepancies, a result for each date, and one JSON document with both.

`format`: `ringcx-archive/verification/1`; `bucket`, `prefix`, `from`, `to`, `started_at`, `finished_at`; `read_data`:
`{"share", "seed"}` or null; `verdict`: of all dates together; `dates`: one object a date (`DayResult`); `doubts`: one
for each discrepancy (`date`, `kind`, `subject`, `sentence`); `arriving`: the same for what a running run may have
written; `notes`: sentences about what was not checked; `sum`; `good`: whether there is no discrepancy; `sentence`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pipelines.steps.check.verdict import Verdict, sentence_of, worst
from pipelines.wording import number

FORMAT = "ringcx-archive/verification/1"
# The keys in the document of what has another name here.
_KEYS = {"discrepancies": "doubts", "dates_with_discrepancies": "doubtful_dates", "undated": "strays"}


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
    `objects` counts what is in the bucket, `read` and `bytes_read` what was read again and hashed, `discrepancies` (in
    the document: `doubts`) the discrepancies of each kind, `arriving` what a running run may have written; the other
    figures are the manifest's, or else the ledger's. `lost` leaves out accepted losses. `found` is None while it is
    unknown what the date should hold.
    `accepted_elsewhere`: recording id -> its own date, whose manifest lists the accepted loss.
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
    discrepancies: Counter[str] = field(default_factory=Counter)
    arriving: int = 0


@dataclass
class Verification:
    """The results of dates, and what was found. `head`: the first fields of the JSON document."""

    head: Mapping[str, object]
    dates: list[DayResult] = field(default_factory=list)
    found: list[Discrepancy] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def discrepancies(self) -> list[Discrepancy]:
        """What was found, without what is arriving."""
        return [each for each in self.found if not each.arriving]

    def sum(self) -> dict[str, int]:
        """Return the totals over all dates. `undated`: the number of discrepancies without a date."""
        summed = {"held": "held", "held_bytes": "bytes", "pending": "pending", "lost": "lost"}
        summed |= {"read": "read", "read_bytes": "bytes_read", "arriving": "arriving"}
        return {
            "dates": len(self.dates),
            "dates_with_discrepancies": sum(bool(day.discrepancies) for day in self.dates),
            "discrepancies": len(self.discrepancies),
            "undated": sum(not each.date for each in self.found),
            **{name: sum(getattr(day, of_day) for day in self.dates) for name, of_day in summed.items()},
        }

    def sentence(self) -> str:
        """Return one sentence with the whole result."""
        total = self.sum()
        dates = number(total["dates"], "date")
        read = f"{number(total['read'], 'recording')} read again ({total['read_bytes'] / 1e6:,.1f} MB)"
        if not self.dates:
            return "There was no date to verify."
        if found := total["discrepancies"]:
            undated = f" ({total['undated']:,} without a date)" if total["undated"] else ""
            return (
                f"{number(found, 'discrepancy', 'discrepancies')}{undated} on {total['dates_with_discrepancies']:,} of "
                f"{dates}; the list of discrepancies says what to do about each; {read}."
            )
        arriving = ""
        if total["arriving"]:
            arriving = f" {number(total['arriving'], 'item is', 'items are')} arriving: verify again after the run."
        unsealed = sum(day.manifest is None for day in self.dates)
        sealed = number(len(self.dates) - unsealed, "date")
        never = f" {number(unsealed, 'date was', 'dates were')} never sealed." if unsealed else ""
        return (
            f"No discrepancy: the archive of {sealed} is as it was sealed.{never}{arriving} It holds "
            f"{number(total['held'], 'recording')} ({total['held_bytes'] / 1e6:,.1f} MB); "
            f"the ledger counts {total['lost']:,} lost and {total['pending']:,} pending; {read}. "
            f"{sentence_of((day.verdict for day in self.dates), sum(day.accepted_losses > 0 for day in self.dates))}"
        )

    def document(self, finished_at: datetime) -> dict[str, Any]:
        """Return the JSON document."""
        rows: dict[bool, list[dict[str, str]]] = {False: [], True: []}
        for each in self.found:
            row = {"date": each.date, "kind": each.kind, "subject": each.subject, "sentence": each.sentence}
            rows[each.arriving].append(row)
        return {
            "format": FORMAT,
            **self.head,
            "finished_at": finished_at.isoformat(),
            "good": not self.discrepancies,
            "verdict": worst(day.verdict for day in self.dates),
            "sentence": self.sentence(),
            "notes": self.notes,
            "sum": _as_json(self.sum()),
            "dates": [
                _as_json(vars(day) | {"discrepancies": dict(sorted(day.discrepancies.items()))}) for day in self.dates
            ],
            "doubts": rows[False],
            "arriving": rows[True],
        }


def _as_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {_KEYS.get(name, name): value for name, value in fields.items()}
