"""When two names are one recording: the rows that tell, and what becomes of the pair. Ledger in a folder, no source."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ledger.files import LocalFiles
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.schema import PullRecord, states_by_id
from pipelines.ledger.states import FINAL, RecordingState, Status, final
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import HostList, SegmentLinks
from pipelines.ringcx.reports.columns import INTERACTIONS
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.tables import parse_report
from pipelines.settings import Calendar
from pipelines.steps.fetch.work_queue import work_queue
from pipelines.steps.link.allowed_links import AllowedLinks
from pipelines.steps.link.matching import Call, Pairs, join, pairs_around
from pipelines.steps.link.register_links import LinksFound, matched_recordings, register_links
from pipelines.steps.link.rows import over_at, ready_at
from pipelines.steps.pull.windows import is_fresh
from tests.history import history
from tests.pulls import NO_ROWS

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 4, tzinfo=UTC)
UII = "202603020700000170070000000001"
ALLOWED = AllowedLinks(HostList(["*.vacd.biz"]), SegmentLinks("https://ringcx.example/voice/api", "3743"))
PAIR = Pairs({"1/old": "1/new", "1/new": "1/old"}, frozenset())


class Sources:
    """Both sources' rows of a few legs, put into a ledger as pulls would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ledger = Ledger(LocalFiles(folder / "ledger"), clock=lambda: NOW)

    def legacy(self, session: int, start: datetime, *, agent: str = "7", recorded: bool = True, day: date = DAY) -> str:
        path = f"perspective/1/202603/02/{UII}-session-{session}-stereo.WAV"
        url = f"https://a-recordings.vacd.biz/api/v1/calls/recordings?v=1&accountId=1&bucket=b&region=r&file={path}"
        row = {
            "uii": UII,
            "sessionId": str(session),
            "agentId": agent,
            "startDts": f"{start:%m/%d/%Y %H:%M:%S}",
            "duration": "00:00:30",
            "segmentRecordingUrl": url if recorded else "",
        }
        self._add("agent_segment_metadata", row, day)
        return f"1/{path}"

    def current(
        self, number: int, start: datetime, *, agent: str | None = "7", recorded: bool = True, day: date = DAY
    ) -> str:
        row = {
            "dialogId": "s-v-1",
            "segmentId": f"p-v-{number}",
            "interactionId": UII,
            "channelClass": "VOICE",
            "segmentType": "AGENT",
            "segmentParticipantId": agent,
            "segmentStartTimeMs": start.isoformat().replace("+00:00", "Z"),
            "segmentDurationMs": 30_000,
            "hasRecording": recorded,
        }
        self._add("interaction_metadata", row, day)
        return f"1/s-v-1/p-v-{number}"

    def _add(self, report: Any, row: dict[str, Any], day: date) -> None:
        file = self._folder / "body"
        file.write_text(json.dumps([row]))
        with file.open("rb") as body:
            table: pa.Table = with_row_identity(report, parse_report(report, body), "1")
        self.ledger.append_rows(report, day, table, account_id="1", pulled_at=NOW, run_id="pull")

    def register(self, day: date = DAY, *, now: datetime = NOW) -> LinksFound:
        return register_links(
            self.ledger, day, Calendar(archive_timezone="UTC"), allowed=ALLOWED, now=now, run_id="run"
        )

    def pairs(self) -> Pairs:
        return pairs_around(self.ledger, DAY, {Call("1", UII)})


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


@pytest.mark.parametrize("apart", [0.0, 0.9, 4.0, 10.0])
def test_legs_of_one_agent_that_start_within_seconds_are_one(sources: Sources, apart: float) -> None:
    old = sources.legacy(2, NOON)
    new = sources.current(1, NOON + timedelta(seconds=apart))
    assert sources.pairs().partners == {old: new, new: old}


@pytest.mark.parametrize("other", [{"agent": "8"}, {"start": NOON + timedelta(seconds=11)}, {"recorded": False}])
def test_another_agent_another_start_or_no_recording_is_another_leg(sources: Sources, other: dict[str, Any]) -> None:
    sources.legacy(2, NOON)
    sources.current(1, other.pop("start", NOON), **other)
    assert sources.pairs() == Pairs({}, frozenset())


