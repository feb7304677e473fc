"""Registration of the links of a date's rows as recordings to be fetched.

Links that must not be requested become `rejected` immediately, so that they are explained and not just absent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.schema import states_by_id, values
from pipelines.ledger.states import FINAL, RecordingState, Status, final, reopened
from pipelines.ledger.store import Ledger
from pipelines.settings import Calendar
from pipelines.steps.link.allowed_links import LINK_REFUSED, AllowedLinks
from pipelines.steps.link.extract_links import ExtractedLinks, extract_links, shared_ids
from pipelines.steps.link.matching import AMBIGUOUS, Call, join, pairs_around
from pipelines.steps.link.recording_date import near
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable, recordings_of


@dataclass(frozen=True, slots=True)
class LinksFound:
    """The links in a date's rows: `counts` of recordings, `links_…` of links; `refused`: counts of links by reason.

    `ambiguous`: recordings that may equal one of the other source (docs/migration.md); `shared`: ids of recordings that
    rows of more than one call name.
    """

    counts: Mapping[str, int]
    refused: Counter[str]
    ambiguous: Sequence[str]
    shared: Sequence[str]


def register_links(
    ledger: Ledger, day: date, calendar: Calendar, *, allowed: AllowedLinks, now: datetime, run_id: str
) -> LinksFound:
    """Register every recording that `day`'s rows link to, if it has no state yet.

    A `pending` recording whose link changed takes the new link and is due immediately, and so is one whose link was
    refused, if the new link is allowed. Recordings of both sources are matched (`matching.py`).
    """
    links = extract_links(ledger, day, calendar, with_links=True, segments=allowed.segments)
    days = near(links.days)
    lines = ledger.current(days)
    before = LedgerSnapshot(lines)
    states = _new_states(links, before, allowed, now, run_id)
    added = states.keys() - before.ids
    pairs = pairs_around(ledger, day, _open_calls(links, before))
    for key in pairs.ambiguous & added:
        states[key] = replace(states[key], warnings=(AMBIGUOUS,))
    ledger.append_states(states.values())
    after: dict[str, RecordingState] = {}
    if pairs.partners:
        # A neighbouring date's run may have registered the other name meanwhile: the run that writes last sees both.
        after = states_by_id(ledger.current(days, pairs.partners))
        joined = join(pairs, after, now=now, run_id=run_id)
        ledger.append_states(joined)
        after |= {line.recording_id: line for line in joined}
    names = before.names | {key: state.same_as or key for key, state in after.items()}
    held = {key for key, state in after.items() if state.status is Status.archived}
    layouts = dict(zip(values(links.table["recording_id"]), values(links.table["layout"]), strict=True))
    mains = {key: names.get(key, key) for key in layouts}
    by_layout = Counter(layout for key, layout in layouts.items() if mains[key] == key)
    reasons = (states[key].reason for key in added)
    refused = Counter(reason.removeprefix(LINK_REFUSED) for reason in reasons if reason is not None)
    ambiguous = sorted(pairs.ambiguous & layouts.keys())
    counts = {
        "recordings_found": len(set(mains.values())),
        "recordings_new": len(added),
        "recordings_known": len(layouts) - len(states),
        "links_in_rows": links.table.num_rows,
        "mono": by_layout["mono"],
        "stereo": by_layout["stereo"],
        "links_changed": len(states) - len(added),
        "links_refused": refused.total(),
        "of_both_sources": sum(main != key for key, main in mains.items()),
        "ambiguous": len(ambiguous),
        "held_twice": sum({name, partner} <= held for name, partner in pairs.partners.items()) // 2,
    }
    return LinksFound(counts, refused, ambiguous, shared_ids(links, lines))


def matched_recordings(
    ledger: Ledger, day: date, linked: Iterable[date], *, now: datetime, run_id: str
) -> RecordingsTable:
    """Match both sources once more by their current states, and return the recordings that concern a run of `day`.

    A recording that became final under one name is tried under its other name; one that is held is not fetched again.
    """
    recordings = recordings_of(ledger, day, linked)
    pairs = pairs_around(ledger, day, _calls(recordings.rest))
    if pairs.partners:
        dates = set(values(pc.unique(recordings.rest["date"])))
        states = states_by_id(ledger.current(near(dates), pairs.partners))
        if lines := join(pairs, states, now=now, run_id=run_id):
            ledger.append_states(lines)
            return recordings_of(ledger, day, linked)
    return recordings


def if_allowed(state: RecordingState, allowed: AllowedLinks) -> RecordingState:
    """Return `state`, or its rejection if the current settings do not allow its link."""
    refusal = allowed.refusal(state)
    if refusal is None:
        return state
    return final(state, Status.rejected, f"{LINK_REFUSED}{refusal}", state.written_at, state.run_id, attempted=False)


def _new_states(
    links: ExtractedLinks, before: LedgerSnapshot, allowed: AllowedLinks, now: datetime, run_id: str
) -> dict[str, RecordingState]:
    """Return the states to write: of new recordings, and of those whose changed link matters."""
    changed = links.table["recording_id"].filter(pc.invert(before.has_links(links.table)))
    found: dict[str, RecordingState] = {}
    for state in links.states(pc.unique(changed.combine_chunks()), now=now, run_id=run_id):
        other = found.setdefault(state.recording_id, state)
        if other.link == state.link:
            continue
        # Of several links to one recording the newest that may be requested counts.
        if allowed.refusal(state) is None or allowed.refusal(other) is not None:
            found[state.recording_id] = state
    stored = before.states(found)
    states: dict[str, RecordingState] = {}
    for key, state in sorted(found.items()):
        new = _relinked(stored[key], state, allowed) if key in stored else if_allowed(state, allowed)
        if new is not None:
            states[key] = new
    return states


def _relinked(before: RecordingState, state: RecordingState, allowed: AllowedLinks) -> RecordingState | None:
    """Return the state of a known recording whose link is now `state`'s; None if that changes nothing."""
    now, run_id = state.written_at, state.run_id
    if before.link == state.link or not state.link or before.same_as:
        return None
    if before.status is Status.pending:
        return if_allowed(replace(before, link=state.link, next_attempt_at=now, run_id=run_id, written_at=now), allowed)
    if (before.reason or "").startswith(LINK_REFUSED):
        again = reopened(replace(before, link=state.link), "link_corrected", now, run_id)
        return again if allowed.refusal(again) is None else None
    if before.status in FINAL:  # a link may expire: it is the newest that is tried on request
        return replace(before, link=state.link, run_id=run_id, written_at=now)
    return None


def _open_calls(links: ExtractedLinks, before: LedgerSnapshot) -> set[Call]:
    """Return the calls of stereo recordings that may still be matched with the other source's."""
    mains = before.states(before.names.values())
    # Nothing is left to do for another name of a recording that is not final.
    named = [key for key, main in before.names.items() if main in mains and mains[main].status not in FINAL]
    settled = pa.array(named, pa.string())
    return _calls(links.table.filter(pc.invert(pc.is_in(links.table["recording_id"], value_set=settled))))


def _calls(lines: pa.Table) -> set[Call]:
    """Return the calls of the stereo recordings among these lines."""
    lines = lines.filter(pc.equal(lines["layout"], pa.scalar("stereo")))
    calls = zip(values(lines["account_id"]), values(lines["uii"]), strict=True)
    return {Call.of(account_id, uii) for account_id, uii in calls if uii}
