"""The links that a date's rows hold become recordings to be fetched.

Links that must not be requested become `rejected` at once, so that they are explained and not merely absent. Which rows
link to what is `extract_links.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.schema import states_by_id, values
from pipelines.ledger.states import RecordingState, Status, final, reopened
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.links import HostList, parse_link
from pipelines.ringcx.reports.interactions import SegmentLinks, is_segment_link
from pipelines.steps.link.extract_links import LinkedRows, days_of, linked_rows, near, shared_ids
from pipelines.steps.link.matching import AMBIGUOUS, Call, call_of, join, pairs_around
from pipelines.steps.link.recordings_table import Known, Recordings
from pipelines.steps.link.rows import INTERACTIONS, ROWS

# How a reason says that the link itself, not the source's answer, is the matter.
LINK_REFUSED = "link_refused:"


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
    said whether both sources mean the same; `held_twice`: those archived under both names. `links`: how many links the
    rows hold; `shared`: ids of recordings that rows of more than one call name.
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
    links: int = 0
    shared: tuple[str, ...] = ()


def register_links(
    ledger: Ledger, day: date, *, zone: ZoneInfo, first: date, allowed: AllowedLinks, now: datetime, run_id: str
) -> LinksFound:
    """Give every recording that `day`'s rows link to a state, if it has none yet. `first`: ARCHIVE_START_DATE.

    A recording known as `pending` whose link changed takes the new link and is due at once, and so does one whose
    link was refused, if the new one is not. What both sources tell of is joined (`matching.py`).
    """
    linked = linked_rows(ledger, day, zone=zone, first=first, segments=allowed.segments)
    days = near(days_of(ledger, linked))
    known = Known(ledger.current(days))
    lines = _unsettled(linked, known, allowed, now, run_id)
    relinked = sum(one in known.ids for one in lines)
    fresh = [one for key, one in lines.items() if key not in known.ids]
    refused = Counter(one.reason.removeprefix(LINK_REFUSED) for one in fresh if one.reason is not None)
    pairs = pairs_around(ledger, day, _open_calls(linked, known))
    for key in pairs.ambiguous & lines.keys() - known.ids:
        lines[key] = replace(lines[key], warnings=(AMBIGUOUS,))
    after = known.states(pairs.partners.keys()) | lines
    joined = join(pairs, after, now=now, run_id=run_id)
    ledger.append_states([one for key, one in lines.items() if key not in joined.renamed] + list(joined.lines))
    names = known.names | {key: str(one.same_as) for key, one in joined.renamed.items()}
    if pairs.partners:
        # A neighbouring date's run may have registered the other name meanwhile: the run that writes last sees both.
        seen = ledger.names(days)
        ledger.append_states(join(pairs, seen, now=now, run_id=run_id).lines)
        names |= {key: one.same_as for key, one in seen.items() if one.same_as is not None}
    layouts = {key: layout for rows in linked for key, layout in zip(rows.ids, rows.layouts, strict=True)}
    return LinksFound(
        found=len({names.get(key, key) for key in layouts}),
        new=len(fresh),
        relinked=relinked,
        known=len(layouts) - len(fresh) - relinked,
        refused=refused,
        by_layout=Counter(layout for key, layout in layouts.items() if key not in names),
        joined=len(names.keys() & layouts.keys()),
        ambiguous=tuple(sorted(pairs.ambiguous & layouts.keys())),
        held_twice=joined.held_twice,
        links=sum(rows.found.num_rows for rows in linked),
        shared=tuple(shared_ids(linked)),
    )


def rejoin(ledger: Ledger, recordings: Recordings, day: date, *, now: datetime, run_id: str) -> bool:
    """Join what both sources tell of once more, by how it stands now; whether that changed anything.

    A recording that became final under one name is tried under its other one; what is held under the one is not fetched
    under the other.
    """
    is_stereo = pc.equal(recordings.rest["layout"], pa.scalar("stereo"))
    stereo = recordings.rest.filter(is_stereo).select(["account_id", "uii"])
    calls = {call_of(*call) for call in zip(*map(values, stereo.itercolumns()), strict=True) if call[1]}
    pairs = pairs_around(ledger, day, calls)
    if not pairs.partners:
        return False
    dates = set(values(pc.unique(recordings.rest["date"])))
    known = states_by_id(ledger.current(near(dates), pairs.partners))
    joined = join(pairs, known, now=now, run_id=run_id)
    ledger.append_states(joined.lines)
    return bool(joined.lines)


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


def _unsettled(
    linked: Sequence[LinkedRows], known: Known, allowed: AllowedLinks, now: datetime, run_id: str
) -> dict[str, RecordingState]:
    """The new line of each recording that is not known, or whose link is another one now, if that changes anything."""
    news = [rows.found["recording_id"].filter(pc.invert(known.say(rows.found))) for rows in linked]
    ids = pc.unique(pa.chunked_array([chunk for column in news for chunk in column.chunks], pa.string()))
    found: dict[str, RecordingState] = {}
    for rows in linked:
        for one in rows.states(ids, now=now, run_id=run_id):
            other = found.setdefault(one.recording_id, one)
            # Of several links to one recording the newest counts that may be requested.
            if other.link != one.link and (judged(one, allowed) is one or judged(other, allowed) is not other):
                found[one.recording_id] = one
    before = known.states(found)
    lines: dict[str, RecordingState] = {}
    for key, one in sorted(found.items()):
        if key not in before:
            lines[key] = judged(one, allowed)
        elif again := _relinked(before[key], one, allowed, now, run_id):
            lines[key] = again
    return lines


def _open_calls(linked: Iterable[LinkedRows], known: Known) -> set[Call]:
    """The calls of stereo recordings of which it is not known whether they have another name."""
    settled = pa.array(known.settled(), pa.string())
    calls: set[Call] = set()
    for rows in linked:
        columns = ROWS[rows.report]
        is_open = pc.invert(pc.is_in(rows.found["recording_id"], value_set=settled))
        is_leg = pc.equal(rows.found["layout"], pa.scalar("stereo"))
        legs = rows.rows.select(["account_id", columns.uii]).take(rows.found.filter(pc.and_(is_open, is_leg))["row"])
        both: list[list[Any]] = [legs[name].to_pylist() for name in ("account_id", columns.uii)]
        calls.update(call_of(account, uii) for account, uii in zip(*both, strict=True) if uii)
    return calls
