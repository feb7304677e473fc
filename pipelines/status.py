"""`python -m pipelines.status [--from 2026-11-01] [--to 2026-11-30] [--json FILE]`

Answers the morning's question: which dates are complete, and what do the others lack? Reads the ledger and the names
and sizes of the objects; changes nothing, needs no log-in to RingCX and no Dagster. Exits with 0 if every date is
complete, with 1 if one has gaps, with 3 if the worst is waiting or unknown, with 2 if command or settings are wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.archive.errors import StoreDamaged
from pipelines.calendar import local_day, utc_now
from pipelines.command import Parser, add_range, ended, range_of, write_whole
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.verdict import EXIT_CODES, DateVerdict, Verdict, judge_date, sentence_of, worst
from pipelines.steps.parallel import map_in_order
from pipelines.wording import number

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORMAT = "ringcx-archive/status/1"
_READERS = 4  # dates at once: each holds its recordings in memory
_SHOWN = 20  # sentences on the screen; the file of --json has all of them
_COLUMNS = ("verdict", "expected", "held", "waiting", "next try (UTC)", "late", "lost", "days left")
_WIDTHS = (10, 10, 10, 10, 18, 8, 8, 11)
_LATE = ("overdue", "stuck")


def main(
    arguments: Sequence[str] | None = None,
    s3: S3Client | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> int:
    """Run the command, with the client and the clock that are given, and return its exit code."""
    parser = Parser(
        prog="python -m pipelines.status",
        description="Say which dates are complete and what the others lack. Reads, and changes nothing.",
        epilog="Without --from and --to: the dates that RingCX still keeps, up to yesterday. Exits with 0 if every "
        "date is complete, with 1 if one has gaps, with 3 if the worst is waiting or unknown, with 2 if command or "
        "settings are wrong.",
    )
    add_range(parser, "the whole answer, every date included", required=False)

    def work() -> int:
        options = parser.parse_args(arguments)
        settings, now = load(VerifySettings), clock()
        today = local_day(now, settings.zone)
        kept = today - timedelta(days=settings.ringcx_retention_days - 1)
        yesterday = today - timedelta(days=1)
        default = min(max(settings.archive_start_date, kept), yesterday), yesterday
        first, last, file = range_of(options, today, default=default)
        client = s3 or make_s3_client(max_connections=2 * _READERS, options=settings.s3_options)
        ledger = Ledger(storage.ledger_files(settings, client), clock=clock)
        bucket = Bucket(client, settings.archive_bucket, settings.archive_prefix)
        rows: list[dict[str, Any]] = []
        sys.stdout.write(f"{'date':<12}{_line(_COLUMNS)}\n")
        for row in status(ledger, bucket, settings, first, last, now=now):
            rows.append(row)
            sys.stdout.write(f"{row['date']:<12}{_line(_cells(row))}\n")
            sys.stdout.flush()
        verdicts = [Verdict(row["verdict"]) for row in rows]
        verdict, sentence = worst(verdicts), sentence_of(verdicts)
        lacking = [row for row in rows if row["verdict"] != Verdict.complete]
        sys.stdout.writelines(f"\n{row['date']}: {row['sentence']}" for row in lacking[:_SHOWN])
        if len(lacking) > _SHOWN:
            sys.stdout.write(f"\n… and {number(len(lacking) - _SHOWN, 'more date')}: --json FILE has all of them.")
        sys.stdout.write(f"\n{sentence}\n" if lacking else f"{sentence}\n")
        if file is not None:
            head = {"format": FORMAT, "from": str(first), "to": str(last), "asked_at": now.isoformat()}
            document = {**head, "verdict": verdict, "sentence": sentence, "dates": rows}
            write_whole(file, f"{json.dumps(document, indent=1)}\n")
        return EXIT_CODES[verdict]

    return ended(work, stopped="Stopped before the end: nothing was changed.")


def status(
    ledger: Ledger, bucket: Bucket, settings: VerifySettings, first: date, last: date, *, now: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the status of each date from `first` to `last`, under the names of the JSON document.

    A date whose part of the ledger or of the archive is damaged is unknown, and does not stop the others.
    """
    today = local_day(now, settings.zone)

    def of_date(day: date) -> dict[str, Any]:
        left = max(settings.ringcx_retention_days - (today - day).days, 0)
        try:
            return {
                "date": str(day),
                **_document(judge_date(ledger, bucket, day, settings, now=now)),
                "days_left": left,
            }
        except (LedgerDamaged, StoreDamaged) as error:
            unread = dict.fromkeys(("expected", "held", "waiting", "next_at", "late"))
            sentence = f"It is unknown what {day} holds: {error}"
            row: dict[str, Any] = {"date": str(day), "verdict": Verdict.unknown, **unread, "lost": {}, "not_pulled": []}
            return {**row, "sentence": sentence, "days_left": left}

    days = (first + timedelta(days=after) for after in range((last - first).days + 1))
    for _, row in map_in_order(of_date, days, threads=_READERS):
        yield row


def _document(found: DateVerdict) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "expected": found.expected,
        "held": found.held,
        "waiting": found.counts["waiting"],
        "next_at": None if found.next_at is None else found.next_at.isoformat(),
        "late": sum(found.counts[name] for name in _LATE),
        "lost": found.lost,
        "not_pulled": [str(gap) for gap in found.not_pulled],
        "sentence": found.sentence,
    }


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    next_at = "" if row["next_at"] is None else f"{datetime.fromisoformat(row['next_at']):%Y-%m-%d %H:%M}"
    counts = [row["expected"], row["held"], row["waiting"]]
    last = [row["late"], sum(row["lost"].values()), row["days_left"]]
    counts, last = (["?" if count is None else count for count in part] for part in (counts, last))
    return (row["verdict"], *counts, next_at, *last)


def _line(cells: Sequence[object]) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


if __name__ == "__main__":
    sys.exit(main())
