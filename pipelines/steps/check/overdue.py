"""What is missing now, over all dates, and what the source will purge before it is held.

Reads every date, once a day: nothing is remembered from one look to the next, so nothing can be remembered wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

from pipelines.calendar import local_day
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.schema import states_from
from pipelines.ledger.states import RecordingState, RetryRules
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import REPORTS, ReportName
from pipelines.steps.check.completeness import overdue, stuck
from pipelines.steps.check.findings import SAMPLE, Finding, Level, Row, Table, examples
from pipelines.steps.link.recordings_table import Recordings
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import Unpulled, unpulled
from pipelines.wording import number

_T = TypeVar("_T")
_READERS = 8
# The night's run takes yesterday at 04:30; before noon it may still be at it.
PULLED_WITHIN = timedelta(hours=12)
_ONE_DAY = timedelta(days=1)
_WERE = "dates since the archive began were"
_ARE_NO_PARTS = "files in the ledger are not parts of it"
_BUCKETS = (0, 7, 14, 30, 60)


@dataclass(frozen=True, slots=True)
class _Date:
    """What of one date is not held: by state and reason, the pending ones, and examples of those that are lost."""

    reasons: Mapping[tuple[str, str], int]
    pending: Sequence[RecordingState]
    lost: Sequence[RecordingState]

    @classmethod
    def of(cls, ledger: Ledger, day: date) -> _Date:
        known = Recordings.of(ledger.current([day]))
        reasons = {(one["status"], one["reason"] or "new"): one["recordings"] for one in known.reasons().to_pylist()}
        return cls(reasons, states_from(known.pending()), states_from(known.final().slice(0, SAMPLE)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the check of all dates needs in addition to the ledger."""

    accounts: Sequence[str]
    reports: Sequence[ReportName]
    zone: ZoneInfo
    start: date
    rules: RetryRules
    retention_days: int
    margin_days: int


def no_overdue_recordings(
    ledger: Ledger, parts: LedgerParts, standing: Standing, *, busy: Collection[date], now: datetime
) -> Finding:
    """Say what is missing now. `busy`: the dates that an unfinished run works on, where being late is no fault.

    `bad`: recordings late, stuck or about to be purged, or lost while the source still has them. `doubtful`: lost for
    good, or dates that nobody pulled.
    """
    damaged: list[str] = []
    dates = dict(_readable(partial(_Date.of, ledger), ledger.recording_days(), damaged))
    gaps = _never_pulled(ledger, standing, now, damaged)
    strange = sorted(parts.strange().items())
    pending = sorted(
        (state for found in dates.values() for state in found.pending), key=lambda one: (one.date, one.recording_id)
    )
    today = local_day(now, standing.zone)
    astray = [one for one in pending if not any(standing.start <= day <= today for day in (one.date, one.found_on))]
    late = [one for one in pending if overdue(one, now) and not {one.date, one.found_on} & set(busy)]
    hung = [one for one in pending if stuck(one, standing.rules, now)]
    left = {one.recording_id: _days_left(one, standing.retention_days, now) for one in pending}
    risky = [one for one in pending if left[one.recording_id] < standing.margin_days]
    lost = {day: count for day, found in dates.items() if (count := sum(found.reasons.values()) - len(found.pending))}
    reasons = sum((Counter(found.reasons) for found in dates.values()), Counter[tuple[str, str]]())
    by_reason: list[Row] = [(*found, count) for found, count in sorted(reasons.items())]
    horizon = today - timedelta(days=standing.retention_days)
    retrievable = sum(count for day, count in lost.items() if day > horizon)
    counts = {
        "missing_now": reasons.total(),
        "pending": len(pending),
        "overdue": len(late),
        "stuck": len(hung),
        "without_partition": len(astray),
        "at_risk": len(risky),
        "lost": sum(lost.values()),
        "lost_within_retention": retrievable,
        "dates_not_pulled": len(gaps),
        "dates_with_something_missing": sum(bool(found.reasons) for found in dates.values()),
        "dates_damaged": len(damaged),
        "strange_files": len(strange),
    }
    level = Level.good
    if late or hung or risky or retrievable or astray or damaged:
        level = Level.bad
    elif lost or gaps or strange:
        level = Level.doubtful
    matters: dict[str, tuple[str, RecordingState]] = {}
    for matter, members in (("without_partition", astray), ("at_risk", risky), ("overdue", late), ("stuck", hung)):
        for one in members:
            matters.setdefault(one.recording_id, (matter, one))
    sample = list(matters.values())[:SAMPLE]
    # Of the newest dates, where something can still be done.
    sample += [("lost", one) for day in sorted(lost, reverse=True) for one in dates[day].lost][: SAMPLE - len(sample)]
    return Finding(
        level=level,
        sentence=_sentence(counts, standing, gaps, min((one.date for one in astray), default=None)),
        counts=counts,
        tables={
            **({"by_reason": Table(("state", "reason", "recordings"), by_reason)} if reasons else {}),
            **({"by_days_left": _by_days_left(list(left.values()), standing)} if left else {}),
            **({"sample": examples(sample)} if sample else {}),
            **({"not_pulled": Table(("date",), [(day.isoformat(),) for day in gaps[:SAMPLE]])} if gaps else {}),
            **({"strange_files": Table(("file", "why"), strange[:SAMPLE])} if strange else {}),
            **({"damaged": Table(("problem",), [(one,) for one in damaged[:SAMPLE]])} if damaged else {}),
        },
    )


