"""`ringcx-archive status`: shows which dates are complete, and what the others lack."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from pipelines import storage
from pipelines.calendar import local_day
from pipelines.cli.options import Dependencies, check_range, date_range, file_option, subcommand, write_json
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.status import kept_dates, status
from pipelines.steps.check.verdict import EXIT_CODES, Verdict, sentence_of, worst
from pipelines.wording import number

FORMAT = "ringcx-archive/status/1"
_SHOWN = 20  # sentences on the screen; the file of --json has all of them
_COLUMNS = ("verdict", "expected", "held", "waiting", "next attempt (UTC)", "late", "lost", "accepted", "days left")
_WIDTHS = (10, 10, 10, 10, 20, 8, 8, 10, 11)


@subcommand("status", "status --from 2026-11-01 --to 2026-11-22 --json status.json")
@date_range(required=False)
@file_option("the full result, every date included,")
def command(dependencies: Dependencies, first: date | None, last: date | None, file: Path | None) -> int:
    """Show which dates are complete, and what the others lack. Reads, and changes nothing.

    Without --from and --to: the dates that RingCX still keeps, up to yesterday. Exit code 0: every date is complete;
    1: one has gaps; 3: the worst is waiting or unknown.
    """
    settings, now = load(VerifySettings), dependencies.clock()
    today = local_day(now, settings.zone)
    oldest, yesterday = kept_dates(settings, today)
    first, last = first or oldest, last or yesterday
    check_range(first, last, today)
    bucket, ledger = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    rows: list[dict[str, Any]] = []
    for row in status(ledger, bucket, settings, first, last, now=now):
        if not rows:
            click.echo(f"{'date':<12}{_line(_COLUMNS)}")
        rows.append(row)
        click.echo(f"{row['date']:<12}{_line(_cells(row))}")
    verdicts = [Verdict(row["verdict"]) for row in rows]
    verdict = worst(verdicts)
    sentence = sentence_of(verdicts, sum(bool(row["accepted_losses"]) for row in rows))
    lacking = [row for row in rows if row["verdict"] != Verdict.complete]
    lacking.sort(key=lambda row: list(Verdict).index(row["verdict"]))  # gaps first: they are lost if nobody looks
    for row in lacking[:_SHOWN]:
        click.echo(f"\n{row['date']}: {row['sentence']}", nl=False)
    if len(lacking) > _SHOWN:
        click.echo(f"\n… and {number(len(lacking) - _SHOWN, 'more date')}: --json FILE has all of them.", nl=False)
    click.echo(f"\n{sentence}" if lacking else sentence)
    head = {"format": FORMAT, "from": str(first), "to": str(last), "asked_at": now.isoformat()}
    write_json(file, {**head, "verdict": verdict, "sentence": sentence, "dates": rows})
    return EXIT_CODES[verdict]


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    next_at = "" if row["next_at"] is None else f"{datetime.fromisoformat(row['next_at']):%Y-%m-%d %H:%M}"
    first = (row[name] for name in ("verdict", "expected", "held", "waiting"))
    cells = (*first, next_at, row["late"], sum(row["lost"].values()), row["accepted_losses"], row["days_left"])
    return tuple("?" if cell is None else cell for cell in cells)


def _line(cells: Sequence[object]) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
