"""The index of the table of calls, by month. A job, not an asset: it belongs to no date, and no call depends on it."""

from datetime import timedelta

import dagster as dg

from pipelines.calendar import FIRST_DAY, local_day
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveParam, EnvironmentParam
from pipelines.steps.calls.month_index import index_months
from pipelines.wording import number

_DESCRIPTION = (
    "Writes an index of each month in which a date has changed: on which dates a number, an agent, a UII or a "
    "recording occurs. With the index, a search over years reads few dates; without it, the search reads all dates "
    "and finds the same calls. Writes under `calls/` only."
)


@dg.op
def index_calls(context: dg.OpExecutionContext, environment: EnvironmentParam, archive: ArchiveParam) -> None:
    """Index the months that changed."""
    with as_permanent_failure():
        today = local_day(environment.clock(), environment.settings.zone)
        written = dict(index_months(archive.bucket, FIRST_DAY, today + timedelta(days=2)))
    sentence = f"{number(len(written), 'month')} indexed, with {number(sum(written.values()), 'date')}."
    context.add_output_metadata({"summary": sentence, "months": ", ".join(written) or "none"})


@dg.job(description=_DESCRIPTION)
def calls_index() -> None:
    """Index, and do nothing else."""
    index_calls()
