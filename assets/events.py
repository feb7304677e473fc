"""The End Call Events that a receiver stored: rows of their date, minutes before any report has them."""

from datetime import date

import dagster as dg

from assets.presentation import column_schema, counted, table, without_zeros
from pipelines.ledger.schema import ROW_SCHEMA
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import EnvironmentParam, LedgerStore, SourceParam
from pipelines.ringcx.reports.columns import EVENTS
from pipelines.steps.pull.events import take_events
from pipelines.wording import number


@dg.asset(group_name="reports", kinds={"ringcx", "parquet"}, metadata=column_schema(ROW_SCHEMA))
def end_call_events(
    context: dg.AssetExecutionContext, environment: EnvironmentParam, source: SourceParam, ledger: LedgerStore
) -> dg.MaterializeResult[None]:
    """End Call Events: what RingCX sent about each call 1 to 3 seconds after it ended, with the link to its **mono**
    recording (`recording_url`).

    Every event of the date that the receiver stored and no run has taken yet becomes a row of the ledger. Events may be
    lost on their way, so they never make a date complete: the reports do.
    """
    with as_permanent_failure():
        day, settings, states = date.fromisoformat(context.partition_key), environment.settings, ledger.open()
        accounts, now, run_id = settings.ringcx_account_ids, environment.clock(), context.run.run_id
        new_by_account, counts = take_events(
            states, source.events, day, accounts=accounts, zone=settings.events_zone, now=now, run_id=run_id
        )
    names = {"new": "events_new", "changed": "events_changed", "known": "events_known"}
    names |= {"of other accounts": "events_of_other_accounts", "damaged": "damaged_lines"}
    what = counted({says: counts[name] for says, name in names.items()}, "nothing new")
    return dg.MaterializeResult(
        metadata={
            "summary": f"{number(counts['events_read'], 'event')} read for {day} from "
            f"{number(counts['files_read'], 'file')}; {what}. Only the reports show whether an event is missing.",
            "dagster/partition_row_count": counts.pop("events_of_date"),
            "dagster/uri": states.uri("report_rows", day, EVENTS),
            **{name: counts[name] for name in ("events_read", "events_with_link", "events_new")},
            **without_zeros(counts),
            "by_account": table(("account", "new"), sorted(new_by_account.items())),
        }
    )
