"""Check that every recording a date's reports name is archived, or explained.

The sum must come out: found = archived + explained. A date whose reports were not pulled has nothing to add up
and is never complete. Reads the ledger, and the names and sizes of the objects; `pipelines.verify` reads the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.listing import Listed
from pipelines.calendar import day_bounds
from pipelines.ledger.states import FINAL, RecordingState, RetryRules, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.steps.check.findings import SAMPLE, Finding, Level, Row, Table, examples
from pipelines.steps.link.extract_links import days_of, linked_rows, near, shared_ids
from pipelines.steps.link.recordings_table import Known, Recordings
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import Unpulled, unpulled
from pipelines.wording import number

# The sensor looks every minute and runs wait their turn: only after this does "due" mean that nobody comes.
OVERDUE_AFTER = timedelta(minutes=15)
_ONE_DAY = timedelta(days=1)
_READERS = 8


# Count, what one of them does | what others do, what it means or what to do.
_PROBLEMS = (
    ("lost", "is lost|are lost", " (`missing`, `rejected` or `denied`; the table by_reason says why)"),
    ("conflicts", "conflicts|conflict", ": the source sends other bytes than are archived; both are kept"),
    ("overdue", "is late|are late", ": the next attempt was due and no run came; is the daemon running?"),
    ("stuck", "was asked|were asked", " for longer than ARCHIVE_GIVE_UP_DAYS without a deciding answer"),
    (
        "shared_by_calls",
        "is named|are named",
        " by the rows of several calls, which may have one recording each: look at their links",
    ),
    ("without_state", "is linked to|are linked to", " by a row but unknown: run `recording_links` again"),
    (
        "object_gone",
        "was archived and is no longer in the bucket|were archived and are no longer in the bucket",
        ": restore the object, or list the recording's id in retry_recording_ids",
    ),
    (
        "object_changed",
        "was archived and is now another object|were archived and are now other objects",
        ": run `python -m pipelines.verify --read-data`",
    ),
)


@dataclass(frozen=True, slots=True)
class DayRecordings:
    """The recordings that concern a date: dated so, found by its pull, or linked to by its rows.

    `unknown`: linked to, and without any state in the ledger. `shared`: named by rows of more than one call.
    """

    known: Recordings
    unknown: tuple[str, ...]
    shared: tuple[str, ...] = ()


def day_recordings(ledger: Ledger, day: date, *, zone: ZoneInfo, first: date) -> DayRecordings:
    """Bring together what the date's rows link to and what the ledger knows."""
    rows = linked_rows(ledger, day, zone=zone, first=first)
    linked = {recording_id for of_report in rows for recording_id in of_report.ids}
    days = days_of(ledger, rows)
    known = Known(ledger.current(days))
    if not known.ids >= _main_ids(linked, known):
        # Two reports may date one recording on either side of midnight (links.py).
        known = Known(ledger.current(near(days)))
    ours = _main_ids(linked, known)
    return DayRecordings(known.concerning(day, ours), tuple(sorted(ours - known.ids)), tuple(shared_ids(rows)))


def _main_ids(linked: Iterable[str], known: Known) -> set[str]:
    """The recordings that these ids name: itself, or the one that it is another name of."""
    return {known.names.get(key, key) for key in linked}


def overdue(state: RecordingState, now: datetime, run_id: str = "") -> bool:
    """Whether a pending recording's time has passed and nobody came; the run that attempted it itself is not late."""
    if state.status is not Status.pending or state.next_attempt_at is None or state.run_id == run_id:
        return False
    return state.next_attempt_at + OVERDUE_AFTER < now


def stuck(state: RecordingState, rules: RetryRules, now: datetime) -> bool:
    """Whether a pending recording has been asked for longer than `ARCHIVE_GIVE_UP_DAYS` without a deciding answer."""
    return state.status is Status.pending and now - state.first_seen_at > rules.give_up + _ONE_DAY


