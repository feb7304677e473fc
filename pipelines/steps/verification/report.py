"""A verification's result as one JSON document, however many doubts it has.

`format`: `ringcx-archive/verification/1`; `bucket`, `prefix`, `from`, `to`, `started_at`, `finished_at`; `read_data`:
`{"share", "seed"}` or null; `dates`: one object a date; `doubts`: one object each (`date`, `kind`, `subject`,
`sentence`); `notes`: sentences that are no doubts; `sum`; `good`; `sentence`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pipelines.steps.verification.doubts import DayVerdict, Doubt, Sum

FORMAT = "ringcx-archive/verification/1"


class Report:
    """Takes doubts and verdicts as they come. Doubts wait in a temporary file, so that any number fits."""

    def __init__(self, **head: object) -> None:
        self.sum = Sum()
        self._head = {"format": FORMAT, **head}
        self._dates: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._doubts = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="verify-")  # noqa: SIM115 - closed on exit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._doubts.close()

    def tell(self, doubt: Doubt) -> None:
        """Take a doubt."""
        self._doubts.write(f"{json.dumps(doubt.as_json())}\n")

    def note(self, sentence: str) -> None:
        """Take a sentence that is no doubt."""
        self._notes.append(sentence)

    def add(self, verdict: DayVerdict) -> None:
        """Take a date's verdict."""
        self.sum.add(verdict)
        self._dates.append(verdict.as_json())

    def doubts(self) -> Iterator[dict[str, str]]:
        """The doubts so far, in the order of telling."""
        self._doubts.seek(0)
        for line in self._doubts:
            yield json.loads(line)

    def write(self, into: TextIO, finished_at: datetime) -> None:
        """Write the whole document, doubt by doubt."""
        rest = {
            **self._head,
            "finished_at": finished_at.isoformat(),
            "good": not self.sum.doubts,
            "sentence": self.sum.sentence(),
            "sum": asdict(self.sum),
            "dates": self._dates,
            "notes": self._notes,
        }
        into.write(f'{json.dumps(rest, indent=1)[:-2]},\n "doubts": [')
        into.writelines(f"{',' if number else ''}\n  {json.dumps(doubt)}" for number, doubt in enumerate(self.doubts()))
        into.write("\n ]\n}\n")


def write_file(report: Report, path: Path, finished_at: datetime) -> None:
    """Write the document beside `path`, then put it in its place: it is there whole or not at all."""
    beside = path.with_name(f"{path.name}.partial")
    with beside.open("w", encoding="utf-8") as file:
        report.write(file, finished_at)
    beside.replace(path)
