"""The links that a date's rows hold become recordings to be fetched.

Every row version ever seen counts, not only the newest: a link that the source took back is still a recording that
should exist. Links that must not be requested become `rejected` at once, so that they are explained and not merely
absent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.calendar import local_day
from pipelines.ledger.states import RecordingState, Status, final, reopened
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.media import HostList, parse_link
from pipelines.ringcx.segments import SegmentLinks, is_segment_link
from pipelines.steps.counterparts import AMBIGUOUS, WITHIN, join, pairs_around, settled
from pipelines.steps.rows import INTERACTIONS, ROWS, duration_s, link_of, ready_at, started_at

# How a reason says that the link itself, not the source's answer, is the matter.
LINK_REFUSED = "link_refused:"
_PATH_DAY = re.compile(r"/(\d{4})(\d{2})/(\d{2})/")
# A start that far after the pulled day is a defect of the row; a partition ahead would not be looked at for long. Held
# against the pulled day and not against the present, so that a recording has the same date in every run.
_CLOCK_SKEW = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class AllowedLinks:
    """What may be requested: links of the reports at the listed hosts, and recordings of the current API, if set."""

    hosts: HostList
    segments: SegmentLinks | None = None

    def is_segment(self, state: RecordingState) -> bool:
        """Whether the recording is asked for at the current API, with the log-in to it."""
        ours = self.segments is not None and self.segments.owns(state.link, state.account_id)
        return ours and state.source == INTERACTIONS

    def require(self, state: RecordingState) -> None:
        """Return if the recording's link may be requested under the present settings.

        Raises:
            LinkRefused: with the reason.
        """
        if self.is_segment(state):
            return
        link = parse_link(state.link, state.account_id)
        if state.source == INTERACTIONS and is_segment_link(link.url):
            raise LinkRefused("other_api")
        self.hosts.require(link.url)


@dataclass(frozen=True, slots=True)
class LinksFound:
    """What a date's rows link to: counts of recordings, and the refused links by reason.

    `joined`: ids of the date's rows that are another name of a recording. `ambiguous`: recordings of which it cannot be
    said whether both sources mean the same; `held_twice`: those archived under both names.
    """

    found: int
    new: int
    relinked: int
    known: int
    refused: Mapping[str, int]
    by_layout: Mapping[str, int]
    joined: int = 0
    ambiguous: tuple[str, ...] = ()
    held_twice: int = 0


def register_links(
    ledger: Ledger, day: date, *, zone: ZoneInfo, allowed: AllowedLinks, now: datetime, run_id: str
) -> LinksFound:
    """Give every recording that `day`'s rows link to a state, if it has none yet.

    A recording known as `pending` whose link changed takes the new link and is due at once, and so does one whose
    link was refused, if the new one is not. What both sources tell of is joined (`counterparts.py`).
    """
    found: dict[str, RecordingState] = {}
    for one in linked_recordings(ledger, day, zone=zone, now=now, run_id=run_id, segments=allowed.segments):
        other = found.setdefault(one.recording_id, one)
        # Of several links to one recording the newest counts that may be requested.
        if other.link != one.link and (judged(one, allowed) is one or judged(other, allowed) is not other):
            found[one.recording_id] = one
    known = ledger.names(_neighbours({one.date for one in found.values()}))
    open_calls = {
        (one.account_id, one.uii)
        for one in found.values()
        if one.layout == "stereo" and one.uii and not settled(known, one.recording_id)
    }
    pairs = pairs_around(ledger, day, open_calls)
    lines: dict[str, RecordingState] = {}
    relinked = 0
    refused: Counter[str] = Counter()
    for recording_id, one in sorted(found.items()):
        before = known.get(recording_id)
        if before is None:
            doubt = (AMBIGUOUS,) if recording_id in pairs.ambiguous else ()
            fresh = judged(replace(one, warnings=doubt), allowed)
            lines[recording_id] = fresh
            if fresh.reason is not None:
                refused[fresh.reason.removeprefix(LINK_REFUSED)] += 1
        elif again := _relinked(before, one, allowed, now, run_id):
            relinked += 1
            lines[recording_id] = again
    new = sum(one not in known for one in found)
    joined = join(pairs, known | lines, now=now, run_id=run_id)
    ledger.append_states([one for key, one in lines.items() if key not in joined.renamed] + list(joined.lines))
    known |= lines | joined.renamed
    twice = joined.held_twice
    if pairs.partners:
        # The other name may have been registered meanwhile, by the run of the date beside: who writes last sees both.
        seen = ledger.names(_neighbours({one.date for one in found.values()}))
        ledger.append_states(join(pairs, seen, now=now, run_id=run_id).lines)
        known |= seen
    names = {key: one for key, one in known.items() if key in found and one.same_as}
    layouts = Counter(str(one.layout) for key, one in found.items() if names.get(key) is None)
    return LinksFound(
        found=len({known[key].same_as or key for key in found}),
        new=new,
        relinked=relinked,
        known=len(found) - new - relinked,
        refused=dict(refused),
        by_layout=dict(layouts),
        joined=len(names),
        ambiguous=tuple(sorted(pairs.ambiguous & found.keys())),
        held_twice=twice,
    )


def rejoin(
    ledger: Ledger, states: Mapping[str, RecordingState], day: date, *, now: datetime, run_id: str
) -> dict[str, RecordingState]:
    """`states` once more, after what both sources tell of was joined again by how it stands now.

    A recording that became final under one name is tried under its other one; what is held under the one is not fetched
    under the other.
    """
    calls = {(one.account_id, one.uii) for one in states.values() if _may_have_two_names(one)}
    pairs = pairs_around(ledger, day, calls)
    if not pairs.partners:
        return dict(states)
    known = ledger.names(_neighbours({one.date for one in states.values()}))
    joined = join(pairs, {**known, **states}, now=now, run_id=run_id)
    ledger.append_states(joined.lines)
    after = {**states, **joined.renamed}
    return {key: one for key, one in after.items() if one.same_as is None}


def _may_have_two_names(state: RecordingState) -> bool:
    return state.layout == "stereo" and bool(state.uii) and state.status is not Status.archived


def _relinked(
    before: RecordingState, one: RecordingState, allowed: AllowedLinks, now: datetime, run_id: str
) -> RecordingState | None:
    """The state of a known recording whose link is another one now, if that changes anything."""
    if before.link == one.link or not one.link or before.same_as:
        return None
    if before.status is Status.pending:
        return judged(replace(before, link=one.link, next_attempt_at=now, run_id=run_id, written_at=now), allowed)
    if (before.reason or "").startswith(LINK_REFUSED):
        again = reopened(replace(before, link=one.link), "link_corrected", now, run_id)
        return again if judged(again, allowed) is again else None
    return None


def linked_recordings(
    ledger: Ledger, day: date, *, zone: ZoneInfo, now: datetime, run_id: str, segments: SegmentLinks | None = None
) -> Iterator[RecordingState]:
    """Every recording that any row of `day` links to, as the `pending` state it begins with; one may come twice.

    Without `segments` those of the current API have no link, for callers that look at ids and dates only.
    """
    for report, columns in ROWS.items():
        rows = ledger.all_rows(report, day, columns=columns.needed)
        linked = rows.filter(rows[columns.link[0]].is_valid()) if len(columns.link) == 1 else rows
        for cells in zip(*(linked[name].to_pylist() for name in columns.needed), strict=True):
            row = dict(zip(columns.needed, cells, strict=True))
            found = link_of(report, row, segments)
            if found is None:
                continue
            began = started_at(report, row)
            yield RecordingState(
                recording_id=found.recording_id,
                account_id=row["account_id"],
                uii=row[columns.uii] or "",
                layout=columns.layout,
                source=report,
                date=_recording_day(began, found.file_path, day, zone),
                status=Status.pending,
                next_attempt_at=ready_at(report, row, now),
                run_id=run_id,
                written_at=now,
                link=found.url,
                found_on=day,
                started_at=began,
                expected_duration_s=duration_s(report, row),
                first_seen_at=now,
            )


def linked_days(ledger: Ledger, day: date, zone: ZoneInfo, now: datetime) -> set[date]:
    """The dates under which the recordings of `day`'s rows are stored, and those of their other names."""
    days: set[date] = set()
    for one in linked_recordings(ledger, day, zone=zone, now=now, run_id=""):
        days.add(one.date)
        if one.started_at is not None and local_day(one.started_at, zone) == one.date:
            days |= {local_day(one.started_at + step, zone) for step in (-WITHIN[-1], WITHIN[-1])}
    return days


def judged(state: RecordingState, allowed: AllowedLinks) -> RecordingState:
    """`state`, or its rejection if its link must not be requested under the present settings."""
    try:
        allowed.require(state)
    except LinkRefused as refusal:
        return final(
            state,
            Status.rejected,
            f"{LINK_REFUSED}{refusal.reason}",
            state.written_at,
            state.run_id,
            attempted=False,
        )
    return state


def _recording_day(started_at: datetime | None, file_path: str, pulled: date, zone: ZoneInfo) -> date:
    """The recording's own day: by its start; else by its path; else the day whose pull found it."""
    if started_at is not None and (started := local_day(started_at, zone)) <= pulled + _CLOCK_SKEW:
        return started
    if match := _PATH_DAY.search(f"/{file_path}"):
        try:
            return date(*(int(part) for part in match.groups()))
        except ValueError:
            return pulled
    return pulled


def _neighbours(days: set[date]) -> set[date]:
    """`days` and those beside them: two sources may date one recording on either side of midnight."""
    return {day + timedelta(days=offset) for day in days for offset in (-1, 0, 1)}
