"""`ringcx-archive plan`: shows what a backfill of some dates would take, and how to launch it."""

from datetime import date
from pathlib import Path

import click

from pipelines import storage
from pipelines.calendar import local_day
from pipelines.cli.options import Dependencies, check_range, date_range, file_option, subcommand, write_json
from pipelines.settings import PlanSettings, load
from pipelines.steps.plan import render
from pipelines.steps.plan.estimate import make_plan


@subcommand("plan --from 2026-08-01 --to 2026-10-31")
@date_range()
@file_option("the whole plan, every date included,")
def command(dependencies: Dependencies, first: date, last: date, file: Path | None) -> None:
    """Show what a backfill of some dates would take. Reads the ledger, changes nothing and sends nothing to RingCX."""
    settings, now = load(PlanSettings), dependencies.clock()
    check_range(first, last, local_day(now, settings.zone), settings.archive_start_date)
    _, ledger = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    plan = make_plan(ledger, settings, first, last, now)
    click.echo(render.text(plan))
    write_json(file, render.document(plan, now))