def every_link_is_held(
    ledger: Ledger,
    bucket: Bucket,
    day: date,
    *,
    accounts: Sequence[str],
    reports: Sequence[ReportName],
    zone: ZoneInfo,
    first: date,
    rules: RetryRules,
    now: datetime,
    run_id: str,
) -> Finding:
    """Add up the date: found = archived + explained. Lost, late, unknown and vanished recordings are failures."""
    gaps = unpulled(ledger, day, accounts, zone, reports)
    recordings = day_recordings(ledger, day, zone=zone, first=first)
    known = recordings.known
    matters = {key: _matter(one, rules, now, run_id) for key, one in known.others.items()}
    matters |= _not_in_bucket(bucket, known)
    by_matter = Counter(matters.values())
    by_status = known.by_status()
    not_over = now < day_bounds(day, zone)[1]
    next_at = min((one.next_attempt_at for one in known.others.values() if one.next_attempt_at), default=None)
    counts = {
        "found": len(known) + len(recordings.unknown),
        **{str(status): by_status[status] for status in Status},
        **{name: by_matter[name] for name in ("waiting", "overdue", "stuck", "lost", "object_gone", "object_changed")},
        "conflicts": by_matter["conflict"],
        "without_state": len(recordings.unknown),
        "shared_by_calls": len(recordings.shared),
        "reports_not_pulled": len(gaps),
    }
    in_order = sorted((matter, key) for key, matter in matters.items() if matter != "waiting")
    shown = known.states(key for _, key in in_order[:SAMPLE])
    level = Level.good
    if in_order or recordings.unknown or (gaps and not not_over):
        level = Level.bad
    elif gaps or recordings.shared:
        level = Level.doubtful
    sample = examples((matter, shown[key]) for matter, key in in_order[:SAMPLE])
    not_pulled: list[Row] = [
        (gap.report, gap.account_id, f"{gap.to:%Y-%m-%d %H:%M} UTC" if gap.to else "never") for gap in gaps[:SAMPLE]
    ]
    missing: list[Row] = [(key, "without_state", "", "", day.isoformat(), 0) for key in recordings.unknown]
    sample = Table(sample.columns, [*sample.rows, *missing][:SAMPLE])
    return Finding(
        level=level,
        sentence=_sentence(day, counts, gaps, not_over=not_over, next_at=next_at),
        counts=counts,
        tables={
            "by_reason": _by_reason(known, matters),
            **({"sample": sample} if sample.rows else {}),
            **({"not_pulled": Table(("report", "account", "pulled_up_to"), not_pulled)} if gaps else {}),
        },
    )


def _matter(state: RecordingState, rules: RetryRules, now: datetime, run_id: str) -> str:
    if state.status in FINAL:
        return "conflict" if state.reason == "conflict" else "lost"
    if stuck(state, rules, now):
        return "stuck"
    return "overdue" if overdue(state, now, run_id) else "waiting"


def _not_in_bucket(bucket: Bucket, known: Recordings) -> dict[str, str]:
    """Return the archived recordings whose object is not there or is another one: one LIST per 1000 recordings, and
    no byte read unless the ETag changed.
    """
    expected = [key for (key,) in known.columns("key")]
    there: dict[str, Listed] = {}
    for day in known.held_dates():
        there |= bucket.list_day(day, expected)
    wrong: dict[str, str] = {}
    doubted: list[tuple[str, str, str]] = []
    for recording_id, key, size, sha256, etag in known.columns("recording_id", "key", "size", "sha256", "etag"):
        found = there.get(key)
        if found is None:
            wrong[recording_id] = "object_gone"
        elif found.size != size:
            wrong[recording_id] = "object_changed"
        elif etag and found.etag and found.etag != etag:
            doubted.append((recording_id, key, sha256))
    # Another ETag is other bytes, or the same ones moved here from another bucket: reading them tells which.
    for (recording_id, _, sha256), read in map_in_order(partial(_sha256_of, bucket), doubted, threads=_READERS):
        if read != sha256:
            wrong[recording_id] = "object_gone" if read is None else "object_changed"
    return wrong


def _sha256_of(bucket: Bucket, doubted: tuple[str, str, str]) -> str | None:
    """Read an object that is in doubt and return its hash; None if it is not there any more."""
    try:
        return bucket.hash_object(doubted[1]).sha256
    except KeyMissing:
        return None


def _sentence(
    day: date, counts: Mapping[str, int], gaps: Sequence[Unpulled], *, not_over: bool, next_at: datetime | None
) -> str:
    found, held = counts["found"], counts["archived"] - counts["object_gone"] - counts["object_changed"]
    parts: list[str] = []
    if gaps and not_over:
        parts.append(f"{day} is not over: this is what it has so far, and it is not complete yet.")
    elif gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        parts.append(
            f"{day} is not complete, whatever is archived: {gaps[0]}{more}. Run the date again: a report that was not "
            "pulled looks like a quiet day."
        )
    expected = f"{number(found, 'recording')} expected for {day}"
    archived = f"Of {expected}, {number(held, 'is archived', 'are archived')}"
    said = [f"{number(counts[name], *verbs.split('|'))}{what}." for name, verbs, what in _PROBLEMS if counts[name]]
    if said:
        parts.append(f"{archived}. {' '.join(said)}")
        if counts["lost"]:
            parts.append("Once the cause is fixed, `retry_final: true` in the config of `recordings` tries again.")
    elif not found:
        parts.append(f"No row of {day} links to a recording.")
    elif held == found:
        parts.append(
            f"All {expected} are archived." if found > 1 else f"The one recording expected for {day} is archived."
        )
    else:
        parts.append(f"{archived}; none is lost or late.")
    if counts["waiting"]:
        when = f", the next at {next_at:%Y-%m-%d %H:%M} UTC" if next_at else ""
        parts.append(f"{number(counts['waiting'], 'waits for its', 'wait for their')} next attempt{when}.")
    return " ".join(parts)


def _by_reason(known: Recordings, matters: Mapping[str, str]) -> Table:
    groups = Counter((str(one.status), one.reason or "", matters[key]) for key, one in known.others.items())
    held = Counter(matters.get(recording_id, "held") for (recording_id,) in known.columns("recording_id"))
    groups |= {(str(Status.archived), "", matter): count for matter, count in held.items()}
    rows: list[Row] = [(*group, count) for group, count in sorted(groups.items())]
    return Table(("state", "reason", "verdict", "recordings"), rows)
