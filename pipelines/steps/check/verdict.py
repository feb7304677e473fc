"""The verdict of a date (docs/operations.md, "Verdicts"): the one module that decides whether a date is complete.

It reads the ledger, and the names and sizes of the objects; `ringcx-archive verify` reads the bytes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import chain, islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.errors import StoreDamaged
from pipelines.calendar import day_bounds
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.schema import Acceptance, values
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.report_agreement import empty_reports
from pipelines.steps.check.result import LISTED, CheckResult, Level, examples, problem_sentences
from pipelines.steps.link.extract_links import extract_links, shared_ids
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import SETTLED, MissingReport, pulls_of, require_rows, unpulled
from pipelines.wording import number, reason_in_words

# The sensor ticks every minute and runs queue: only after this time does "due" mean that no run is coming.
OVERDUE_AFTER = timedelta(minutes=15)
_ONE_DAY = timedelta(days=1)
_COMPARED_FOR = timedelta(minutes=1)
_REASONS = 3
_REFUSED = "Once RINGCX_MEDIA_HOSTS (or RINGCX_API_URL) allows a refused link, the next run of the date fetches it."
_BATCH = 5_000
COLUMNS = ["recording_id", "status", "reason", "date", "found_on", "attempts", "next_attempt_at", "first_seen_at"]
COLUMNS += ["run_id", "written_at"]
"""The columns of a recording that is not archived, as the checks use them."""

# Count -> what one of them does | what others do | what it means, or what to do.
_SENTENCES = {
    "lost": "is lost|are lost| ({reasons}).",
    "conflicts": "is in conflict|are in conflict|: the source now sends different bytes from those archived; both are "
    "kept.",
    "overdue": "is overdue|are overdue|: the next attempt was due and no run came; is the daemon running?",
    "stuck": "has been requested|have been requested| for longer than ARCHIVE_GIVE_UP_DAYS without a final answer.",
    "shared_by_calls": "is named|are named| by the rows of several calls, each of which may have a recording of its "
    "own: compare the links in those rows.",
    "without_state": "is named by a row but has no state|are named by rows but have no state|: run "
    "`recording_links` again.",
    "object_gone": "was archived and is no longer in the bucket|were archived and are no longer in the bucket|: "
    "restore the object, or list the recording's id in retry_recording_ids.",
    "object_changed": "was archived, but its key now holds a different object|were archived, but their keys now hold "
    "different objects|: run `ringcx-archive verify --read-data`.",
}


class Verdict(StrEnum):
    """The verdict of a date, from the worst to the best."""

    gaps = "gaps"
    unknown = "unknown"
    waiting = "waiting"
    complete = "complete"


EXIT_CODES = {Verdict.complete: 0, Verdict.gaps: 1, Verdict.unknown: 3, Verdict.waiting: 3}


_VERBS = {
    Verdict.complete: ("is complete", "are complete"),
    Verdict.gaps: ("has gaps", "have gaps"),
    Verdict.unknown: ("is unknown", "are unknown"),
    Verdict.waiting: ("waits for recordings", "wait for recordings"),
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of several dates together; for no dates, `unknown`."""
    return min(verdicts, key=list(Verdict).index, default=Verdict.unknown)


def sentence_of(verdicts: Iterable[Verdict], with_accepted: int = 0) -> str:
    """Return one sentence with the verdicts of several dates, and the number of those with accepted losses."""
    counts = Counter(verdicts)
    total = counts.total()
    if total == 1:
        (verdict,) = counts
        return f"The date {_VERBS[verdict][0]}{', with accepted losses' if with_accepted else ''}."
    suffix = f"; on {with_accepted:,} of the {total:,} dates, losses are accepted" if with_accepted else ""
    if counts[Verdict.complete] == total:
        return f"All {total:,} dates are complete{suffix}."
    others = (number(counts[verdict], *_VERBS[verdict]) for verdict in Verdict if counts[verdict])
    return f"Of {number(total, 'date')}, {', '.join(others)}{suffix}."


