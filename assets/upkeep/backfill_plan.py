"""The backfill plan in the UI: what a range of dates would take."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from pipelines.calendar import local_day
from pipelines.orchestration.failures import PermanentFailure, as_permanent_failure, date_in_config
from pipelines.orchestration.resources import EnvironmentParam, LedgerStore
from pipelines.steps.plan import render
from pipelines.steps.plan.estimate import make_plan


class PlanConfig(dg.Config):
    """The dates to plan; without config, all dates up to yesterday."""

    first_date: str = Field(default="", description="YYYY-MM-DD; empty: ARCHIVE_START_DATE.")
    last_date: str = Field(default="", description="YYYY-MM-DD, included; empty: yesterday.")


@dg.op
def plan_dates(
    context: dg.OpExecutionContext, config: PlanConfig, environment: EnvironmentParam, ledger: LedgerStore
) -> None:
    """Plan the dates of the config."""
    with as_permanent_failure():
        settings, now = environment.settings, environment.clock()
        yesterday = local_day(now, settings.zone) - timedelta(days=1)
        first = date_in_config("first_date", config.first_date) if config.first_date else settings.archive_start_date
        last = date_in_config("last_date", config.last_date) if config.last_date else yesterday
        if not settings.archive_start_date <= first <= last <= yesterday:
            raise PermanentFailure(
                f"No dates to plan from {first} to {last}: give dates from {settings.archive_start_date} "
                f"(ARCHIVE_START_DATE) to {yesterday}, the earlier one first."
            )
        plan = make_plan(ledger.open(), settings, first, last, now)
    context.add_output_metadata({"plan": dg.MetadataValue.md(render.text(plan)), **plan.totals})


@dg.job
def backfill_plan() -> None:
    """Show what a backfill would take, before it runs: requests and hours under the limits, recordings, GB, S3 cost,
    dates that the source purges soon, and the backfills to launch, as `ringcx-archive plan` shows them. Reads the
    ledger, changes nothing and sends nothing to RingCX. The plan is in the metadata of the run's output.
    """
    plan_dates()
