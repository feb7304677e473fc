"""The backfill plan in the UI: what a range of dates would take. It only plans."""

from collections.abc import Iterator
from datetime import date, timedelta

import pandas as pd
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    Config,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    TableMetadataValue,
    multi_asset,
)
from pydantic import Field

from assets.presentation import OWNER, table
from pipelines.calendar import local_day
from pipelines.failures import PermanentFailure, told_in_a_sentence
from pipelines.jobs import BACKFILL_PLAN
from pipelines.priority import PARTITION_TAG
from pipelines.resources import Services
from pipelines.steps.planning import render
from pipelines.steps.planning.estimate import Plan, make_plan

_DESCRIPTION = (
    "What a backfill would take, before it runs: requests and hours under the limits, recordings, GB, S3 cost, dates "
    "that the source purges soon, and the backfills to launch, as `python -m pipelines.plan` says it. Reads the "
    "ledger; changes nothing and asks RingCX nothing. Belongs to no date: in a run of a date it does nothing."
)


class PlanConfig(Config):
    """Which dates to plan; without config all of them up to yesterday."""

    first_date: str = Field(default="", description="YYYY-MM-DD; empty: ARCHIVE_START_DATE.")
    last_date: str = Field(default="", description="YYYY-MM-DD, included; empty: yesterday.")


def plan_assets() -> list[AssetsDefinition]:
    """The plan."""

    # A multi-asset because only one may end without having made its asset, as this one does in a run of a date
    # (`dagster asset materialize --select '*' --partition …` selects it too).
    @multi_asset(
        name=BACKFILL_PLAN,
        specs=[
            AssetSpec(
                BACKFILL_PLAN,
                group_name="planning",
                kinds={"parquet"},
                owners=[OWNER],
                description=_DESCRIPTION,
                skippable=True,
            )
        ],
    )
    def backfill_plan(
        context: AssetExecutionContext, config: PlanConfig, services: ResourceParam[Services]
    ) -> Iterator[MaterializeResult[None]]:
        if PARTITION_TAG in context.run.tags:
            context.log.info("A plan is not part of a date's run; materialize backfill_plan by itself")
            return
        with told_in_a_sentence():
            settings, now = services.settings, services.clock()
            yesterday = local_day(now, settings.zone) - timedelta(days=1)
            first = _date("first_date", config.first_date, settings.archive_start_date)
            last = _date("last_date", config.last_date, yesterday)
            if not settings.archive_start_date <= first <= last <= yesterday:
                raise PermanentFailure(
                    f"No dates to plan from {first} to {last}: give dates from {settings.archive_start_date} "
                    f"(ARCHIVE_START_DATE) to {yesterday}, the earlier one first."
                )
            yield _materialized(make_plan(services.ledger, settings, first, last, now))

    return [backfill_plan]


def _materialized(plan: Plan) -> MaterializeResult[None]:
    return MaterializeResult(
        asset_key=BACKFILL_PLAN,
        metadata={
            "plan": MetadataValue.md(render.text(plan)),
            "by_dates": _table(render.ranges_table(plan)),
            "by_limit": _table(render.limits_table(plan)),
            "dates": len(plan.dates),
            "dates_to_run": len(plan.to_run),
            "dates_unknown": plan.unknown,
            "recordings_to_fetch": plan.to_fetch,
            "gigabytes_to_store": round(plan.to_store / 1e9, 3),
            "hours": round(plan.seconds / 3600, 2),
        },
    )


def _table(frame: pd.DataFrame) -> TableMetadataValue:
    return table(list(frame.columns), frame.values.tolist())


def _date(name: str, written: str, otherwise: date) -> date:
    if not written:
        return otherwise
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise PermanentFailure(f"{name} must be a date, written like 2026-11-18.") from None
