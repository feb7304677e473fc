"""The recordings that a row names: their ids, links, layouts, starts and durations."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from pipelines.ledger.states import Layout
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.links import SegmentLinks, links_in, parse_link, segment_recording_id
from pipelines.ringcx.reports.columns import AGENT, EVENTS, GLOBAL, INTERACTIONS, LINK_COLUMN, UII_COLUMN, ReportName
from pipelines.ringcx.reports.times import parse_hms, parse_moment, parse_ms, parse_report_time, uii_time

_READY_AFTER: Final[Mapping[ReportName, timedelta]] = {
    # "Allow 10 to 15 minutes after the call" (RingCX documentation): a request before that only costs a permit.
    INTERACTIONS: timedelta(minutes=15),
    # "The recording link may not be valid for up to 1-2 minutes after the end call event" (RingCX event documentation).
    EVENTS: timedelta(minutes=2),
}

Cells = Mapping[str, str | None]
"""A row's values by canonical column name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """The columns of a report from which a recording is registered, in addition to account, UII and link.

    `leg`: distinguishes an agent's leg of a call from the others. `over`: when the call ended, or when the source
    reported it; the link is valid only some time after that.
    """

    layout: Layout
    start: str
    duration: str
    agent: str | None = None
    leg: tuple[str, ...] = ()
    over: str | None = None
    others: tuple[str, ...] = ()


ROWS: Final[Mapping[ReportName, RowColumns]] = {
    AGENT: RowColumns(layout="stereo", start="start_dts", duration="duration", agent="agent_id", leg=("session_id",)),
    GLOBAL: RowColumns(layout="mono", start="call_start_dts", duration="call_duration"),
    # A recording of one leg is what the legacy stereo recording is, whatever its channels turn out to be.
    INTERACTIONS: RowColumns(
        layout="stereo",
        start="segment_start_time_ms",
        duration="segment_duration_ms",
        agent="segment_participant_id",
        leg=("dialog_id", "segment_id"),
        over="dialog_end_time_ms",
        others=(
            *("segment_recording_url", "channel_class", "segment_type", "row_key"),
            *("interaction_recording_location", "dialog_start_time_ms", "dialog_duration_ms"),
        ),
    ),
    # Last, so that in every run an event's link replaces the same recording's link from a report.
    EVENTS: RowColumns(layout="mono", start="call_start_dts", duration="call_duration", over="received_at"),
}


def needed_columns(report: ReportName) -> list[str]:
    """Return the columns of a report from which a recording is registered."""
    row = ROWS[report]
    names = ["account_id", UII_COLUMN[report], LINK_COLUMN[report], row.start, row.duration, row.agent, row.over]
    return [name for name in dict.fromkeys([*names, *row.leg, *row.others]) if name]


_YES = frozenset({"true", "1", "y", "yes", "t"})
_NO = frozenset({"false", "0", "n", "no", "f"})


class RowLink(NamedTuple):
    """A recording that a row names. `url`: empty if it would be made from settings and none were given. `of_call`: the
    recording is of the whole call, but the row is about one segment.
    """

    recording_id: str
    url: str
    layout: Layout
    of_call: bool = False


def links_of(report: ReportName, row: Cells, segments: SegmentLinks | None = None) -> Iterator[RowLink]:
    """Yield the recordings that a row names, even one without an address: it must be accounted for."""
    account_id = row["account_id"] or ""
    layout = ROWS[report].layout
    if report != INTERACTIONS:
        yield from _by_url(row[LINK_COLUMN[report]], account_id, layout)
    elif row["channel_class"] != "DIGITAL":
        # If the flag of an agent's leg is neither yes nor no, the answer to a request decides.
        is_asked = is_flag_unknown(row) and is_agents(report, row) and not row["segment_recording_url"]
        if _flag(row) in _YES or is_asked:
            yield _segment(row, account_id, segments)
        else:  # rows from before has_recording
            yield from _by_url(row["segment_recording_url"], account_id, layout)
        yield from _by_url(row["interaction_recording_location"], account_id, "mono", of_call=True)


def is_flag_unknown(row: Cells) -> bool:
    """Return whether a row of interaction metadata has a `hasRecording` that is neither yes nor no."""
    return _flag(row) not in _YES | _NO and bool(links_in(_flag(row)))


def _flag(row: Cells) -> str:
    return (row[LINK_COLUMN[INTERACTIONS]] or "").strip().lower()


def _segment(row: Cells, account_id: str, segments: SegmentLinks | None) -> RowLink:
    dialog_id, segment_id = row["dialog_id"] or "", row["segment_id"] or ""
    try:
        recording_id = segment_recording_id(account_id, dialog_id, segment_id)
        url = "" if segments is None else segments.link(account_id, dialog_id, segment_id)
    except LinkRefused:
        return _unnamed_link(f"no address: {row['row_key']}", account_id, "stereo")
    return RowLink(recording_id, url, "stereo")


def is_agents(report: ReportName, row: Cells) -> bool:
    """Return whether a row may be about an agent's leg of a call, and not about a menu, a bot or a message."""
    return report != INTERACTIONS or not (row["channel_class"] == "DIGITAL" or row["segment_type"] in {"IVR", "BOT"})


def start_of(report: ReportName, row: Cells) -> datetime | None:
    """Return when the row's call or leg began."""
    return _time(report, row[ROWS[report].start])


def starts(report: ReportName, row: Cells, link: RowLink) -> Iterator[datetime]:
    """Yield the times at which a row's recording may have begun, the most trustworthy first: its start, the call's."""
    own = parse_moment(row["dialog_start_time_ms"]) if link.of_call else start_of(report, row)
    if own is not None:
        yield own
    by_uii = uii_time(row[UII_COLUMN[report]])
    if by_uii is not None:
        yield by_uii


def duration_s(report: ReportName, row: Cells, link: RowLink) -> float | None:
    """Return the length of the recording according to the row, in seconds."""
    if link.of_call:
        return parse_ms(row["dialog_duration_ms"])
    length = row[ROWS[report].duration]
    return parse_ms(length) if report == INTERACTIONS else parse_hms(length)


def over_at(report: ReportName, row: Cells) -> datetime | None:
    """Return when the row's call ended or was reported, for reports that come before the link is valid."""
    column = ROWS[report].over
    return _time(report, row[column]) if column else None


def ready_at(report: ReportName, over: datetime | None, now: datetime) -> datetime:
    """Return when to request a recording for the first time, if its call was over at `over`."""
    return max(now, min(over, now) + _READY_AFTER[report]) if over else now


def _time(report: ReportName, text: str | None) -> datetime | None:
    return parse_moment(text) if report == INTERACTIONS else parse_report_time(text)


def _by_url(cell: str | None, account_id: str, layout: Layout, *, of_call: bool = False) -> Iterator[RowLink]:
    for raw in links_in(cell):
        try:
            found = parse_link(raw, account_id)
        except LinkRefused:
            yield _unnamed_link(raw, account_id, layout, of_call=of_call)
        else:
            yield RowLink(found.recording_id, found.url, layout, of_call)


def _unnamed_link(raw: str, account_id: str, layout: Layout, *, of_call: bool = False) -> RowLink:
    # Without a file name there is no id, yet it must be accounted for: the text itself is the identity.
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return RowLink(f"{account_id}/link-{digest}", raw, layout, of_call)
