"""The table in which people look for a call. It holds personal data, so none of it is shown here."""

from datetime import date

import dagster as dg
import pyarrow.compute as pc

from assets.presentation import calls_page, column_schema, stored_at, without_zeros
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveParam, EnvironmentParam, LedgerParam
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, days_to_write, summary, write_calls


@dg.asset(
    deps=["daily_manifest"],
    group_name="search",
    kinds={"s3", "parquet"},
    metadata=column_schema(CALLS_FILE_SCHEMA),
    description=(
        "The table in which people look for a call: a row for each recording dated this day and for each call without "
        "one, with numbers, agent, queue, state and manifest. **Holds personal data.**"
    ),
)
def calls(
    context: dg.AssetExecutionContext, environment: EnvironmentParam, ledger: LedgerParam, archive: ArchiveParam
) -> dg.MaterializeResult[None]:
    """Write the calls of the date, and of the dates next to it that calls over midnight belong to as well."""
    day = date.fromisoformat(context.partition_key)
    with as_permanent_failure():
        states, parts, bucket, settings = ledger.open(), ledger.parts(), archive.bucket, environment.settings
        days = days_to_write(states, bucket, day)
        stored = {other: write_calls(states, parts, bucket, other, settings=settings) for other in days}
    of_day = stored[day]
    written = [str(other) for other, file in stored.items() if other != day and not file.unchanged]
    return dg.MaterializeResult(
        metadata={
            "summary": f"{day}: {summary(of_day.table)}",
            "dagster/partition_row_count": of_day.table.num_rows,
            **without_zeros({"recordings": pc.count(of_day.table["recording_id"]).as_py()}),
            "is_new": not of_day.unchanged,
            "other_dates_written": ", ".join(written) or "none",
            **stored_at(bucket, "calls", of_day.key),
            **calls_page(settings, day),
        }
    )
