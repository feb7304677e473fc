"""`ringcx-archive verify`: proves the archive of some dates without trusting its own records."""

import re
import secrets
import sys
from datetime import date
from pathlib import Path

import click

from pipelines.calendar import local_day
from pipelines.cli.options import Dependencies, check_range, date_range, file_option, subcommand, write_json
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.verdict import EXIT_CODES, worst
from pipelines.steps.verify.days import open_archive, verify_days
from pipelines.steps.verify.objects import Sampling, find_strays
from pipelines.steps.verify.report import DayResult, Discrepancy, Verification
from pipelines.wording import number

_COLUMNS = ("verdict", "manifest", "found", "held", "pending", "lost", "MB", "read")


class Screen:
    """The table, line by line; on a terminal also the progress of the current date."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def line(self, text: str) -> None:
        """Write a line that stays on the screen."""
        if self._live:
            click.echo("\r\033[K", nl=False, err=True)
        click.echo(text)

    def progress(self, day: date, done: int, total: int) -> None:
        """Overwrite the terminal's last line with the progress of a date."""
        if self._live and (done % 25 == 0 or done == total):
            click.echo(f"\r\033[K{day}  {done:,} of {total:,} recordings", nl=False, err=True)

    def result(self, day: DayResult) -> None:
        """Show a date's line."""
        count = day.discrepancies.total()
        manifest = "-" if day.manifest is None else day.manifest
        found = "?" if day.found is None else day.found
        cells = (day.verdict, manifest, found, day.held, day.pending, day.lost, f"{day.bytes / 1e6:,.1f}", day.read)
        unchanged = "never sealed" if day.manifest is None else "as sealed"
        said = number(count, "discrepancy", "discrepancies") if count else unchanged
        if day.accepted_losses:
            said += f", with {number(day.accepted_losses, 'accepted loss', 'accepted losses')}"
        said += f", {day.arriving:,} arriving" if day.arriving else ""
        self.line(f"{day.date:<12}" + "".join(f"{cell!s:>10}" for cell in cells) + f"  {said}")


@subcommand(
    "verify --from 2026-11-01 --to 2026-11-22",
    "verify --from 2026-11-22 --to 2026-11-22 --read-data 10% --json verify.json",
)
@date_range()
@click.option(
    "--read-data",
    is_flag=False,
    flag_value="100%",
    metavar="[10%]",
    help="Read the recordings' bytes and hash them: all, or this share of them, chosen at random.",
)
@click.option(
    "--require-complete",
    is_flag=True,
    help="Also require every date to be complete; otherwise exit with 1 (gaps) or 3 (waiting or unknown).",
)
@click.option("--seed", help="Choose the same recordings as an earlier run, which printed its seed.")
@file_option("the whole result, every discrepancy included,")
def command(
    dependencies: Dependencies,
    *,
    first: date,
    last: date,
    read_data: str | None,
    require_complete: bool,
    seed: str | None,
    file: Path | None,
) -> int:
    """Prove that the archive of some dates is as it was sealed. Reads, and never writes to the bucket.

    What a run in progress may have written counts as arriving, not as a discrepancy.

    Exit code 0: no discrepancy; 1: there is one. With --require-complete also 1: a date has gaps; 3: one is waiting or
    unknown.
    """
    settings = load(VerifySettings)
    check_range(first, last, local_day(dependencies.clock(), settings.zone))
    sampling = Sampling(share=_share(read_data), seed=seed or secrets.token_hex(8))
    archive = open_archive(settings, dependencies.s3, dependencies.clock)
    screen = Screen()
    report = Verification(
        {
            "bucket": archive.bucket.name,
            "prefix": archive.bucket.prefix,
            "from": first.isoformat(),
            "to": last.isoformat(),
            "started_at": dependencies.clock().isoformat(),
            "read_data": {"share": sampling.share, "seed": sampling.seed} if sampling.share else None,
            "signatures": archive.verifier is not None,
        }
    )

    def add(found: Discrepancy) -> None:
        report.found.append(found)
        if not found.arriving:  # those are only counted, in their date's line below
            screen.line(f"  {found.date or 'no date   '}  {found.kind}: {found.sentence}")

    if 0 < sampling.share < 1:
        share = f"{sampling.share * 100:.4g}% of the recordings"
        screen.line(f"Reading a random {share}; repeat it with --seed {sampling.seed}")
    screen.line(f"{'date':<12}" + "".join(f"{name:>10}" for name in _COLUMNS))
    for result in verify_days(archive, first, last, sampling, add=add, progress=screen.progress):
        report.dates.append(result)
        screen.result(result)
    for stray in find_strays(archive.bucket, settings):
        add(stray)
    if archive.verifier is None:
        report.notes.append("Signatures were not checked: set ARCHIVE_VERIFY_KEY_FILE to check them.")
        screen.line(f"Note: {report.notes[0]}")
    screen.line(report.sentence())
    write_json(file, report.document(dependencies.clock()))
    total = report.sum()
    if require_complete and not total["undated"]:
        return EXIT_CODES[worst(day.verdict for day in report.dates)]
    return 1 if total["discrepancies"] else 0


def _share(text: str | None) -> float:
    if text is None:
        return 0.0
    if re.fullmatch(r"\d{1,3}(\.\d{1,6})?%?", text, re.ASCII) and 0 < float(text.rstrip("%")) <= 100:
        return float(text.rstrip("%")) / 100
    raise click.UsageError("--read-data takes a share above 0% and up to 100%, such as 10%, or no value for all")
