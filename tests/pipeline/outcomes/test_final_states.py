"""Nothing is final early, and what stops a run makes nothing final."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from pipelines.errors import ExpectedError
from pipelines.ledger.states import Status
from pipelines.steps.fetch.fetcher import BREAK_AFTER
from tests.pipeline.outcomes.conftest import MONTH, NOT_FOUND, PAGE, Archiver, Source, after, answer, wav

BAD = {
    "missing.WAV": NOT_FOUND,
    "encoding.WAV": answer(b"", status="202 Accepted"),
    "empty.WAV": answer(b""),
    "page.WAV": PAGE,
    "json.WAV": answer(b'{"error": 1}', kind="application/json"),
    "header.WAV": answer(wav(0)),
    "short.WAV": answer(wav()[:4000], framed=False),
}


def test_recordings_that_are_bad_twice_and_then_good_are_all_archived_however_old_they_are(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.answers = {name: after([bad] * 2, answer(wav())) for name, bad in BAD.items()}
    archiver = make_archiver()
    archiver.register(age=MONTH)
    for _ in range(2):
        archiver.run(hours=13)
        assert {state.status for state in archiver.states.values()} == {Status.pending}
    archiver.run()
    assert {state.status for state in archiver.states.values()} == {Status.archived}


def test_no_number_of_attempts_within_a_day_is_enough_for_a_final_state(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    archiver = make_archiver()
    archiver.register(age=MONTH)
    for _ in range(6):
        archiver.run(hours=4)
    assert {state.status for state in archiver.states.values()} == {Status.pending}
    archiver.run()
    assert {state.status for state in archiver.states.values()} == {Status.missing, Status.rejected}


def test_two_attempts_are_not_enough_for_a_final_state_however_far_apart(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    archiver = make_archiver()
    archiver.register(age=MONTH)
    archiver.run(hours=240)
    archiver.run()
    assert {state.status for state in archiver.states.values()} == {Status.pending}


def test_a_day_is_counted_from_the_first_attempt_and_not_from_when_a_link_was_seen(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    archiver = make_archiver()
    archiver.register(age=MONTH)
    archiver.world.passed = timedelta(days=5)
    for _ in range(3):
        archiver.run(hours=1)
    assert {state.status for state in archiver.states.values()} == {Status.pending}


def test_as_many_404s_as_the_run_bears_stop_it_with_the_account_and_nothing_is_final(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always({f"{number:03d}.WAV": NOT_FOUND for number in range(200)})
    archiver = make_archiver()
    archiver.register(age=timedelta(days=9))
    for _ in range(3):
        with pytest.raises(ExpectedError, match="RINGCX_RC_ACCOUNT_ID"):
            archiver.run(hours=13)
    assert {state.status for state in archiver.states.values()} == {Status.pending}


def test_recordings_that_are_minutes_old_or_still_encoded_may_all_be_absent(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always({f"{number:03d}.WAV": NOT_FOUND for number in range(BREAK_AFTER + 5)})
    archiver = make_archiver()
    archiver.register(age=timedelta(minutes=20))
    archiver.run()
    assert {(state.status, state.attempts) for state in archiver.states.values()} == {(Status.pending, 1)}
    source.always({name: answer(b"", status="202 Accepted") for name in archiver.states})
    archiver.world.passed += timedelta(hours=5)
    archiver.run()
    assert {(state.reason, state.attempts) for state in archiver.states.values()} == {("still_encoding", 2)}
