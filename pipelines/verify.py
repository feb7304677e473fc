"""`python -m pipelines.verify --from 2026-11-01 --to 2026-11-30 [--read-data [10%]] [--json FILE]`

Proves the archive of some dates, for somebody who does not believe us: reads the bucket and the ledger again, writes to
neither, needs no log-in to RingCX and no Dagster. Ends with 0 only without any doubt, with 1 if there is one, with 2 if
the command or a setting is wrong. What is proved, and how: `steps/verify`.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.calendar import local_day, utc_now
from pipelines.command import Parser, UsageError, add_range, ended, range_of
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.store import Ledger
from pipelines.settings import Calendar, VerifySettings, load
from pipelines.steps.verify.days import Archive, strays, verify_days
from pipelines.steps.verify.objects import Reading
from pipelines.steps.verify.report import DayVerdict, Doubt, Report

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SHOWN = 50  # doubts of one date on the screen where --json takes them all
_COLUMNS = ("manifest", "found", "held", "pending", "lost", "MB", "read")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. `share` of the bytes to read, from 0 to 1."""

    first: date
    last: date
    share: float
    seed: str
    json: Path | None


class Screen:
    """The table, line by line; on a terminal also how far the present date is."""

    def __init__(self, out: TextIO, live: TextIO) -> None:
        self._out = out
        self._live = live if live.isatty() else None
        self._shown = 0
        self.most: int | None = None

    def line(self, text: str) -> None:
        """One line that stays."""
        if self._live is not None:
            self._live.write("\r\033[K")
            self._live.flush()
        self._out.write(f"{text}\n")
        self._out.flush()

    def progress(self, day: date, done: int, of: int) -> None:
        """Overwrite the last line of a terminal."""
        if self._live is not None and (done % 25 == 0 or done == of):
            self._live.write(f"\r\033[K{day}  {done:,} of {of:,} recordings")
            self._live.flush()

    def doubt(self, doubt: Doubt) -> None:
        """A doubt, above its date's line; no more than `most` of one date."""
        self._shown += 1
        if self.most is None or self._shown <= self.most:
            self.line(f"  {doubt.date or 'no date   '}  {doubt.kind}: {doubt.sentence}")

    def verdict(self, day: DayVerdict) -> None:
        """A date's line."""
        number = day.doubts.total()
        manifest = "-" if day.manifest is None else str(day.manifest)
        cells = (manifest, day.found, day.held, day.pending, day.lost, f"{day.held_bytes / 1e6:,.1f}", day.read)
        said = "good" if not number else f"{number:,} doubt{'s' if number > 1 else ''}"
        if self.most is not None and self._shown > self.most:
            self.line(f"  {day.day}  … and {self._shown - self.most:,} more, all of them in the file of --json")
        self.line(f"{day.day!s:<12}" + "".join(f"{cell!s:>10}" for cell in cells) + f"  {said}")
        self._shown = 0


def parse(arguments: Sequence[str], *, today: date) -> Request:
    """Read the command line.

    Raises:
        UsageError: it is wrong.
    """
    parser = Parser(
        prog="python -m pipelines.verify",
        description="Prove that the archive of some dates is as it was sealed. Reads, and never writes to the bucket.",
        epilog="Ends with 0 only without any doubt, with 1 if there is one, with 2 if command or settings are wrong.",
    )
    add_range(parser, "the whole result, every doubt included")
    parser.add_argument(
        "--read-data",
        nargs="?",
        const="100%",
        metavar="10%",
        help="read the recordings' bytes and hash them: all, or this share of them, chosen at random",
    )
    parser.add_argument("--seed", help="choose the same share again as an earlier run, which printed it")
    known = parser.parse_args(arguments)
    first, last, file = range_of(known, today)
    return Request(first, last, _share(known.read_data), known.seed or secrets.token_hex(8), file)


def verify(
    request: Request,
    settings: VerifySettings,
    screen: Screen,
    clock: Callable[[], datetime],
    s3: S3Client | None = None,
) -> bool:
    """Verify what was asked for; whether nothing is in doubt.

    Raises:
        StorageRefused, KeyUnusable: settings or rights are wrong.
    """
    archive = _archive(settings, clock, s3)
    reading = Reading(share=request.share, seed=request.seed)
    if 0 < request.share < 1:
        screen.line(
            f"Reading a random {request.share:.4%} of the recordings; the same again with --seed {request.seed}"
        )
    screen.line(f"{'date':<12}" + "".join(f"{name:>10}" for name in _COLUMNS))
    head = {
        "bucket": archive.bucket.name,
        "prefix": archive.bucket.prefix,
        "from": request.first.isoformat(),
        "to": request.last.isoformat(),
        "started_at": clock().isoformat(),
        "read_data": {"share": request.share, "seed": request.seed} if request.share else None,
        "signatures": archive.verifier is not None,
    }
    screen.most = None if request.json is None else _SHOWN
    report = Report(**head)

    def tell(doubt: Doubt) -> None:
        report.tell(doubt)
        screen.doubt(doubt)

    for verdict in verify_days(archive, request.first, request.last, reading, tell=tell, progress=screen.progress):
        report.dates.append(verdict)
        screen.verdict(verdict)
    for stray in strays(archive.bucket, (settings.ledger, settings.events_url)):
        tell(stray)
    if archive.verifier is None:
        report.notes.append("Signatures were not checked: set ARCHIVE_VERIFY_KEY_FILE to check them.")
        screen.line(f"Note: {report.notes[0]}")
    screen.line(report.sentence())
    if request.json is not None:
        report.write_file(request.json, clock())
    return not report.sum()["doubts"]


def main(arguments: Sequence[str] | None = None, s3: S3Client | None = None) -> int:
    """Run the command, with a client of one's own if there is one; returns its exit code."""
    screen = Screen(sys.stdout, sys.stderr)

    def work() -> int:
        today = local_day(utc_now(), load(Calendar).zone)
        request = parse(sys.argv[1:] if arguments is None else arguments, today=today)
        return 0 if verify(request, load(VerifySettings), screen, utc_now, s3) else 1

    return ended(work, stopped="Stopped before the end: nothing is proved.")


def _archive(settings: VerifySettings, clock: Callable[[], datetime], s3: S3Client | None) -> Archive:
    threads = settings.archive_concurrency
    client = s3 or make_s3_client(max_connections=2 * threads, options=settings.s3_options)
    files = storage.ledger_files(settings, client)
    return Archive(
        bucket=Bucket(client, settings.archive_bucket, settings.archive_prefix),
        ledger=Ledger(files, clock=clock),
        parts=LedgerParts(files),
        zone=settings.zone,
        accounts=settings.ringcx_account_ids,
        reports=settings.reports,
        verifier=storage.verifier(settings),
        threads=threads,
        start=settings.archive_start_date,
    )


def _share(text: str | None) -> float:
    if text is None:
        return 0.0
    if re.fullmatch(r"\d{1,3}(\.\d{1,6})?%?", text, re.ASCII) and 0 < float(text.rstrip("%")) <= 100:
        return float(text.rstrip("%")) / 100
    raise UsageError("--read-data takes a share from above 0% to 100%, such as 10%, or nothing for all")


if __name__ == "__main__":
    sys.exit(main())
