"""The dates that exist as partitions, and the tag with the date of a run."""

import dagster as dg

from pipelines.settings import Calendar

PARTITION_TAG = "dagster/partition"


def daily_partitions(calendar: Calendar) -> dg.DailyPartitionsDefinition:
    """Return one partition for each local day since `ARCHIVE_START_DATE`; `end_offset=1` includes today."""
    return dg.DailyPartitionsDefinition(
        start_date=calendar.archive_start_date.isoformat(), timezone=calendar.archive_timezone, end_offset=1
    )
