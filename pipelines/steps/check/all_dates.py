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
    "recordings {retention} after the call. Archive these before anything else.",
    "overdue": "is late|are late|: the time of the next attempt has passed and no run came; is the daemon running?",
    "stuck": "has been requested|have been requested| for longer than ARCHIVE_GIVE_UP_DAYS without a final answer.",
    "lost": "is lost|are lost| (`missing`, `rejected` or `denied`); judging by date, the source should still have "
    "{retrievable}: fix the cause and run `recordings` of the date with `retry_final: true`.",
    "dates_not_pulled": "date since the archive began was|dates since the archive began were| never fully pulled, "
    "or had a report without rows: start with {gap}.",
    "strange_files": "file in the ledger is not a part of it|files in the ledger are not parts of it|; such files are "
    "not counted. See the table `strange_files`, and move each file out of the ledger or back into place.",
}


def no_overdue_recordings(
    ledger: Ledger, settings: PlanSettings, *, busy: Collection[date], now: datetime
) -> CheckResult:
    """Check what is missing now. `busy`: the dates of unfinished runs, where recordings may be late.

    `error`: recordings late, stuck or about to be purged, or lost while the source still has them. `warning`: lost for
    good, or dates that were not pulled.
    """
    damaged: list[str] = []
    columns = [*COLUMNS, "started_at"]

    held: list[tuple[int, int]] = []  # the recordings and bytes of each date: read anyway, so their sum costs nothing

    def missing_of(day: date) -> pa.Table:
        known = RecordingsTable.of(ledger.current([day]))
        held.append((known.held.num_rows, pc.sum(known.held["size"]).as_py() or 0))
        accepted = pc.is_in(known.rest["recording_id"], value_set=pa.array(accepted_losses(ledger, known), pa.string()))
        return known.rest.select(columns).append_column("is_accepted", accepted)

    tables = [STATE_SCHEMA.empty_table().select(columns).append_column("is_accepted", pa.array([], pa.bool_()))]
    for _, read in map_readable(missing_of, ledger.recording_days()):
        if isinstance(read, LedgerDamaged):
            damaged.append(str(read))
        else:
            tables.append(read)
    missing = pa.concat_tables(tables).to_pandas()
    accepted, missing = missing["is_accepted"].sum(), missing[~missing["is_accepted"]]
    gaps = _never_pulled(ledger, settings, now, damaged)
    strange = sorted(ledger.parts.strange().items())
    is_pending = missing["status"] == Status.pending
    pending, lost = missing[is_pending].sort_values(["date", "recording_id"]), missing[~is_pending]
    today = local_day(now, settings.zone)
    dates = pending[["date", "found_on"]]
    born = pending["started_at"].fillna(pd.to_datetime(pending["date"], utc=True))
    has_partition = (dates >= settings.archive_start_date) & (dates <= today)
    pending["without_partition"] = ~has_partition.any(axis="columns")
    kept_for = timedelta(days=settings.ringcx_retention_days - settings.ringcx_retention_margin_days)
    pending["at_risk"] = born < now - kept_for
    pending["overdue"] = is_overdue(pending, now) & ~dates.isin(list(busy)).any(axis="columns")
    pending["stuck"] = is_stuck(pending, timedelta(days=settings.archive_give_up_days), now)
    retrievable = int((lost["date"] > today - timedelta(days=settings.ringcx_retention_days)).sum())
    counts = {
        "missing_now": len(missing),
        "pending": len(pending),
        **{problem: int(pending[problem].sum()) for problem in _PROBLEMS},
        "lost": len(lost),
        "lost_within_retention": retrievable,
        "accepted_losses": int(accepted),
        "dates_not_pulled": len(gaps),
        "dates_with_something_missing": missing["date"].nunique(),
        "dates_damaged": len(damaged),
        "strange_files": len(strange),
    }
    level = Level.ok
    if damaged or retrievable or any(counts[problem] for problem in _PROBLEMS):
        level = Level.error
    elif len(lost) or gaps or strange:
        level = Level.warning
    # A recording is shown with the first of its problems; of the lost the newest, for which something can be done.
    named = [pending[pending[problem]].assign(matter=problem) for problem in _PROBLEMS]
    named.append(lost.sort_values("date", ascending=False, kind="stable").assign(matter="lost"))
    by_reason = missing.fillna({"reason": "new"}).groupby(["status", "reason"]).size().reset_index(name="recordings")
    earliest = pending["date"][pending["without_partition"]].min()
    return CheckResult(
        level=level,
        sentence=_sentence(counts, settings, gaps[0] if gaps else None, earliest),
        counts=counts,
        tables={"by_reason": by_reason.rename(columns={"status": "state"})},
        lists={
            "sample": examples(pd.concat(named).drop_duplicates("recording_id")),
            "not_pulled": pd.DataFrame({"date": [day.isoformat() for day in gaps[:LISTED]]}),
            "strange_files": pd.DataFrame(strange[:LISTED], columns=["file", "why"]),
            "damaged": pd.DataFrame({"problem": damaged[:LISTED]}),
        },
        totals={}
        if damaged or strange
        else {
            "recordings_held_in_all": sum(recordings for recordings, _ in held),
            "gb_held_in_all": round(sum(size for _, size in held) / 1e9, 3),
        },
    )


def _never_pulled(ledger: Ledger, settings: PlanSettings, now: datetime, damaged: list[str]) -> list[date]:
    """Return the dates since the first one archived, within the retention, for which no source was pulled whole or a
    report came empty; add those whose pulls are damaged to `damaged`.
    """
    begun = [days[0] for report in REPORTS if (days := ledger.row_days(report))]
    if not begun:
        return []
    last = local_day(now - _PULLED_WITHIN, settings.zone) - _ONE_DAY
    oldest = local_day(now, settings.zone) - timedelta(days=settings.ringcx_retention_days)
    first = max(min(begun), oldest, settings.archive_start_date)

    def is_gap(day: date) -> bool:
        pulls = pulls_of(ledger, day)
        return bool(unpulled(pulls, day, settings) or empty_reports(ledger, day, pulls, settings, now=now))

    read = list(map_readable(is_gap, dates_between(first, last)))
    damaged += [str(error) for _, error in read if isinstance(error, LedgerDamaged)]
    return [day for day, gap in read if gap is True]


def _sentence(counts: Mapping[str, int], settings: PlanSettings, gap: date | None, earliest: date) -> str:
    sentences = problem_sentences(
        _SENTENCES,
        counts,
        start=settings.archive_start_date,
        earliest=earliest,
        margin=number(settings.ringcx_retention_margin_days, "day"),
        retention=number(settings.ringcx_retention_days, "day"),
        retrievable=counts["lost_within_retention"],
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