def test_legs_of_one_agent_within_seconds_of_each_other_are_told_apart_where_the_clocks_agree(sources: Sources) -> None:
    old = [sources.legacy(2, NOON), sources.legacy(3, NOON + timedelta(seconds=4))]
    new = [sources.current(1, NOON), sources.current(2, NOON + timedelta(seconds=4.5))]
    pairs = sources.pairs()
    assert {name: pairs.partners[name] for name in old} == dict(zip(old, new, strict=True))
    assert not pairs.ambiguous


def test_where_more_than_one_fits_or_the_agent_is_not_said_both_are_kept_and_it_is_said(sources: Sources) -> None:
    old = {sources.legacy(2, NOON), sources.legacy(3, NOON + timedelta(seconds=6))}
    new = {sources.current(1, NOON + timedelta(seconds=3))}
    assert sources.pairs() == Pairs({}, frozenset(old | new))
    found = sources.register()
    counts = found.counts
    assert (counts["recordings_found"], counts["recordings_new"], counts["of_both_sources"]) == (3, 3, 0)
    assert set(found.ambiguous) == old | new
    states = sources.ledger.states([DAY])
    assert {recording.status for recording in states.values()} == {Status.pending}
    assert {recording.warnings for recording in states.values()} == {("ambiguous_match",)}


def test_an_agent_that_is_not_said_leaves_the_match_open(sources: Sources) -> None:
    both = {sources.legacy(2, NOON), sources.current(1, NOON, agent=None)}
    assert sources.pairs().ambiguous == both


def test_whoever_is_known_first_is_the_recording_and_the_other_its_name(sources: Sources, tmp_path: Path) -> None:
    old = sources.legacy(2, NOON)
    assert sources.register().counts["recordings_new"] == 1
    new = sources.current(1, NOON)  # the other source, a day later
    counts = sources.register(now=NOW + timedelta(days=1)).counts
    assert [counts[f"recordings_{name}"] for name in ("found", "new", "known")] == [1, 1, 1]
    assert counts["of_both_sources"] == 1
    assert sources.ledger.states([DAY]).keys() == {old}
    assert states_by_id(sources.ledger.current([DAY]))[new].same_as == old
    assert sources.ledger.pending(DAY)[0].recording_id == old
    assert sources.register(now=NOW + timedelta(days=2)).counts["of_both_sources"] == 1
    lines = history(LedgerParts(LocalFiles(tmp_path / "ledger")), DAY, new)
    assert [line.same_as for line in lines] == [None, old]  # registered, then joined, and nothing after that


def test_a_leg_over_midnight_is_joined_whichever_dates_run_comes_last(tmp_path: Path) -> None:
    late = datetime(2026, 3, 2, 23, 59, 58, tzinfo=UTC)
    for number, first in enumerate((DAY, DAY + timedelta(days=1))):
        (tmp_path / str(number)).mkdir()
        sources = Sources(tmp_path / str(number))
        old = sources.legacy(2, late)
        new = sources.current(1, late + timedelta(seconds=3), day=DAY + timedelta(days=1))  # told of by its end
        days = [DAY, DAY + timedelta(days=1)]
        for minutes, day in enumerate(days if first == DAY else reversed(days)):
            sources.register(day, now=NOW + timedelta(minutes=minutes))
        states = sources.ledger.states(days)
        assert list(states) == [old if first == DAY else new]
        (name,) = states_by_id(sources.ledger.current(days)).keys() - states.keys()
        # The name is told of on the recording's own date, whatever date its start would put it under.
        assert states_by_id(sources.ledger.current([states[next(iter(states))].date]))[name].same_as in states


@pytest.mark.parametrize("main", ["legacy", "current"])
def test_the_other_id_of_a_recording_is_tried_when_that_one_is_given_up(sources: Sources, main: str) -> None:
    tell = {"legacy": lambda: sources.legacy(2, NOON), "current": lambda: sources.current(1, NOON)}
    given_up = tell.pop(main)()
    sources.register()
    (name,) = [other() for other in tell.values()]
    sources.register(now=NOW + timedelta(minutes=1))
    (waiting,) = sources.ledger.pending(DAY)
    assert waiting.recording_id == given_up
    now = NOW + timedelta(days=40)
    sources.ledger.append_states([final(waiting, Status.missing, "not_found", now, "run")])

    recordings = matched_recordings(sources.ledger, DAY, (), now=now, run_id="run")
    queue = work_queue(recordings, ALLOWED, "", now=now, run_id="run")
    assert {item.state.recording_id for item in queue} == {name}
    assert matched_recordings(sources.ledger, DAY, (), now=now, run_id="run").by_status() == {
        Status.archived: 0,
        Status.missing: 1,
        Status.pending: 1,
    }


