"""The reports: their rows list the recordings that should exist."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from assets.presentation import column_schema, counted, table, without_zeros
from pipelines.calendar import day_bounds
from pipelines.ledger.schema import ROW_SCHEMA, PullRecord
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import EnvironmentParam, LedgerStore, SourceParam
from pipelines.ringcx.reports.columns import INTERACTIONS, ReportName
from pipelines.steps.pull import windows
from pipelines.steps.pull.reports import SETTLING, pull_each, pull_report, settled_period
from pipelines.wording import number

_ODDITIES = ("cap_suspected", "flags_unknown", "lines_skipped", "of_another_time")
_KINDS, _COLUMNS = {"ringcx", "parquet"}, column_schema(ROW_SCHEMA)
_SUMS = ("rows", "new", "changed", "unchanged", "vanished", "with_link", *_ODDITIES)


class WindowConfig(dg.Config):
    """Options for a single run in the launchpad."""

    ask_for_every_window: bool = Field(
        default=False,
        description="Request every window of the date, including those that an unfinished run has already pulled.",
    )


def _legacy_report(report: ReportName, text: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=report, group_name="reports", kinds=_KINDS, metadata=_COLUMNS, pool="ringcx_reports", description=text
    )
    def pull_accounts(
        context: dg.AssetExecutionContext, environment: EnvironmentParam, source: SourceParam, ledger: LedgerStore
    ) -> dg.MaterializeResult[None]:
        with as_permanent_failure():
            pull = partial(pull_report, report=report, source=source.reports)
            return _pulled(context, environment, ledger, report, SETTLING, pull)

    return pull_accounts


agent_segment_metadata = _legacy_report(
    "agent_segment_metadata",
    "Agent Segment Metadata report: a row for each agent leg of a call, inbound and outbound, with the link to its "
    "**stereo** recording (`Segment Recording URL`). New and changed rows are appended to the ledger.",
)
global_call_type_detail = _legacy_report(
    "global_call_type_detail",
    "Global Call Type Detail report: a row for each queue or agent that a call reached, with the link to the call's "
    "**mono** recording (`recording_url`). New and changed rows are appended to the ledger.",
)


# A pool of its own: a step that waits a quarter of an hour for a permit must not keep the reports waiting.
@dg.asset(group_name="reports", kinds=_KINDS, metadata=_COLUMNS, pool="ringcx_metadata")
def interaction_metadata(
    context: dg.AssetExecutionContext,
    config: WindowConfig,
    environment: EnvironmentParam,
    source: SourceParam,
    ledger: LedgerStore,
) -> dg.MaterializeResult[None]:
    """Interaction metadata of the current API: a row for each segment of a call or message, requested in windows of
    `RINGCX_METADATA_WINDOW`. A segment's recording (`hasRecording`) is fetched by dialog and segment.

    New and changed rows are appended to the ledger, window by window; a run that continues a killed one does not
    request its finished windows again.
    """
    with as_permanent_failure():
        window_s, afresh = environment.settings.ringcx_metadata_window, config.ask_for_every_window
        of_windows = partial(windows.WindowedPull, window_s=window_s, source=source.interactions, afresh=afresh)

        def pull(account_id: str, **of_date: Any) -> PullRecord:  # noqa: ANN401 - whatever each pull needs
            return of_windows(account_id=account_id, **of_date).run()

        return _pulled(context, environment, ledger, INTERACTIONS, windows.SETTLING, pull)


def _pulled(  # noqa: PLR0917 - what it touches
    context: dg.AssetExecutionContext,
    environment: Environment,
    ledger: LedgerStore,
    report: ReportName,
    settling: timedelta,
    pull: Callable[..., PullRecord],
) -> dg.MaterializeResult[None]:
    day, settings = date.fromisoformat(context.partition_key), environment.settings
    start, end = day_bounds(day, settings.zone)
    period = settled_period((start, end), environment.clock(), day, settling)
    states, run_id, clock = ledger.open(), context.run.run_id, environment.clock
    pull_account = partial(pull, day=day, period=period, ledger=states, run_id=run_id, clock=clock, log=context.log)
    pulls = pull_each(report, day, settings.ringcx_account_ids, pull_account)
    whole_day = period.end == end
    how_far = "whole day"
    if not whole_day:
        how_far = f"only up to {pulls[0].period_end:%Y-%m-%d %H:%M} UTC, as the day was not over (run the date again)"
    sums = {name: sum(getattr(pull, name) or 0 for pull in pulls) for name in _SUMS}
    what = counted({name: sums[name] for name in ("new", "changed")}, "none new or changed")
    rows, accounts = number(sums["rows"], "row"), number(len(pulls), "account")
    by_account = [(pull.account_id, pull.rows, pull.new, pull.with_link) for pull in pulls]
    return dg.MaterializeResult(
        metadata={
            "summary": f"{rows} pulled for {day} from {accounts}, {how_far}; {what}.",
            "dagster/partition_row_count": sums["rows"],
            "dagster/uri": states.uri("report_rows", day, report),
            **_row_counts(sums, max(pull.largest_window or 0 for pull in pulls)),
            "period": f"{pulls[0].period_start:%Y-%m-%d %H:%M:%S} to {pulls[0].period_end:%Y-%m-%d %H:%M:%S} UTC",
            "whole_day": dg.MetadataValue.bool(whole_day),
            "by_account": table(("account", "rows", "new", "with_link"), by_account),
        }
    )


def _row_counts(sums: Mapping[str, int], largest_window: int) -> dict[str, int]:
    counts = {f"rows_{name}": sums[name] for name in ("changed", "unchanged", "vanished")}
    counts |= {"rows_without_link": sums["rows"] - sums["with_link"], "largest_window": largest_window}
    always = {"rows_pulled": sums["rows"], "rows_with_link": sums["with_link"], "rows_new": sums["new"]}
    return always | without_zeros(counts | {name: sums[name] for name in _ODDITIES})
