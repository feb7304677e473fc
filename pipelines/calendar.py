"""Local days and UTC instants. Arithmetic is in UTC, because a local day has 23, 24 or 25 hours."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

FIRST_DAY = date(2000, 1, 1)
"""The first valid date; an earlier one counts as a mistake: arithmetic near the calendar's ends overflows."""


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants (UTC) at which the local `day` begins and at which the next one begins."""
    return _midnight(day, zone), _midnight(day + timedelta(days=1), zone)


def local_day(instant: datetime, zone: ZoneInfo) -> date:
    """Return the local day on which an aware `instant` falls."""
    return instant.astimezone(zone).date()


def dates_between(first: date, last: date) -> list[date]:
    """Return the dates from `first` to `last`, both included."""
    return [first + timedelta(days=after) for after in range((last - first).days + 1)]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # fold=0: where midnight happens twice the day begins at the first one; where it is skipped, at the jump.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
