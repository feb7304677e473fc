"""The links that a date's rows hold become recordings to be fetched.

Every row version ever seen counts, not only the newest: a link that the source took back is still a recording that
should exist. Links that must not be requested become `rejected` at once, so that they are explained and not merely
absent.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.calendar import local_day
from pipelines.ledger.states import Layout, RecordingState, Status, final, reopened
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.media import HostList, RecordingLink, parse_link
from pipelines.ringcx.reports import ReportName
from pipelines.ringcx.times import parse_hms, parse_report_time, uii_time

# How a reason says that the link itself, not the source's answer, is the matter.
LINK_REFUSED = "link_refused:"
_PATH_DAY = re.compile(r"/(\d{4})(\d{2})/(\d{2})/")
# A start that far after the pulled day is a defect of the row; a partition ahead would not be looked at for long. Held
# against the pulled day and not against the present, so that a recording has the same date in every run.
_CLOCK_SKEW = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a report keeps what a recording needs."""

    layout: Layout
    link: str
    start: str
    duration: str
    told_at: str | None = None
    """When the source told of it, where it tells before the link is valid."""


_COLUMNS: Mapping[ReportName, _Columns] = {
    "agent_segment_metadata": _Columns("stereo", "segment_recording_url", "start_dts", "duration"),
    "global_call_type_detail": _Columns("mono", "recording_url", "call_start_dts", "call_duration"),
    # Last, so that a link that a report gives as well is taken as the event gave it, in every run.
    "end_call_events": _Columns("mono", "recording_url", "call_start_dts", "call_duration", told_at="received_at"),
}

REPORTS: tuple[ReportName, ...] = ("agent_segment_metadata", "global_call_type_detail")
"""The reports that are pulled. Without them no date is complete; events may be lost on their way."""

# "The recording link may not be valid for up to 1-2 minutes after the end call event" (RingCX event documentation).
_VALID_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class LinksFound:
    """What a date's rows link to: counts of recordings, and the refused links by reason."""

    found: int
    new: int
    relinked: int
    known: int
    refused: Mapping[str, int]
    by_layout: Mapping[str, int]


def register_links(
    ledger: Ledger, day: date, *, zone: ZoneInfo, hosts: HostList, now: datetime, run_id: str
) -> LinksFound:
    """Give every recording that `day`'s rows link to a state, if it has none yet.

    A recording known as `pending` whose link changed takes the new link and is due at once, and so does one whose
    link was refused, if the new one is not.
    """
    found: dict[str, RecordingState] = {}
    for one in linked_recordings(ledger, day, zone=zone, now=now, run_id=run_id):
        other = found.setdefault(one.recording_id, one)
        # Of several links to one recording the newest counts that may be requested.
        if other.link != one.link and (judged(one, hosts) is one or judged(other, hosts) is not other):
            found[one.recording_id] = one
    known = ledger.states(_neighbours({one.date for one in found.values()}))
    lines: list[RecordingState] = []
    new = relinked = 0
    refused: Counter[str] = Counter()
    for recording_id, one in sorted(found.items()):
        before = known.get(recording_id)
        if before is None:
            fresh = judged(one, hosts)
            new += 1
            lines.append(fresh)
            if fresh.reason is not None:
                refused[fresh.reason.removeprefix(LINK_REFUSED)] += 1
        elif before.status is Status.pending and before.link != one.link:
            relinked += 1
            lines.append(
                judged(replace(before, link=one.link, next_attempt_at=now, run_id=run_id, written_at=now), hosts)
            )
        elif before.link != one.link and (before.reason or "").startswith(LINK_REFUSED):
            again = reopened(replace(before, link=one.link), "link_corrected", now, run_id)
            if judged(again, hosts) is again:
                relinked += 1
                lines.append(again)
    ledger.append_states(lines)
    layouts = Counter(str(one.layout) for one in found.values())
    return LinksFound(len(found), new, relinked, len(found) - new - relinked, dict(refused), dict(layouts))


def linked_recordings(
    ledger: Ledger, day: date, *, zone: ZoneInfo, now: datetime, run_id: str
) -> Iterator[RecordingState]:
    """Every recording that any row of `day` links to, as the `pending` state it begins with; one may come twice."""
    for report, columns in _COLUMNS.items():
        wanted = ["account_id", "uii", columns.link, columns.start, columns.duration]
        wanted += [columns.told_at] if columns.told_at else []
        rows = ledger.all_rows(report, day, columns=wanted)
        linked = rows.filter(rows[columns.link].is_valid()) if rows.num_rows else rows
        lines = zip(*(linked[name].to_pylist() for name in wanted), strict=True)
        for account_id, uii, link, start, duration, *told_at in lines:
            found = _identity(link, account_id)
            started_at = parse_report_time(start) or uii_time(uii)
            yield RecordingState(
                recording_id=found.recording_id,
                account_id=account_id,
                uii=uii or "",
                layout=columns.layout,
                source=report,
                date=_recording_day(started_at, found.file_path, day, zone),
                status=Status.pending,
                next_attempt_at=_first_attempt(now, *told_at),
                run_id=run_id,
                written_at=now,
                link=found.url,
                found_on=day,
                started_at=started_at,
                expected_duration_s=parse_hms(duration),
                first_seen_at=now,
            )


def _first_attempt(now: datetime, told_at: str | None = None) -> datetime:
    told = parse_report_time(told_at)
    return now if told is None else max(now, told + _VALID_AFTER)


def linked_days(ledger: Ledger, day: date, zone: ZoneInfo, now: datetime) -> set[date]:
    """The dates under which the recordings of `day`'s rows are stored."""
    return {one.date for one in linked_recordings(ledger, day, zone=zone, now=now, run_id="")}


def judged(state: RecordingState, hosts: HostList) -> RecordingState:
    """`state`, or its rejection if its link must not be requested under the present settings."""
    try:
        link = parse_link(state.link, state.account_id)
        hosts.require(link.url)
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


def recording_id_of(raw_link: str, account_id: str) -> str:
    """The id of the recording that a row's link names."""
    return _identity(raw_link, account_id).recording_id


def _identity(raw_link: str, account_id: str) -> RecordingLink:
    try:
        return parse_link(raw_link, account_id)
    except LinkRefused:
        # No file to name it by, yet it must be accounted for: the text itself is the identity.
        digest = hashlib.sha256(raw_link.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return RecordingLink(raw_link, account_id, f"link-{digest}", f"{account_id}/link-{digest}", f"link-{digest}")


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