@dataclass(frozen=True, kw_only=True)
class DateVerdict:
    """The verdict of a date and its reasons.

    `counts`: recordings by state and by problem. `accepted`: the acceptances that hold, by recording id, sorted.
    `not_pulled`: the reports that no pull covers to the end of the day, or that came empty although there were calls.
    `recordings`: a row for each known recording, whose `condition` is `held`, `waiting`, `accepted` or the problem.
    `damage`: why ledger or archive could not be read.
    """

    date: date
    verdict: Verdict
    counts: Mapping[str, int] = field(default_factory=Counter)
    accepted: Mapping[str, Acceptance] = field(default_factory=dict)
    not_pulled: Sequence[MissingReport] = ()
    is_over: bool = True
    recordings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*COLUMNS, "size", "condition"]))
    damage: str = ""

    @property
    def sealed_verdict(self) -> Verdict:
        """The verdict of the content alone, as it is sealed: what is only late counts as waiting."""
        problems = [name for name in _SENTENCES if name not in {"overdue", "stuck"} and self.counts[name]]
        return Verdict.waiting if self.verdict is Verdict.gaps and not problems else self.verdict

    @property
    def expected(self) -> int | None:
        """The number of recordings that the date should hold; None while that is unknown."""
        return None if self.not_pulled or self.damage else len(self.recordings)

    @property
    def held(self) -> int:
        """The number of expected recordings that the date holds."""
        return len(self._with_condition("held"))

    @property
    def held_bytes(self) -> int:
        """The bytes of all recordings that the date holds."""
        return int(self._with_condition("held")["size"].sum())

    @property
    def next_at(self) -> datetime | None:
        """The time at which the first waiting recording is tried again."""
        first = self._with_condition("waiting")["next_attempt_at"].min()
        return None if pd.isna(first) else first.to_pydatetime()

    @property
    def lost(self) -> dict[str, int]:
        """The number of lost recordings for each reason, sorted, without accepted ones."""
        return dict(sorted(Counter(map(str, self._with_condition("lost", "conflict")["reason"])).items()))

    def _with_condition(self, *conditions: str) -> pd.DataFrame:
        return self.recordings[self.recordings["condition"].isin(conditions)]

    @property
    def sentence(self) -> str:
        """The verdict, its reasons and the remedy."""
        counts, day = self.counts, self.date
        if self.damage:
            return f"It is unknown what {day} should hold: {self.damage}"
        problems = problem_sentences(_SENTENCES, counts, reasons=_reasons(Counter(self.lost)))
        sentences: list[str] = []
        if self.not_pulled:
            more = f" (and {len(self.not_pulled) - 1} more)" if len(self.not_pulled) > 1 else ""
            if self.is_over:
                is_too_late = all(gap.is_too_late for gap in self.not_pulled)
                why = f": {self.not_pulled[0]}{more}. {'No run can change that.' if is_too_late else 'Run the date.'}"
            else:
                why = ", since the day is not over, or has just ended."
            sentences.append(f"It is unknown what {day} should hold{why}")
        sentences.append(self._archived(has_problems=bool(problems)))
        sentences += problems
        refused = sum(count for reason, count in self.lost.items() if reason.startswith("link_refused:"))
        if refused:
            sentences.append(_REFUSED)
        if counts["lost"] > refused:
            sentences.append("Once the cause is fixed, `retry_final: true` in the config of `recordings` tries again.")
        if counts["waiting"]:
            when = f", the next at {self.next_at:%Y-%m-%d %H:%M} UTC" if self.next_at else ""
            sentences.append(f"{number(counts['waiting'], 'waits for its', 'wait for their')} next attempt{when}.")
        return " ".join(sentences)

    def _archived(self, *, has_problems: bool) -> str:
        """Say how many of the known recordings are archived, and how many losses are accepted."""
        known, losses = len(self.recordings), self.counts["accepted_losses"]
        if not known and self.not_pulled:
            return "No recording is known so far."
        if not known:
            return f"No row of {self.date} links to a recording."
        is_whole = self.held == self.expected and not has_problems
        if is_whole and known == 1:
            return f"The one recording expected for {self.date} is archived."
        of_what = "known so far" if self.not_pulled else f"expected for {self.date}"
        recordings = f"{number(known, 'recording')} {of_what}"
        if is_whole:
            return f"All {recordings} are archived."
        archived = f"Of {recordings}, {number(self.held, 'is archived', 'are archived')}"
        if losses:
            reasons = _reasons(Counter(acceptance.reason for acceptance in self.accepted.values()))
            return f"{archived} and {number(losses, 'loss is', 'losses are')} accepted ({reasons})."
        return f"{archived}." if has_problems else f"{archived}; none is lost or late."


def judge_date(
    ledger: Ledger, bucket: Bucket | None, day: date, settings: VerifySettings, *, now: datetime, run_id: str = ""
) -> DateVerdict:
    """Return the verdict of a date: `unknown` if its part of the ledger or of the archive is damaged.

    Without a `bucket`, recordings that the ledger calls archived count as present. `run_id` is the run that asks:
    recordings that it has attempted itself are not overdue.
    """
    try:
        return _judge(ledger, bucket, day, settings, now=now, run_id=run_id)
    except (LedgerDamaged, StoreDamaged) as error:
        return DateVerdict(date=day, verdict=Verdict.unknown, damage=str(error))


