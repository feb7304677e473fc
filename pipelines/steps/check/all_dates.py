"""The check over all dates: what is missing now, and what the source will purge before it is held.

It reads every date once a day and keeps no state between checks, so no state can be wrong.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.calendar import dates_between, local_day
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.schema import STATE_SCHEMA
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import REPORTS
from pipelines.settings import PlanSettings
from pipelines.steps.check.report_agreement import empty_reports
from pipelines.steps.check.result import LISTED, CheckResult, Level, examples, problem_sentences
from pipelines.steps.check.verdict import COLUMNS, accepted_losses, is_overdue, is_stuck
from pipelines.steps.link.recordings_table import RecordingsTable
from pipelines.steps.parallel import map_readable
from pipelines.steps.pull.coverage import pulls_of, unpulled
from pipelines.wording import number

# The nightly run archives yesterday from 04:30; before noon it may still be running.
_PULLED_WITHIN = timedelta(hours=12)
_ONE_DAY = timedelta(days=1)
_PROBLEMS = ("without_partition", "at_risk", "overdue", "stuck")

# Count -> what one of them does | what others do | what it means, or what to do.
_SENTENCES = {
    "dates_damaged": "date of the ledger cannot be read|dates of the ledger cannot be read|; recordings on unreadable "
    "dates are not counted here: the table `damaged` names each part and says what to do.",
    "without_partition": "pending recording has|pending recordings have| a date without a partition (before "
    "ARCHIVE_START_DATE={start} or in the future); no run can fetch recordings of such dates (the earliest is "
    "{earliest}): set ARCHIVE_START_DATE to that date or earlier.",
    "at_risk": "pending recording has|pending recordings have| less than {margin} left: the source purges "
    "recordings {retention} after the call. Run their dates before anything else.",
    "overdue": "is overdue|are overdue|: the next attempt was due and no run came; is the daemon running?",
    "stuck": "has been requested|have been requested| for longer than ARCHIVE_GIVE_UP_DAYS without a final answer.",
    "lost": "is lost|are lost| (`missing`, `rejected` or `denied`); a permanent loss can be accepted with the job "
    "`accept_losses`.",
    "lost_within_retention": "lost recording should still be in the source, judging by its date|lost recordings should "
    "still be in the source, judging by their dates|: fix the cause and run `recordings` of the date with "
    "`retry_final: true`.",
    "dates_not_pulled": "date since the archive began was|dates since the archive began were| never fully pulled, "
    "or had a report that came empty although there were calls: start with {gap}.",
    "strange_files": "file in the ledger is not a part of it|files in the ledger are not parts of it|; such files are "
    "not counted. See the table `strange_files`, and move each file out of the ledger or back into place.",
}


def no_overdue_recordings(
    ledger: Ledger, settings: PlanSettings, *, busy: Collection[date], now: datetime
) -> CheckResult:
    """Check what is missing now. `busy`: the dates of unfinished runs, where recordings may be overdue.

    `error`: recordings late or about to be purged, or lost while the source still has them. `warning`: lost for
    good, or dates that were not pulled.
    """
    not_held, totals, damaged = _recordings(ledger)
    missing = not_held[~not_held["is_accepted"]]
    is_pending = missing["status"] == Status.pending
    pending = _with_problems(missing[is_pending].sort_values(["date", "recording_id"]), settings, busy, now)
    lost = missing[~is_pending]
    gaps, damaged_pulls = _never_pulled(ledger, settings, now)
    damaged += damaged_pulls
    strange = sorted(ledger.parts.strange())
    oldest_retained = local_day(now, settings.zone) - timedelta(days=settings.ringcx_retention_days)
    counts = {
        "missing_now": len(missing),
        "pending": len(pending),
        **{problem: int(pending[problem].sum()) for problem in _PROBLEMS},
        "lost": len(lost),
        "lost_within_retention": int((lost["date"] > oldest_retained).sum()),
        "accepted_losses": len(not_held) - len(missing),
        "dates_not_pulled": len(gaps),
        "dates_with_something_missing": missing["date"].nunique(),
        "dates_damaged": len(damaged),
        "strange_files": len(strange),
    }
    by_reason = missing.fillna({"reason": "new"}).groupby(["status", "reason"]).size().reset_index(name="recordings")
    earliest = pending["date"][pending["without_partition"]].min()
    return CheckResult(
        level=_level(counts),
        sentence=_sentence(counts, settings, gaps[0] if gaps else None, earliest),
        counts=counts,
        tables={"by_reason": by_reason.rename(columns={"status": "state"})},
        lists={
            "sample": _sample(pending, lost),
            "not_pulled": pd.DataFrame({"date": [day.isoformat() for day in gaps[:LISTED]]}),
            "strange_files": pd.DataFrame({"file": strange[:LISTED]}),
            "damaged": pd.DataFrame({"problem": damaged[:LISTED]}),
        },
        totals={} if damaged or strange else totals,
    )


def _recordings(ledger: Ledger) -> tuple[pd.DataFrame, dict[str, float], list[str]]:
    """Return a row for each recording that is not archived, the totals of the others, and the damage in words."""
    columns = [*COLUMNS, "started_at"]

    def read(day: date) -> tuple[pa.Table, int, int]:
        known = RecordingsTable.of(ledger.current([day]))
        accepted = pc.is_in(known.rest["recording_id"], value_set=pa.array(accepted_losses(ledger, known), pa.string()))
        missing = known.rest.select(columns).append_column("is_accepted", accepted)
        return missing, known.archived.num_rows, pc.sum(known.archived["size"]).as_py() or 0

    tables = [STATE_SCHEMA.empty_table().select(columns).append_column("is_accepted", pa.array([], pa.bool_()))]
    held = held_bytes = 0
    damaged: list[str] = []
    for _, of_day in map_readable(read, ledger.days("recording_states")):
        if isinstance(of_day, LedgerDamaged):
            damaged.append(str(of_day))
            continue
        missing_of_day, recordings, size = of_day
        tables.append(missing_of_day)
        held += recordings
        held_bytes += size
    totals = {"recordings_held_in_all": held, "gb_held_in_all": round(held_bytes / 1e9, 3)}
    return pa.concat_tables(tables).to_pandas(), totals, damaged


def _with_problems(
    pending: pd.DataFrame, settings: PlanSettings, busy: Collection[date], now: datetime
) -> pd.DataFrame:
    dates = pending[["date", "found_on"]]
    has_partition = (dates >= settings.archive_start_date) & (dates <= local_day(now, settings.zone))
    started_at = pending["started_at"].fillna(pd.to_datetime(pending["date"], utc=True))
    kept_for = timedelta(days=settings.ringcx_retention_days - settings.ringcx_retention_margin_days)
    return pending.assign(
        without_partition=~has_partition.any(axis="columns"),
        at_risk=started_at < now - kept_for,
        overdue=is_overdue(pending, now) & ~dates.isin(list(busy)).any(axis="columns"),
        stuck=is_stuck(pending, timedelta(days=settings.archive_give_up_days), now),
    )


def _level(counts: Mapping[str, int]) -> Level:
    if any(counts[name] for name in (*_PROBLEMS, "dates_damaged", "lost_within_retention")):
        return Level.error
    if any(counts[name] for name in ("lost", "dates_not_pulled", "strange_files")):
        return Level.warning
    return Level.ok


def _sample(pending: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """Name each recording with the first of its problems; of the lost, the newest first: they may still be found."""
    named = [pending[pending[problem]].assign(condition=problem) for problem in _PROBLEMS]
    named.append(lost.sort_values("date", ascending=False, kind="stable").assign(condition="lost"))
    return examples(pd.concat(named).drop_duplicates("recording_id"))


def _never_pulled(ledger: Ledger, settings: PlanSettings, now: datetime) -> tuple[list[date], list[str]]:
    """Return the retained dates with no source pulled whole, or an empty report, and each damage in words."""
    begun = [days[0] for report in REPORTS if (days := ledger.days("report_rows", report))]
    if not begun:
        return [], []
    last = local_day(now - _PULLED_WITHIN, settings.zone) - _ONE_DAY
    oldest = local_day(now, settings.zone) - timedelta(days=settings.ringcx_retention_days)
    first = max(min(begun), oldest, settings.archive_start_date)

    def is_gap(day: date) -> bool:
        pulls = pulls_of(ledger, day)
        return bool(unpulled(pulls, day, settings) or empty_reports(ledger, day, pulls, settings, now=now))

    gaps: list[date] = []
    damaged: list[str] = []
    for day, found in map_readable(is_gap, dates_between(first, last)):
        if isinstance(found, LedgerDamaged):
            damaged.append(str(found))
        elif found:
            gaps.append(day)
    return gaps, damaged


def _sentence(counts: Mapping[str, int], settings: PlanSettings, gap: date | None, earliest: date) -> str:
    sentences = problem_sentences(
        _SENTENCES,
        counts,
        start=settings.archive_start_date,
        earliest=earliest,
        margin=number(settings.ringcx_retention_margin_days, "day"),
        retention=number(settings.ringcx_retention_days, "day"),
        gap=gap,
    )
    if counts["missing_now"] and sentences:
        sentences.insert(0, f"{number(counts['missing_now'], 'recording is', 'recordings are')} not archived now.")
    elif counts["missing_now"]:
        young = "recording is young and waits for its", "recordings are young and wait for their"
        sentences.append(f"Nothing is late or lost: {number(counts['pending'], *young)} next attempt.")
    if accepted := counts["accepted_losses"]:
        sentences.append(f"{number(accepted, 'loss was', 'losses were')} accepted.")
    return " ".join(sentences) or "Nothing is missing: every recording known on any date is archived."
