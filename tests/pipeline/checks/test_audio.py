"""The check `audio_is_true`."""

from __future__ import annotations

from datetime import date

from pipelines.archive.wav import duration_differs
from pipelines.ledger.states import Status
from sandbox.faults import Faults, Where
from tests.pipeline.checks.conftest import (
    FEW,
    OLD,
    STEREO,
    WARN,
    check,
    fetch,
    figures,
    known_recording,
    rows,
    serving,
    states_of,
    wav,
)
from tests.pipeline.conftest import MakeWorld


def test_a_recording_with_a_silent_channel_is_held_and_named(make_world: MakeWorld, recent: list[date]) -> None:
    with serving(wav(8, left=9000, right=3)) as host:
        world = make_world(RINGCX_MEDIA_HOSTS=host, sandbox=FEW)
        named = known_recording(world, recent[0], host, expected_s=8)
        assert world.run(recent[0], select=["recordings"]).success
    assert world.states(recent[0])[named.recording_id].status is Status.archived
    found = check(world, "audio_is_true", recent[0])
    assert (found.passed, found.severity) == (False, WARN)
    (row,) = rows(found, "sample")
    assert (row["recording"], row["condition"]) == (named.recording_id, "channel_2_silent")
    assert f"Of the recordings of {recent[0]}, 1 has a silent channel. Listen" in (found.description or "")


def test_a_recording_of_another_length_than_reported_is_named(make_world: MakeWorld, recent: list[date]) -> None:
    with serving(wav(8, left=9000, right=9000)) as host:
        world = make_world(RINGCX_MEDIA_HOSTS=host, sandbox=FEW)
        named = known_recording(world, recent[0], host, expected_s=90)
        assert world.run(recent[0], select=["recordings"]).success
    found = check(world, "audio_is_true", recent[0])
    assert (found.passed, found.severity) == (False, WARN)
    (row,) = rows(found, "sample")
    assert (row["recording"], row["condition"]) == (named.recording_id, "duration_differs: 8 s, reported 90 s")
    assert f"Of the recordings of {recent[0]}, 1 differs in length from the report. Listen" in (found.description or "")


def test_recordings_of_nothing_but_a_header_are_named(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(header_only=Where(paths=STEREO)), sandbox=FEW)
    world.run_until_final(OLD)
    found = check(world, "audio_is_true", OLD)
    assert not found.passed
    empty = {state.recording_id for state in states_of(world, OLD, Status.rejected)}
    assert figures(found)["header_only"] == len(empty) > 0
    assert {row["recording"] for row in rows(found, "sample")} <= empty


def test_a_call_recorded_in_two_parts_has_the_length_of_both(make_world: MakeWorld) -> None:
    world = make_world(sandbox={**FEW, "talk_seconds": (9, 14)})
    day = date(2026, 3, 3)
    parts = [recording for recording in world.truth(day) if recording["file"].endswith("-2.WAV")]
    assert parts, "the sandbox has a call whose recording was stopped and started again"
    fetch(world, day)
    for part in parts:
        state = world.states(day)[part["recording_id"]]
        assert duration_differs(state.expected_duration_s, state.duration_s), "one part alone is not the call"
    found = check(world, "audio_is_true", day)
    assert found.passed, found.description
