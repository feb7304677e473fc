"""`ringcx-archive run`: archives dates now, each in a run that the Dagster UI shows like any other."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import click
from dagster import DagsterRunStatus
from rich.console import Console

from pipelines.calendar import dates_between, local_day
from pipelines.cli.history import dagster_history
from pipelines.cli.options import (
    Dependencies,
    check_dagster_home,
    check_range,
    date_range,
    read_date,
    stop_like_ctrl_c,
    subcommand,
)
from pipelines.cli.progress import Progress
from pipelines.errors import ExpectedError
from pipelines.orchestration.date_run import AnotherRun, end_dead_runs, running, stored_by
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.run_requests import unfinished_dates
from pipelines.settings import DagsterSettings, load
from pipelines.steps.check.status import status
from pipelines.steps.check.verdict import EXIT_CODES, Verdict, worst
from pipelines.wording import number


class RunsStopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Ctrl-C, or Terminate in the UI, stopped a run; the text states what was stored. `left`: the dates not run."""

    def __init__(self, sentence: str, left: Sequence[date]) -> None:
        super().__init__(sentence)
        self.left = left


@subcommand("run 2026-11-18", "run --from 2026-11-01 --to 2026-11-07")
@click.argument("dates", nargs=-1, type=read_date, metavar="[DATE]...")
@date_range(required=False)
def command(dependencies: Dependencies, dates: tuple[date, ...], first: date | None, last: date | None) -> int:
    """Archive dates now, one after another. Recordings already archived are not downloaded again.

    The runs appear in the Dagster UI like any other; stop them there, or here with Ctrl-C. Exit code 0: every
    date is complete; 1: one has gaps, was skipped, or its run failed; 3: one is waiting or unknown.
    """
    if bool(dates) == bool(first or last) or bool(first) != bool(last):
        raise click.UsageError("Give dates, or both --from and --to")
    first, last = first or min(dates), last or max(dates)
    environment = Environment(clock=dependencies.clock, s3_client=dependencies.s3)
    settings, start = environment.settings, load(DagsterSettings).archive_start_date
    check_range(first, last, local_day(dependencies.clock(), settings.zone), start)
    days = sorted(set(dates)) or dates_between(first, last)
    check_dagster_home()
    next(environment.stores.bucket.list_keys("probes/"), None)  # a wrong bucket ends here, without a failed run
    try:
        succeeded, verdict = archive(days, environment)
    except RunsStopped as stopped:
        left = [str(day) for day in stopped.left]
        again = " ".join(left) if len(left) < 4 else f"--from {left[0]} --to {left[-1]}"
        click.echo(f"{stopped} Continue with: ringcx-archive run {again}")
        return 130
    return EXIT_CODES[verdict] if succeeded else 1


def archive(days: Sequence[date], environment: Environment) -> tuple[bool, Verdict]:
    """Run the dates one after another and show each; return whether all runs succeeded, and the worst verdict. Raise
    RunsStopped if they were stopped, ClickException if another run of a date has not ended or none can be started.
    """
    stop_like_ctrl_c()
    console, logs = Console(), environment.settings.data_dir
    logs.mkdir(parents=True, exist_ok=True)
    verdicts, succeeded = [], True
    with dagster_history() as instance:
        end_dead_runs(instance, logs)
        if busy := unfinished_dates(instance, [str(day) for day in days]):
            raise click.ClickException(
                f"{number(len(busy), 'run has', 'runs have')} not ended ({', '.join(sorted(busy))}): wait for the end, "
                "or terminate each in the Dagster UI"
            )
        for at, day in enumerate(days):
            log, run_id = logs / f"run-{day}.log", ""
            try:
                with Progress(console, day) as progress, running(instance, day, log) as started:
                    run_id, progress.steps = started.run.run_id, started.run.step_keys_to_execute or ()
                    for event in started.events():
                        progress.show(event)
                if started.status is DagsterRunStatus.CANCELED:
                    raise KeyboardInterrupt  # noqa: TRY301 - terminated in the UI: the same as Ctrl-C here
                row = _verdict(environment, day)
            except AnotherRun:  # the schedule, a sensor or another terminal was first
                succeeded = False
                click.echo(
                    f"{day}  skipped: another run of that date is in progress; follow it in the Dagster UI, or run "
                    "the date again afterwards"
                )
                continue
            except KeyboardInterrupt:
                raise RunsStopped(_what_is_stored(environment, day, run_id), days[at:]) from None
            if started.status is not DagsterRunStatus.SUCCESS:
                succeeded = False
                click.echo(f"{day}  the run FAILED; see its page in the Dagster UI, or {log}")
            verdicts.append(Verdict(row["verdict"]))
            click.echo(f"{day}  {row['verdict']}: {row['sentence']}")
    return succeeded, worst(verdicts)


def _verdict(environment: Environment, day: date) -> dict[str, Any]:
    try:
        bucket, ledger = environment.stores
        return next(status(ledger, bucket, environment.settings, day, day, now=environment.clock()))
    except ExpectedError as error:  # does not keep the other dates from being archived
        return {"verdict": Verdict.unknown, "sentence": f"It is unknown what {day} holds: {error}"}


def _what_is_stored(environment: Environment, day: date, run_id: str) -> str:
    count = stored_by(environment, run_id, day)
    if count is None:
        return f"Stopped: what the run of {day} has stored is kept, and nothing is lost."
    return f"Stopped after the run of {day} had stored {number(count, 'recording')}; nothing is lost."