def _judge(
    ledger: Ledger, bucket: Bucket | None, day: date, settings: VerifySettings, *, now: datetime, run_id: str
) -> DateVerdict:
    not_pulled = lacking_reports(ledger, day, settings, now=now)
    known, unknown, shared = _recordings(ledger, day, settings)
    archived = known.archived.select([*COLUMNS, "size"]).to_pandas()
    rest = known.rest.select(COLUMNS).to_pandas()
    wrong = {} if bucket is None else _compare_objects(bucket, known, run_id, now)
    archived["condition"] = [wrong.get(recording_id, "held") for recording_id in archived["recording_id"]]
    accepted = accepted_losses(ledger, known)
    is_final = rest["status"] != Status.pending
    conditions = {  # the first that holds
        "accepted": rest["recording_id"].isin(list(accepted)),
        "conflict": is_final & (rest["reason"] == "conflict"),
        "lost": is_final,
        "stuck": is_stuck(rest, timedelta(days=settings.archive_give_up_days), now),
        "overdue": is_overdue(rest, now) & (rest["run_id"] != run_id),
    }
    rest["condition"] = np.select(list(conditions.values()), list(conditions), "waiting")
    missing = pd.DataFrame(
        {"recording_id": unknown, "condition": "without_state", "status": "", "attempts": 0, "date": day}
    )
    recordings = pd.concat([archived, rest, missing], ignore_index=True).fillna({"reason": ""})
    by_status = known.by_status()
    by_condition = Counter(recordings["condition"])
    counted = ("waiting", "overdue", "stuck", "lost", "object_gone", "object_changed")
    counts = {
        **{str(status): by_status[status] for status in Status},
        **{condition: by_condition[condition] for condition in counted},
        "conflicts": by_condition["conflict"],
        "without_state": len(unknown),
        "shared_by_calls": len(shared),
        "accepted_losses": len(accepted),
    }
    return DateVerdict(
        date=day,
        verdict=Verdict.unknown if not_pulled else _verdict(counts),
        counts=counts,
        accepted=accepted,
        not_pulled=not_pulled,
        is_over=now >= day_bounds(day, settings.zone)[1] + SETTLED,
        recordings=recordings,
    )


def _verdict(counts: Mapping[str, int]) -> Verdict:
    if any(counts[problem] for problem in _SENTENCES):
        return Verdict.gaps
    return Verdict.waiting if counts["waiting"] else Verdict.complete


def lacking_reports(ledger: Ledger, day: date, settings: VerifySettings, *, now: datetime) -> list[MissingReport]:
    """Return the reports that make a date `unknown`: not pulled for the whole day, or empty in spite of calls."""
    pulls = pulls_of(ledger, day)
    require_rows(ledger, day, pulls)
    return unpulled(pulls, day, settings) + empty_reports(ledger, day, pulls, settings, now=now)


def every_recording_is_accounted_for(of_date: DateVerdict) -> CheckResult:
    """Return the verdict as a check: `waiting` is a warning, and so is a day that is not over."""
    levels = {Verdict.complete: Level.ok, Verdict.waiting: Level.warning}
    if of_date.verdict is Verdict.unknown and not of_date.is_over:
        levels[Verdict.unknown] = Level.warning
    recordings = of_date.recordings
    gaps = of_date.not_pulled
    is_problem = ~recordings["condition"].isin(["held", "waiting", "accepted"])
    problems = recordings[is_problem].sort_values(["condition", "recording_id"])
    waiting = recordings[recordings["condition"] == "waiting"].sort_values(["next_attempt_at", "recording_id"])
    by_reason = recordings[recordings["condition"] != "without_state"]
    by_reason = by_reason.groupby(["status", "reason", "condition"]).size().reset_index(name="recordings")
    not_pulled = [(gap.report, gap.account_id, str(gap)) for gap in gaps[:LISTED]]
    return CheckResult(
        verdict=of_date.verdict,
        level=levels.get(of_date.verdict, Level.error),
        sentence=of_date.sentence,
        counts={
            **({} if of_date.expected is None else {"found": of_date.expected}),
            **of_date.counts,
            "reports_not_pulled": len(gaps),
        },
        tables={"by_reason": by_reason.rename(columns={"status": "state"})},
        lists={
            "sample": examples(problems),
            "waiting_recordings": examples(waiting),
            "accepted_losses": pd.DataFrame(
                {"recording": found.recording_id, "reason": found.reason, "accepted_by": found.accepted_by}
                | {"at": f"{found.at:%Y-%m-%d %H:%M} UTC", "why": found.why}
                for found in islice(of_date.accepted.values(), LISTED)
            ),
            "not_pulled": pd.DataFrame(not_pulled, columns=["report", "account", "what"]),
        },
    )


