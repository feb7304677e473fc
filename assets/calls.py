"""The table in which people search for calls. The UI shows no personal data."""

from datetime import date

import dagster as dg
import pyarrow.compute as pc

from assets.presentation import calls_page, column_schema, stored_at, without_zeros
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, days_to_write, write_calls


@dg.asset(
    deps=["daily_manifest"], group_name="search", kinds={"s3", "parquet"}, metadata=column_schema(CALLS_FILE_SCHEMA)
)
def calls(
    context: dg.AssetExecutionContext, environment: EnvironmentParam, ledger: LedgerStore, archive: ArchiveStore
) -> dg.MaterializeResult[None]:
    """The table in which people search for calls: a row for each recording dated this day and for each call without
    one, with numbers, agent, queue, state and manifest. **Holds personal data.**
    """
    day = date.fromisoformat(context.partition_key)
    with as_permanent_failure():
        states, bucket, settings = ledger.open(), archive.open(), environment.settings
        days = days_to_write(states, bucket, day)  # calls over midnight belong to neighbouring dates as well
        stored = {other: write_calls(states, bucket, other, settings=settings) for other in days}
    of_day = stored[day]
    written = [str(other) for other, file in stored.items() if other != day and not file.unchanged]
    return dg.MaterializeResult(
        metadata={
            "summary": f"{day}: {of_day.summary()}",
            **without_zeros({"recordings": pc.count(of_day.table["recording_id"]).as_py()}),
            "is_new": not of_day.unchanged,
            "other_dates_written": ", ".join(written) or "none",
            **stored_at(bucket, "calls", of_day.key, of_day.table.num_rows),
            **calls_page(settings, day),
        }
    )