def _readable(read: Callable[[date], _T], days: Iterable[date], damaged: list[str]) -> Iterator[tuple[date, _T]]:
    """Yield what `read` makes of each date; a damaged one is added to `damaged` and keeps no other from being read."""

    def tried(day: date) -> _T | LedgerDamaged:
        try:
            return read(day)
        except LedgerDamaged as error:
            return error

    for day, made in map_in_order(tried, days, threads=_READERS):
        if isinstance(made, LedgerDamaged):
            damaged.append(str(made))
        else:
            yield day, made


def _never_pulled(ledger: Ledger, standing: Standing, now: datetime, damaged: list[str]) -> list[date]:
    """Return the dates since the first one archived, within the retention, of which no source was pulled whole; those
    whose record of pulls is damaged are added to `damaged`.
    """
    begun = [days[0] for report in REPORTS if (days := ledger.row_days(report))]
    if not begun:
        return []
    last = local_day(now - PULLED_WITHIN, standing.zone) - _ONE_DAY
    oldest = local_day(now, standing.zone) - timedelta(days=standing.retention_days)
    first = max(min(begun), oldest, standing.start)

    def gaps(day: date) -> list[Unpulled]:
        return unpulled(ledger, day, standing.accounts, standing.zone, standing.reports)

    dates = (first + after * _ONE_DAY for after in range((last - first).days + 1))
    return [day for day, found in _readable(gaps, dates, damaged) if found]


def _days_left(state: RecordingState, retention_days: int, now: datetime) -> float:
    """Days until the source purges the recording, counted from its start, else from the beginning of its date."""
    born = state.started_at or datetime.combine(state.date, time(), UTC)
    return retention_days - (now - born) / _ONE_DAY


def _by_days_left(left: Sequence[float], standing: Standing) -> Table:
    """How many pending recordings have so many days left; the margin is one of the steps."""
    edges = sorted({*(edge for edge in _BUCKETS if edge < standing.retention_days), standing.margin_days})
    rows: list[Row] = [
        ("purged already" if edges[0] == 0 else f"under {edges[0]}", sum(one < edges[0] for one in left))
    ]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        name = f"{low} and more" if high is None else f"{low} to {high}"
        rows.append((name, sum(low <= one and (high is None or one < high) for one in left)))
    return Table(("days_left", "pending_recordings"), rows)


def _sentence(counts: dict[str, int], standing: Standing, gaps: Sequence[date], astray: date | None) -> str:
    def told(name: str, one: str, more: str | None = None) -> str:
        return number(counts[name], one, more)

    said = {
        "dates_damaged": f"The ledger cannot be read for {told('dates_damaged', 'date')}, so their recordings are not "
        "counted here: the table `damaged` names each part and what to do.",
        "without_partition": f"{told('without_partition', 'pending recording has', 'pending recordings have')} a date "
        f"that has no partition (before ARCHIVE_START_DATE={standing.start} or in the future), the earliest {astray}, "
        "so no run fetches them: set ARCHIVE_START_DATE to their date or earlier.",
        "at_risk": f"{told('at_risk', 'pending recording has', 'pending recordings have')} less than "
        f"{number(standing.margin_days, 'day')} left: the source purges {number(standing.retention_days, 'day')} "
        "after the call. Deal with these first.",
        "overdue": f"{told('overdue', 'is late', 'are late')}: the time of the next attempt has passed and no run "
        "came; is the daemon running?",
        "stuck": f"{told('stuck', 'was asked', 'were asked')} for longer than ARCHIVE_GIVE_UP_DAYS without a deciding "
        "answer.",
        "lost": f"{told('lost', 'is lost', 'are lost')} (`missing`, `rejected` or `denied`); by date the source should "
        f"still have {counts['lost_within_retention']}: fix the cause and run `recordings` of the date with "
        "`retry_final: true`.",
        "dates_not_pulled": f"{told('dates_not_pulled', 'date since the archive began was', _WERE)} never pulled "
        f"whole: run what is missing, {min(gaps, default=None)} first.",
        "strange_files": f"{told('strange_files', 'file in the ledger is not a part of it', _ARE_NO_PARTS)}, so what "
        "they hold is not counted: the table `strange_files` names them. Move them out of the ledger, or back into "
        "place.",
    }
    sentences = [sentence for name, sentence in said.items() if counts[name]]
    if counts["missing_now"] and sentences:
        return " ".join([f"{told('missing_now', 'recording is', 'recordings are')} not archived now.", *sentences])
    if counts["missing_now"]:
        young = told("pending", "recording is young and waits for its", "recordings are young and wait for their")
        return f"Nothing is late or lost: {young} next attempt."
    return " ".join(sentences) or "Nothing is missing: every recording known on any date is archived."