def state(recording_id: str, status: Status, *, first: int, same_as: str | None = None) -> RecordingState:
    held = {"key": "k", "size": 1, "sha256": "s"} if status is Status.archived else {}
    return RecordingState(
        recording_id=recording_id,
        account_id="1",
        uii=UII,
        layout="stereo",
        source="agent_segment_metadata" if recording_id == "1/old" else "interaction_metadata",
        date=DAY,
        status=status,
        next_attempt_at=NOW if status is Status.pending else None,
        run_id="r",
        written_at=NOW,
        link="https://x.vacd.biz/",
        found_on=DAY,
        first_seen_at=NOW + timedelta(minutes=first),
        same_as=same_as,
        **held,
    )


@pytest.mark.parametrize(
    ("ended", "due"),
    [(NOW - timedelta(minutes=4), NOW + timedelta(minutes=11)), (NOW - timedelta(days=1), NOW), (None, NOW)],
)
def test_a_recording_is_asked_for_a_quarter_of_an_hour_after_its_call(ended: datetime | None, due: datetime) -> None:
    row = {"dialog_end_time_ms": ended.isoformat() if ended else None}
    assert ready_at(INTERACTIONS, over_at(INTERACTIONS, row), NOW) == due


@pytest.mark.parametrize(
    ("age", "hours"),
    [
        (timedelta(minutes=15), 0.75),  # until it is settled
        (timedelta(hours=1), 1),
        (timedelta(hours=5), 5),
        (timedelta(days=300), 12),
    ],
)
def test_a_window_is_fresh_as_long_again_as_it_had_been_over_once_it_is_settled(age: timedelta, hours: float) -> None:
    pull = PullRecord(
        report="interaction_metadata_window",
        day=DAY,
        account_id="1",
        period_start=NOW - age - timedelta(hours=3),
        period_end=NOW - age,
        pulled_at=NOW,
        run_id="r",
        sha256="",
        **NO_ROWS,
    )
    assert is_fresh(pull, NOW + timedelta(hours=hours, seconds=-1))
    assert not is_fresh(pull, NOW + timedelta(hours=hours))


STATES = st.sampled_from(list(Status))


@given(STATES, STATES, st.integers(0, 1), st.integers(0, 1))
def test_a_pair_ends_with_at_most_one_waiting_and_never_loses_what_may_be_had(
    old: Status, new: Status, first: int, second: int
) -> None:
    known = {"1/old": state("1/old", old, first=first), "1/new": state("1/new", new, first=second)}
    after = known | {line.recording_id: line for line in join(PAIR, known, now=NOW, run_id="r")}
    plain = [line for line in after.values() if line.same_as is None]
    assert plain
    if Status.archived in {old, new}:
        assert {line.status for line in plain} == {Status.archived}
    elif Status.pending in {old, new}:
        assert [line.status for line in plain].count(Status.pending) == 1
    again = join(PAIR, after, now=NOW, run_id="r")
    assert not again  # nothing goes back and forth


@given(st.sampled_from([Status.pending, Status.archived, *FINAL]))
def test_a_name_becomes_a_recording_again_only_when_its_recording_is_given_up(main: Status) -> None:
    known = {"1/old": state("1/old", main, first=0)}
    known["1/new"] = replace(state("1/new", Status.rejected, first=1), same_as="1/old")
    lines = join(PAIR, known, now=NOW, run_id="r")
    assert [(line.recording_id, line.status, line.same_as, line.epoch) for line in lines] == (
        [("1/new", Status.pending, None, 1)] if main in FINAL else []
    )


def test_what_is_held_under_both_names_is_counted_once(sources: Sources) -> None:
    names = sources.legacy(2, NOON), sources.current(1, NOON)
    assert sources.register().counts["held_twice"] == 0
    sources.ledger.append_states([state(name, Status.archived, first=0) for name in names])
    assert sources.register().counts["held_twice"] == 1
