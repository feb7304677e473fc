"""`python -m pipelines.plan --from 2026-08-01 --to 2026-10-31 [--json FILE]`

Says what a backfill of some dates would take before it runs, and ends with the commands that launch it. Reads the
ledger and changes nothing; asks RingCX nothing and needs no log-in to it, and no Dagster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.archive.client import make_s3_client
from pipelines.calendar import local_day, utc_now
from pipelines.command import Parser, UsageError, add_range, ended, range_of, write_whole
from pipelines.ledger.store import Ledger
from pipelines.settings import PlanSettings, load
from pipelines.steps.plan import render
from pipelines.steps.plan.estimate import make_plan

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def main(
    arguments: Sequence[str] | None = None,
    s3: S3Client | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> int:
    """Run the command, with a client and a clock of one's own if there are; returns its exit code."""
    parser = Parser(
        prog="python -m pipelines.plan",
        description="Say what a backfill of some dates would take. Reads the ledger; changes and asks for nothing.",
        epilog="Ends with 0 when the plan is made, with 2 if command or settings are wrong.",
    )
    add_range(parser, "the whole plan, every date included")

    def work() -> int:
        settings, now = load(PlanSettings), clock()
        known = parser.parse_args(arguments)
        first, last, file = range_of(known, local_day(now, settings.zone))
        if first < settings.archive_start_date:
            raise UsageError(
                f"--from {first} is before the first date that there is, {settings.archive_start_date}: give a later "
                "date, or set ARCHIVE_START_DATE"
            )
        client = s3 or make_s3_client(max_connections=16, options=settings.s3_options)
        ledger = Ledger(storage.ledger_files(settings, client), clock=clock)
        plan = make_plan(ledger, settings, first, last, now)
        sys.stdout.write(f"{render.text(plan)}\n")
        if file is not None:
            write_whole(file, f"{render.document(plan, now)}\n")
        return 0

    return ended(work, stopped="Stopped before the end: nothing is planned, and nothing was changed.")


if __name__ == "__main__":
    sys.exit(main())
