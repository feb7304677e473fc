"""Final states that are tried again on purpose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from pipelines.ledger.states import Status
from sandbox.faults import Faults, Where
from tests.history import history
from tests.pipeline.checks.conftest import FEW, OLD, STEREO, check, fetch, run, states_of
from tests.pipeline.conftest import World


def test_retry_final_takes_what_the_source_has_healed_and_keeps_the_history(world: Callable[..., World]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    lost = states_of(it, OLD, Status.missing)
    assert lost
    it.sandbox.reset()
    it.sandbox.set_faults(Faults())
    assert run(it, OLD).success
    assert it.sandbox.counters()["requests"].get("media", 0) == 0, "nothing final is tried without being asked"
    result = run(it, OLD, retry_final=True)
    assert result.success
    assert it.metadata(result, "recordings")["reopened_now"] == len(lost)
    assert not states_of(it, OLD, Status.missing)
    for state in lost:
        found = history(it.services().ledger.parts, OLD, state.recording_id)
        assert [(line.status, line.epoch) for line in found] == [
            *[(Status.pending, 0)] * 3,
            (Status.missing, 0),
            (Status.pending, 1),
            (Status.archived, 1),
        ]
        assert found[4].reason == "retry_requested"
    assert check(it, "every_recording_is_accounted_for", OLD).passed


def test_a_retry_of_what_is_still_gone_ends_where_it_was_by_the_same_rule(world: Callable[..., World]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    lost = states_of(it, OLD, Status.missing)
    assert run(it, OLD, retry_final=True).success
    assert not states_of(it, OLD, Status.missing)
    it.run_until_final(OLD)
    again = {state.recording_id: state for state in states_of(it, OLD, Status.missing)}
    assert again.keys() == {state.recording_id for state in lost}
    assert {state.epoch for state in again.values()} == {1}
    assert {state.attempts for state in again.values()} == {3}


def test_only_the_named_recordings_are_tried_again(world: Callable[..., World]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    chosen, *others = states_of(it, OLD, Status.missing)
    it.sandbox.set_faults(Faults())
    assert run(it, OLD, retry_recording_ids=[chosen.recording_id]).success
    states = it.states(OLD)
    assert states[chosen.recording_id].status is Status.archived
    assert {states[state.recording_id].status for state in others} == {Status.missing}


def test_an_unknown_id_ends_the_run_with_one_sentence_and_changes_nothing(world: Callable[..., World]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    before = it.states(OLD)
    known = states_of(it, OLD, Status.missing)[0].recording_id
    result = run(it, OLD, retry_recording_ids=[known, "15300002/no/such.WAV"])
    assert not result.success
    sentence = it.failures(result)["recordings"]
    assert "'15300002/no/such.WAV'" in sentence
    assert str(OLD) in sentence
    assert known not in sentence
    assert it.states(OLD) == before


def test_a_held_recording_whose_object_was_lost_is_fetched_again_when_named(
    world: Callable[..., World], recent: list[date]
) -> None:
    it = world(sandbox=FEW)
    fetch(it, recent[0])
    gone, kept = states_of(it, recent[0], Status.archived)[:2]
    it.s3.delete_object(Bucket=it.bucket, Key=gone.key)
    it.sandbox.reset()
    assert run(it, recent[0], retry_recording_ids=[gone.recording_id, kept.recording_id]).success
    assert it.objects()[gone.key] == gone.sha256
    assert it.sandbox.counters()["requests"]["media"] == 1, "an object that is already in the bucket is adopted"
    assert check(it, "every_recording_is_accounted_for", recent[0]).passed


def test_a_link_that_is_still_not_allowed_stays_rejected_when_a_retry_is_asked_for(
    world: Callable[..., World], recent: list[date]
) -> None:
    it = world(RINGCX_MEDIA_HOSTS="recordings.example.com", sandbox=FEW)
    fetch(it, recent[0])
    before = it.states(recent[0])
    result = run(it, recent[0], retry_final=True)
    assert result.success
    assert it.metadata(result, "recordings")["still_not_allowed"] >= len(before) > 0
    assert it.states(recent[0]) == before
    assert it.sandbox.counters()["requests"].get("media", 0) == 0
