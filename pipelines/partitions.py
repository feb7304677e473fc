"""The one partition axis of every asset: local days of `ARCHIVE_TIMEZONE`, today included."""

from dagster import DailyPartitionsDefinition

from pipelines.settings import Calendar


def daily_partitions(calendar: Calendar) -> DailyPartitionsDefinition:
    """One partition a local day from `ARCHIVE_START_DATE` on; `end_offset=1` makes today exist."""
    return DailyPartitionsDefinition(
        start_date=calendar.archive_start_date.isoformat(), timezone=calendar.archive_timezone, end_offset=1
    )
