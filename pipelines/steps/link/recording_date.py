"""The date under which a recording is stored: the local day on which it starts, if a row gives a plausible one."""

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from pipelines.calendar import day_bounds, local_day
from pipelines.ringcx.reports.columns import ReportName
from pipelines.settings import Calendar
from pipelines.steps.link.rows import Cells, RowLink, starts

_PATH_DAY = re.compile(r"/(\d{4})(\d{2})/(\d{2})/", re.ASCII)
# A start so long after the pulled day is an error of the row; a future partition would not be run for long. It is
# compared with the pulled day and not with the present, so that a recording has the same date in every run.
CLOCK_SKEW = timedelta(days=2)
_ONE_DAY = timedelta(days=1)


class RecordingDates:
    """The dates under which recordings are stored, decided from the rows of the day `pulled`.

    The start counts, then the time in the UII, within a day of `pulled`, or else within [ARCHIVE_START_DATE, `pulled` +
    2 days]; then the date in the file's path, if within the latter; otherwise the pulled day.
    """

    def __init__(self, pulled: date, calendar: Calendar) -> None:
        self._pulled, self._zone = pulled, (zone := calendar.zone)
        self._first, self._last = min(calendar.archive_start_date, pulled), pulled + CLOCK_SKEW
        self._bounds = day_bounds(self._first, zone)[0], day_bounds(self._last, zone)[1]
        # Most rows start within these instants, and no other field of theirs is read.
        yesterday, tomorrow = pulled - _ONE_DAY, pulled + _ONE_DAY
        self._usual = max(self._bounds[0], day_bounds(yesterday, zone)[0]), day_bounds(tomorrow, zone)[1]
        self.elsewhere: set[date] = set()

    def of(self, report: ReportName, row: Cells, link: RowLink) -> tuple[date, datetime | None]:
        """Return the recording's date, and the time that decided it, if any."""
        start = next(starts(report, row, link), None)
        if start and self._usual[0] <= start < self._usual[1]:
            return local_day(start, self._zone), start
        times = list(starts(report, row, link))
        by_path = _path_day(link.file_path)
        self.elsewhere.update(day for day in (by_path, *map(self._day, times)) if day is not None)
        for first, end in (self._usual, self._bounds):  # `05/11/2026` may be in May, but its call was in November
            for time in times:
                if first <= time < end:
                    return local_day(time, self._zone), time
        if by_path and self._first <= by_path <= self._last:
            return by_path, None
        return self._pulled, None

    def _day(self, time: datetime) -> date | None:
        try:
            return local_day(time, self._zone)
        except OverflowError:  # in the first or the last year of the calendar
            return None


def near(days: Iterable[date]) -> set[date]:
    """Return `days` and the dates adjacent to them: two sources may date one recording on either side of midnight."""
    return {day + step * _ONE_DAY for day in days for step in (-1, 0, 1)}


def _path_day(file_path: str) -> date | None:
    match = _PATH_DAY.search(f"/{file_path}")
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None
