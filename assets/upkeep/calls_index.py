"""The job that indexes the table of calls by month."""

from datetime import timedelta

import dagster as dg

from pipelines.calendar import FIRST_DAY, local_day
from pipelines.orchestration.failures import as_permanent_failure
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam
from pipelines.steps.calls.month_index import index_months
from pipelines.wording import number


@dg.op
def index_calls(context: dg.OpExecutionContext, environment: EnvironmentParam, archive: ArchiveStore) -> None:
    """Index the months that have changed."""
    with as_permanent_failure():
        today = local_day(environment.clock(), environment.settings.zone)
        written = dict(index_months(archive.open(), FIRST_DAY, today + timedelta(days=2)))
    sentence = f"{number(len(written), 'month')} indexed, with {number(sum(written.values()), 'date')}."
    context.add_output_metadata({"summary": sentence, "months": ", ".join(written) or "none"})


@dg.job
def calls_index() -> None:
    """Write an index of each month in which a date has changed: the dates on which a number, an agent, a UII or a
    recording occurs. With the index, a search over years reads few dates; without it, the search reads all dates and
    finds the same calls. Writes under `calls/` only.
    """
    index_calls()
