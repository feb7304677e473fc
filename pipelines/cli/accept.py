"""`ringcx-archive accept`: accepts losses that somebody has reviewed, or revokes acceptances."""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
from ulid import ULID

from pipelines import storage
from pipelines.calendar import dates_between, local_day
from pipelines.cli.options import (
    Dependencies,
    check_range,
    date_option,
    date_range,
    file_option,
    one_date_or_range,
    subcommand,
    write_json,
)
from pipelines.settings import PlanSettings, load
from pipelines.steps.seal.acceptance import Decision, DecisionIncomplete, decide
from pipelines.steps.seal.seal_day import Stores

FORMAT = "ringcx-archive/acceptance/1"


@subcommand(
    "accept --date 2026-11-18 --reason not_found --why TICKET-123 --by 'head of compliance'",
    "accept 15300002/15300002/202611/18/1-1.WAV --why TICKET-124 --by 'shift lead'",
)
@click.argument("recording_ids", nargs=-1)
@date_option("--date", "day", "Accept the losses of this date, instead of --from and --to.")
@date_range(required=False)
@click.option("--reason", default="", help="With dates: the code of the reason for the losses, as `status` shows it.")
@click.option("--why", required=True, help="Why it is accepted: a ticket, without personal data. It is sealed.")
@click.option("--by", "accepted_by", required=True, help="The role of the person who accepts, no name. It is sealed.")
@click.option("--revoke", is_flag=True, help="Revoke acceptances instead.")
@file_option("what was decided and refused")
def command(
    dependencies: Dependencies,
    *,
    recording_ids: tuple[str, ...],
    day: date | None,
    first: date | None,
    last: date | None,
    reason: str,
    why: str,
    accepted_by: str,
    revoke: bool,
    file: Path | None,
) -> int:
    """Accept losses that somebody has reviewed, so that their dates become complete, or revoke acceptances.

    Give recording ids, or dates and a reason. Writes to the ledger and seals the dates again. Exit code 0: nothing was
    refused; 1: something was, and the rest was done.
    """
    # With the account ids, without which the verdict that is sealed could be better than that of a run.
    settings, now = load(PlanSettings), dependencies.clock()
    days: list[date] = []
    if given := one_date_or_range(day, first, last):
        check_range(*given, local_day(now, settings.zone))
        days = dates_between(*given)
    try:
        decision = Decision(
            recording_ids=recording_ids, days=days, reason=reason, why=why, accepted_by=accepted_by, revoke=revoke
        )
    except DecisionIncomplete as error:
        raise click.UsageError(str(error)) from None
    stores = Stores(*storage.open_stores(settings, dependencies.s3, dependencies.clock), settings)
    run_id = f"accept-{ULID.from_datetime(now)}"
    decided = decide(stores, decision, now=now, run_id=run_id, signer=storage.signer(settings))
    for sentence in decided.refused:
        click.echo(f"refused: {sentence}")
    for sealed, found in decided.verdicts.items():
        click.echo(f"{sealed}  {found.verdict}: {found.sentence}")
    click.echo(decided.sentence)
    if decided.written:
        click.echo("The table of calls has the new verdicts once you materialize `calls`, or run the dates, again.")
    dates = [{"date": day, "verdict": new.verdict, "sentence": new.sentence} for day, new in decided.verdicts.items()]
    result = {name: getattr(decided, name) for name in ("sentence", "unchanged", "refused")}
    result["written"] = [asdict(line) for line in decided.written]
    write_json(file, {"format": FORMAT, **result, "dates": dates})
    return 1 if decided.refused else 0
