"""Which dates there are, and the tag by which a run names its own."""

import dagster as dg

from pipelines.settings import Calendar

PARTITION_TAG = "dagster/partition"


def daily_partitions(calendar: Calendar) -> dg.DailyPartitionsDefinition:
    """Return one partition for each local day from `ARCHIVE_START_DATE` on; `end_offset=1` includes today."""
    return dg.DailyPartitionsDefinition(
        start_date=calendar.archive_start_date.isoformat(), timezone=calendar.archive_timezone, end_offset=1
    )