def accepted_losses(ledger: Ledger, known: RecordingsTable) -> dict[str, Acceptance]:
    """Return the acceptances that hold, by recording id, sorted: state, reason and epoch are unchanged."""
    lost = known.final()
    latest = ledger.acceptances(values(lost["date"]))
    columns = (values(lost[name]) for name in ("recording_id", "status", "reason", "epoch"))
    states = sorted(zip(*columns, strict=True))
    return {key: latest[key] for key, *state in states if key in latest and latest[key].holds(*state)}


def is_overdue(recordings: pd.DataFrame, now: datetime) -> pd.Series:
    """Return which pending recordings should have been attempted by now: they are due, and no run came."""
    return recordings["next_attempt_at"] < now - OVERDUE_AFTER


def is_stuck(recordings: pd.DataFrame, give_up: timedelta, now: datetime) -> pd.Series:
    """Return which pending recordings were requested for longer than ARCHIVE_GIVE_UP_DAYS without a final answer."""
    return (recordings["status"] == Status.pending) & (recordings["first_seen_at"] < now - give_up - _ONE_DAY)


def _recordings(
    ledger: Ledger, day: date, settings: VerifySettings
) -> tuple[RecordingsTable, list[str], Sequence[str]]:
    """Return a date's recordings, the linked ids without a state, and the ids that rows of several calls name."""
    links = extract_links(ledger, day, settings)
    linked = set(values(links.table["recording_id"]))
    known = LedgerSnapshot(lines := ledger.current(links.days))
    if not known.ids >= _main_ids(linked, known):
        # Two reports may date one recording on either side of midnight.
        known = LedgerSnapshot(lines := ledger.current(near(links.days)))
    ids = _main_ids(linked, known)
    return known.concerning(day, ids), sorted(ids - known.ids), shared_ids(links, lines)


def _main_ids(linked: set[str], known: LedgerSnapshot) -> set[str]:
    """Return the recordings that these ids name: for each, the id itself, or the main id if it is another name."""
    return {known.names.get(recording_id, recording_id) for recording_id in linked} if known.names else linked


def _compare_objects(bucket: Bucket, known: RecordingsTable, run_id: str, now: datetime) -> dict[str, str]:
    """Return `object_gone` or `object_changed` for each archived recording whose object is missing or was replaced: one
    LIST per 1000 recordings, and no byte read unless the ETag changed.

    Objects that the same run compared within the last minute are not compared again: its steps judge the date three
    times in a row, and listing 100,000 objects takes seconds.
    """
    archived = known.archived.select(["recording_id", "key", "size", "sha256", "etag"])
    if run_id and (last := _last_compared.get((bucket, run_id))) is not None:
        at, same, wrong = last
        if abs(now - at) < _COMPARED_FOR and same.equals(archived):
            return wrong
    listed: dict[str, Listed] = {}
    for day in values(pc.unique(known.archived["date"])):
        listed |= bucket.list_day(day, values(archived["key"]))
    wrong = {}
    doubtful = []
    for line in chain.from_iterable(batch.to_pylist() for batch in archived.to_batches(_BATCH)):
        found = listed.get(line["key"])
        if found is None:
            wrong[line["recording_id"]] = "object_gone"
        elif found.size != line["size"]:
            wrong[line["recording_id"]] = "object_changed"
        elif line["etag"] and found.etag and found.etag != line["etag"]:
            # Different bytes, or the same bytes copied from another bucket: reading them shows which.
            doubtful.append(line)
    for line, sha256 in map_in_order(lambda line: bucket.sha256_of(line["key"]), doubtful):
        if sha256 != line["sha256"]:
            wrong[line["recording_id"]] = "object_gone" if sha256 is None else "object_changed"
    _last_compared.clear()
    _last_compared[bucket, run_id] = now, archived, wrong
    return wrong


_last_compared: dict[tuple[Bucket, str], tuple[datetime, pa.Table, dict[str, str]]] = {}


def _reasons(counts: Counter[str]) -> str:
    shown = [f"{count:,} `{reason}`: {reason_in_words(reason)}" for reason, count in counts.most_common(_REASONS)]
    return "; ".join([*shown, *(["others"] if len(counts) > _REASONS else [])])
