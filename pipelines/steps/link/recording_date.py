"""The date under which a recording is stored: the local day on which it starts, if a row gives a plausible one."""

import re
from collections.abc import Iterable
from contextlib import suppress
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
        self._pulled = pulled
        self._zone = zone = calendar.zone
        self._first = min(calendar.archive_start_date, pulled)
        self._last = pulled + CLOCK_SKEW
        first, _ = day_bounds(self._first, zone)
        _, last = day_bounds(self._last, zone)
        day_before, _ = day_bounds(pulled - _ONE_DAY, zone)
        _, day_after = day_bounds(pulled + _ONE_DAY, zone)
        # The near span counts first: `05/11/2026` may be in May, but its call was in November.
        self._spans = (max(first, day_before), day_after), (first, last)

    def of(self, report: ReportName, row: Cells, link: RowLink) -> tuple[date, datetime | None]:
        """Return the recording's date, and the time that decided it, if any."""
        for first, end in self._spans:
            for time in starts(report, row, link):
                if first <= time < end:
                    return local_day(time, self._zone), time
        by_path = _path_day(link.recording_id)
        if by_path and self._first <= by_path <= self._last:
            return by_path, None
        return self._pulled, None


def near(days: Iterable[date]) -> set[date]:
    """Return `days` and the dates adjacent to them: two sources may date one recording on either side of midnight."""
    return {day + step * _ONE_DAY for day in days for step in (-1, 0, 1)}


def _path_day(recording_id: str) -> date | None:
    match = _PATH_DAY.search(recording_id)
    with suppress(ValueError):
        return match and date(int(match[1]), int(match[2]), int(match[3]))
    return None
