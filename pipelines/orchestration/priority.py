"""The order of dates, at the limiter and in Dagster's queue: today, then the look-back, then the oldest date."""

from datetime import date

from pipelines.settings import Calendar

PRIORITY_TAG = "dagster/priority"
OLDER_TAG = "archive/older_date"  # on our own runs of dates before the look-back
_FIRST = 0
_OLDER = 1_000  # after every date of the look-back, which has 366 at most


def of_requests(day: date | None, today: date, calendar: Calendar) -> int:
    """Return the priority of the requests of a run of `day`, lower first; requests without a date come first."""
    if day is None:
        return _FIRST
    back = (today - day).days
    if back <= calendar.archive_look_back_days + 1:  # today, or a date of the nightly run
        return max(_FIRST, back)
    return _OLDER + day.toordinal()  # oldest first: what the source purges next


def run_tags(day: date, today: date, calendar: Calendar) -> dict[str, str]:
    """Return the tags of a run of `day` that a schedule or a sensor requests."""
    back = (today - day).days
    if back <= calendar.archive_look_back_days + 1:
        # Above 0, the priority of all other runs, such as a backfill's.
        return {PRIORITY_TAG: str(calendar.archive_look_back_days + 2 - max(0, back))}
    return {OLDER_TAG: "true"}
