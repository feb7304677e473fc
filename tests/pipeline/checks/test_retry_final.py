"""Final states that are tried again on purpose."""

from __future__ import annotations

from datetime import date

from pipelines.ledger.states import Status
from sandbox.faults import Faults, Where
from tests.history import history
from tests.pipeline.checks.conftest import FEW, OLD, STEREO, check, fetch, run, states_of
from tests.pipeline.conftest import MakeWorld


def test_retry_final_takes_what_the_source_has_healed_and_keeps_the_history(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    world.run_until_final(OLD)
    lost = states_of(world, OLD, Status.missing)
    assert lost
    world.sandbox.reset()
    world.sandbox.set_faults(Faults())
    assert run(world, OLD).success
    assert world.sandbox.counters()["requests"].get("media", 0) == 0, "nothing final is tried without being asked"
    result = run(world, OLD, retry_final=True)
    assert result.success
    assert world.metadata(result, "recordings")["reopened_now"] == len(lost)
    assert not states_of(world, OLD, Status.missing)
    for state in lost:
        found = history(world.services().ledger.parts, OLD, state.recording_id)
        assert [(line.status, line.epoch) for line in found] == [
            *[(Status.pending, 0)] * 3,
            (Status.missing, 0),
            (Status.pending, 1),
            (Status.archived, 1),
        ]
        assert found[4].reason == "retry_requested"
    assert check(world, "every_recording_is_accounted_for", OLD).passed


def test_a_retry_of_what_is_still_gone_ends_where_it_was_by_the_same_rule(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    world.run_until_final(OLD)
    lost = states_of(world, OLD, Status.missing)
    assert run(world, OLD, retry_final=True).success
    assert not states_of(world, OLD, Status.missing)
    world.run_until_final(OLD)
    again = {state.recording_id: state for state in states_of(world, OLD, Status.missing)}
    assert again.keys() == {state.recording_id for state in lost}
    assert {state.epoch for state in again.values()} == {1}
    assert {state.attempts for state in again.values()} == {3}


def test_only_the_named_recordings_are_tried_again(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    world.run_until_final(OLD)
    chosen, *others = states_of(world, OLD, Status.missing)
    world.sandbox.set_faults(Faults())
    assert run(world, OLD, retry_recording_ids=[chosen.recording_id]).success
    states = world.states(OLD)
    assert states[chosen.recording_id].status is Status.archived
    assert {states[state.recording_id].status for state in others} == {Status.missing}


def test_an_unknown_id_ends_the_run_with_one_sentence_and_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    world.run_until_final(OLD)
    before = world.states(OLD)
    known = states_of(world, OLD, Status.missing)[0].recording_id
    result = run(world, OLD, retry_recording_ids=[known, "15300002/no/such.WAV"])
    assert not result.success
    sentence = world.failures(result)["recordings"]
    assert "'15300002/no/such.WAV'" in sentence
    assert str(OLD) in sentence
    assert known not in sentence
    assert world.states(OLD) == before


def test_a_held_recording_whose_object_was_lost_is_fetched_again_when_named(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(sandbox=FEW)
    fetch(world, recent[0])
    gone, kept = states_of(world, recent[0], Status.archived)[:2]
    world.s3.delete_object(Bucket=world.bucket, Key=gone.key)
    world.sandbox.reset()
    assert run(world, recent[0], retry_recording_ids=[gone.recording_id, kept.recording_id]).success
    assert world.objects()[gone.key] == gone.sha256
    assert world.sandbox.counters()["requests"]["media"] == 1, "an object that is already in the bucket is adopted"
    assert check(world, "every_recording_is_accounted_for", recent[0]).passed


def test_a_link_that_is_still_not_allowed_stays_rejected_when_a_retry_is_asked_for(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(RINGCX_MEDIA_HOSTS="recordings.example.com", sandbox=FEW)
    fetch(world, recent[0])
    before = world.states(recent[0])
    result = run(world, recent[0], retry_final=True)
    assert result.success
    assert world.metadata(result, "recordings")["still_not_allowed"] >= len(before) > 0
    assert world.states(recent[0]) == before
    assert world.sandbox.counters()["requests"].get("media", 0) == 0
