"""Check that every recording a date's reports name is archived, or explained.

The sum must come out: found = archived + explained. A date whose reports were not pulled has nothing to add up
and is never complete. Reads the ledger, and the names and sizes of the objects; `pipelines.verify` reads the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.calendar import day_bounds
from pipelines.ledger.states import RetryRules, Status
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.result import SAMPLE, CheckResult, Level, examples, problem_sentences
from pipelines.steps.link.extract_links import days_of, extract_links, near, shared_ids
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import Unpulled, unpulled
from pipelines.wording import number

# The sensor looks every minute and runs wait their turn: only after this does "due" mean that no run comes.
OVERDUE_AFTER = timedelta(minutes=15)
_ONE_DAY = timedelta(days=1)
_READERS = 8
COLUMNS = ["recording_id", "status", "reason", "date", "attempts", "next_attempt_at", "first_seen_at", "run_id"]
"""The columns of a recording that is not archived, as the checks use them."""

# Count -> what one of them does | what others do | what it means, or what to do.
_SENTENCES = {
    "lost": "is lost|are lost| (`missing`, `rejected` or `denied`; the table by_reason says why).",
    "conflicts": "conflicts|conflict|: the source sends other bytes than are archived; both are kept.",
    "overdue": "is late|are late|: the next attempt was due and no run came; is the daemon running?",
    "stuck": "has been requested|have been requested| for longer than ARCHIVE_GIVE_UP_DAYS without a deciding answer.",
    "shared_by_calls": "is named|are named| by the rows of several calls, which may have one recording each: look at "
    "their links.",
    "without_state": "is linked to|are linked to| by a row but unknown: run `recording_links` again.",
    "object_gone": "was archived and is no longer in the bucket|were archived and are no longer in the bucket|: "
    "restore the object, or list the recording's id in retry_recording_ids.",
    "object_changed": "was archived and is now another object|were archived and are now other objects|: run "
    "`python -m pipelines.verify --read-data`.",
}


def every_link_is_held(
    ledger: Ledger,
    bucket: Bucket,
    day: date,
    settings: VerifySettings,
    rules: RetryRules,
    *,
    now: datetime,
    run_id: str,
) -> CheckResult:
    """Add up the date: found = archived + explained. Lost, late, unknown and vanished recordings are errors.

    `run_id` is the run that checks: what it attempted itself is not late.
    """
    gaps = unpulled(ledger, day, settings.ringcx_account_ids, settings.zone, settings.reports)
    known, unknown, shared = _recordings(ledger, day, settings)
    held, rest = known.held.select(COLUMNS).to_pandas(), known.rest.select(COLUMNS).to_pandas()
    wrong = _compare_with_bucket(bucket, known)
    held["verdict"] = [wrong.get(recording_id, "held") for recording_id in held["recording_id"]]
    pending = rest["status"] == Status.pending
    conditions = [~pending & (rest["reason"] == "conflict"), ~pending, is_stuck(rest, rules, now)]
    conditions.append(is_overdue(rest, now) & (rest["run_id"] != run_id))
    rest["verdict"] = np.select(conditions, ["conflict", "lost", "stuck", "overdue"], "waiting")
    missing = pd.DataFrame(
        {"recording_id": unknown, "verdict": "without_state", "status": "", "attempts": 0, "date": day}
    )
    recordings = pd.concat([held, rest, missing], ignore_index=True)
    by_verdict, by_status = recordings["verdict"].value_counts(), known.by_status()
    counts = {
        "found": len(recordings),
        **{str(status): by_status[status] for status in Status},
        **{
            name: int(by_verdict.get(name, 0))
            for name in ("waiting", "overdue", "stuck", "lost", "object_gone", "object_changed")
        },
        "conflicts": int(by_verdict.get("conflict", 0)),
        "without_state": len(unknown),
        "shared_by_calls": len(shared),
        "reports_not_pulled": len(gaps),
    }
    problems = recordings[~recordings["verdict"].isin(["held", "waiting"])]
    is_over = now >= day_bounds(day, settings.zone)[1]
    level = Level.ok
    if len(problems) or (gaps and is_over):
        level = Level.error
    elif gaps or shared:
        level = Level.warning
    not_pulled = [
        (gap.report, gap.account_id, f"{gap.to:%Y-%m-%d %H:%M} UTC" if gap.to else "never") for gap in gaps[:SAMPLE]
    ]
    by_reason = recordings[recordings["verdict"] != "without_state"].fillna({"reason": ""})
    by_reason = by_reason.groupby(["status", "reason", "verdict"]).size().reset_index(name="recordings")
    return CheckResult(
        level=level,
        sentence=_sentence(day, counts, gaps, is_over=is_over, next_at=rest["next_attempt_at"].min()),
        counts=counts,
        tables={
            "by_reason": by_reason.rename(columns={"status": "state"}),
            "sample": examples(problems.sort_values(["verdict", "recording_id"]).rename(columns={"verdict": "matter"})),
            "not_pulled": pd.DataFrame(not_pulled, columns=["report", "account", "pulled_up_to"]),
        },
    )


def is_overdue(recordings: pd.DataFrame, now: datetime) -> pd.Series:
    """Tell which pending recordings should have been attempted by now, since their time has passed and no run came."""
    return recordings["next_attempt_at"] < now - OVERDUE_AFTER


def is_stuck(recordings: pd.DataFrame, rules: RetryRules, now: datetime) -> pd.Series:
    """Tell which pending recordings have been asked for longer than ARCHIVE_GIVE_UP_DAYS without a deciding answer."""
    return (recordings["status"] == Status.pending) & (recordings["first_seen_at"] < now - rules.give_up - _ONE_DAY)


def _recordings(
    ledger: Ledger, day: date, settings: VerifySettings
) -> tuple[RecordingsTable, list[str], Sequence[str]]:
    """Return the recordings that concern a date: dated so, found by its pull, or linked to by its rows; the ids that
    are linked to without any state in the ledger; and those that rows of more than one call name.
    """
    links = extract_links(ledger, day, zone=settings.zone, first=settings.archive_start_date)
    linked = set(links.column("recording_id"))
    days = days_of(ledger, links)
    known = LedgerSnapshot(ledger.current(days))
    if not known.ids >= _main_ids(linked, known):
        # Two reports may date one recording on either side of midnight.
        known = LedgerSnapshot(ledger.current(near(days)))
    ids = _main_ids(linked, known)
    return known.concerning(day, ids), sorted(ids - known.ids), shared_ids(links)


def _main_ids(linked: Iterable[str], known: LedgerSnapshot) -> set[str]:
    """Return the recordings that these ids name: each itself, or the one that it is another name of."""
    return {known.names.get(recording_id, recording_id) for recording_id in linked}


def _compare_with_bucket(bucket: Bucket, known: RecordingsTable) -> dict[str, str]:
    """Return `object_gone` or `object_changed` for each archived recording whose object is not there or is another one:
    one LIST per 1000 recordings, and no byte read unless the ETag changed.
    """
    held = known.held.select(["recording_id", "key", "size", "sha256", "etag"]).to_pandas().set_index("recording_id")
    listed = [(key, found) for day in known.held_dates() for key, found in bucket.list_day(day, held["key"]).items()]
    there = pd.DataFrame(
        [(found.size, found.etag) for _, found in listed],
        columns=["listed_size", "listed_etag"],
        index=pd.Index([key for key, _ in listed], name="key"),
    )
    held = held.join(there, on="key")
    gone = held["listed_size"].isna()
    changed = ~gone & (held["listed_size"] != held["size"])
    # Another ETag is other bytes, or the same ones moved here from another bucket: reading them tells which.
    etags = held[["etag", "listed_etag"]].replace("", None)
    doubtful = held[~gone & ~changed & etags.notna().all(axis="columns") & (etags["etag"] != etags["listed_etag"])]

    def sha256(key: str) -> str | None:
        try:
            return bucket.hash_object(key).sha256
        except KeyMissing:
            return None

    wrong = dict.fromkeys(held.index[gone], "object_gone") | dict.fromkeys(held.index[changed], "object_changed")
    read = map_in_order(sha256, doubtful["key"], threads=_READERS)
    for (recording_id, expected), (_, found) in zip(doubtful["sha256"].items(), read, strict=True):
        if found != expected:
            wrong[str(recording_id)] = "object_gone" if found is None else "object_changed"
    return wrong


def _sentence(
    day: date, counts: Mapping[str, int], gaps: Sequence[Unpulled], *, is_over: bool, next_at: pd.Timestamp
) -> str:
    found, held = counts["found"], counts["archived"] - counts["object_gone"] - counts["object_changed"]
    parts: list[str] = []
    if gaps and not is_over:
        parts.append(f"{day} is not over: this is what it has so far, and it is not complete yet.")
    elif gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        parts.append(
            f"{day} is not complete, whatever is archived: {gaps[0]}{more}. Run the date again: a report that was not "
            "pulled looks like a quiet day."
        )
    expected = f"{number(found, 'recording')} expected for {day}"
    archived = f"Of {expected}, {number(held, 'is archived', 'are archived')}"
    if problems := problem_sentences(_SENTENCES, counts):
        parts += [f"{archived}.", *problems]
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
        when = "" if pd.isna(next_at) else f", the next at {next_at:%Y-%m-%d %H:%M} UTC"
        parts.append(f"{number(counts['waiting'], 'waits for its', 'wait for their')} next attempt{when}.")
    return " ".join(parts)
