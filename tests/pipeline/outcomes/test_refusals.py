"""A 401 or 403 denies a recording only if others are given; else it stops the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageRefused
from pipelines.errors import ExpectedError
from pipelines.ledger.states import FINAL, Status
from pipelines.ringcx.errors import AccountUnknown
from pipelines.steps.fetch.fetcher import BREAK_AFTER
from tests.pipeline.outcomes.conftest import FIREWALL, MONTH, NOT_FOUND, REFUSED, Archiver, Source, answer, wav
from tests.pipeline.test_steps import fetched

IN_FLIGHT = 2 * 16  # attempts that a run has begun or queued


@pytest.mark.parametrize("refusal", [FIREWALL, REFUSED, answer(b"no", status="403 Forbidden", kind="text/plain")])
def test_refusals_after_recordings_that_were_given_stop_the_run_and_deny_nothing(
    source: Source, make_archiver: Callable[..., Archiver], refusal: bytes
) -> None:
    good = {f"a{number:03d}.WAV": answer(wav()) for number in range(30)}
    source.always(good | {f"b{number:03d}.WAV": refusal for number in range(170)})
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=5))
    for _ in range(3):
        with pytest.raises(ExpectedError, match=f"{BREAK_AFTER} recordings in a row"):
            archiver.run(hours=13)
    states = archiver.states
    assert {name for name, state in states.items() if state.status is Status.archived} == good.keys()
    assert not {state.status for state in states.values()} & FINAL
    # The last of the good ones may end after as many refusals as are in flight with it.
    assert sum(source.asked.values()) < len(good) + IN_FLIGHT + 3 * (BREAK_AFTER + IN_FLIGHT)
    source.always({name: answer(wav()) for name in states})
    archiver.run()
    assert {state.status for state in archiver.states.values()} == {Status.archived}


def test_recordings_that_are_refused_in_two_ways_are_named_with_both_remedies(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always({"a.WAV": FIREWALL, "b.WAV": REFUSED})
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=5))
    with pytest.raises(ExpectedError, match=r"lower RINGCX_LIMIT_MEDIA.*; check RINGCX_MEDIA_USERNAME"):
        archiver.run()


@pytest.mark.parametrize(("age", "end"), [(timedelta(days=30), Status.pending), (timedelta(days=95), Status.denied)])
def test_more_lasting_refusals_than_a_run_bears_end_denied_once_the_source_has_purged_the_recordings(
    source: Source, make_archiver: Callable[..., Archiver], age: timedelta, end: Status
) -> None:
    good = {f"a{number:03d}.WAV": answer(wav()) for number in range(5)}
    refusal = answer(b"no", status="403 Forbidden", kind="text/plain")
    source.always(good | {f"b{number:03d}.WAV": refusal for number in range(2 * BREAK_AFTER)})
    archiver = make_archiver(ARCHIVE_CONCURRENCY="1")
    archiver.register(age=age)
    for _ in range(4):  # the first and the second attempt at all of them
        with pytest.raises(ExpectedError, match=f"{BREAK_AFTER} recordings in a row"):
            archiver.run(hours=13)
        assert not {state.status for state in archiver.states.values()} & {Status.denied}
    with contextlib.suppress(ExpectedError):
        archiver.run()
    assert {name for name, state in archiver.states.items() if state.status is Status.archived} == good.keys()
    assert {state.status for state in archiver.states.values()} == {Status.archived, end}


def test_a_bucket_that_takes_nothing_stops_the_run_though_absent_recordings_come_between(
    source: Source, make_archiver: Callable[..., Archiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    source.always({f"{n:03d}.WAV": NOT_FOUND if n % 4 else answer(wav()) for n in range(8 * BREAK_AFTER)})
    archiver = make_archiver()
    source.answers["000.WAV"] = lambda _: answer(wav())
    archiver.register(age=MONTH)
    fetched(archiver.world.services(), archiver.states["000.WAV"])

    def refuses(*_: object, **__: object) -> None:
        raise StorageRefused("S3 took nothing")

    monkeypatch.setattr(Bucket, "put_new", refuses)
    with pytest.raises(StorageRefused, match="S3 took nothing"):
        archiver.run()
    assert sum(source.asked.values()) < 4 * BREAK_AFTER + 2 * IN_FLIGHT


def test_a_recording_that_is_refused_while_others_are_given_ends_denied(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always({"refused.WAV": REFUSED} | {f"x{number}.WAV": NOT_FOUND for number in range(3)})
    archiver = make_archiver(ARCHIVE_CONCURRENCY="1")
    archiver.register(age=timedelta(hours=5))
    for number in range(3):
        assert archiver.states["refused.WAV"].status is Status.pending
        source.answers[f"x{number}.WAV"] = lambda _: answer(wav())
        archiver.run(hours=13)
    assert archiver.states["refused.WAV"].status is Status.denied


def test_an_account_that_the_source_does_not_know_stops_the_run_with_its_sentence(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    body = b'{"generalMessage": "EvPlatform by rc_account_id=37439510 not found"}'
    source.always({f"{number}.WAV": answer(body, status="404 Not Found") for number in range(60)})
    archiver = make_archiver()
    archiver.register(age=timedelta(days=9))
    with pytest.raises(AccountUnknown, match="RINGCX_RC_ACCOUNT_ID"):
        archiver.run()
    assert {state.status for state in archiver.states.values()} == {Status.pending}
