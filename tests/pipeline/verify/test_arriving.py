"""`ringcx-archive verify` while a run writes, or after one was killed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.steps.fetch import fetcher
from pipelines.steps.seal import seal_day as seal
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import MakeWorld
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, LAST, Copy


def test_what_a_run_under_way_has_put_is_arriving_and_a_stray_of_the_same_age_is_a_discrepancy(
    make_world: MakeWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make_world(faults=Faults(late_links=Where(share=0.4, first=1)), ARCHIVE_PREFIX=ARCHIVE_PREFIX)
    watched, day, of_day = (
        Copy(world.s3, world.bucket, tmp_path, capsys),
        LAST,
        f"{ARCHIVE_PREFIX}recordings/date={LAST}/",
    )
    seen: list[tuple[int, set[str], set[str]]] = []

    def verify_now(clock: Callable[[], datetime] = world.clock) -> None:
        code = watched.verify(first=day, last=day, clock=clock)
        assert all("verify again after" in item["sentence"] for item in watched.result["arriving"])
        arriving, doubts = ({item["subject"] for item in watched.result[name]} for name in ("arriving", "doubts"))
        seen.append((code, arriving, doubts))

    def verify_before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def in_the_middle_of_a_run(*arguments: Any, **options: Any) -> Any:
            verify_now()
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, in_the_middle_of_a_run)

    verify_before(fetcher.Fetcher, "_write")  # objects are stored, and no state line says so
    verify_before(seal, "seal")  # states are written, and not sealed
    verify_before(seal, "_attest")  # sealed, and not attested
    for _ in range(2):
        seen.clear()
        before = world.objects(of_day).keys()
        assert world.run(day).success
        new = world.objects(of_day).keys() - before
        assert len(new) > 2
        assert [(code, doubts) for code, _, doubts in seen[:3]] == [(0, set())] * 3
        assert seen[0][1] >= new
        assert all(arriving for _, arriving, _ in seen[:3])
        assert (watched.result["good"], watched.result["verdict"] in {"waiting", "unknown"}) == (True, True)
        assert f"as sealed, {watched.result['sum']['arriving']} arriving" in watched.out
        verify_now()
        assert seen[-1] == (0, set(), set())
    stray = f"{ARCHIVE_PREFIX}recordings/date={day}/account_id=1/layout=mono/somebody.WAV"
    watched.put(stray, b"RIFF")
    verify_now()
    assert seen[-1] == (1, set(), {stray})


def test_what_a_killed_run_stored_is_arriving_only_as_long_as_a_run_may_write_it_down(
    make_world: MakeWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make_world(ARCHIVE_PREFIX=ARCHIVE_PREFIX)
    watched = Copy(world.s3, world.bucket, tmp_path, capsys)
    monkeypatch.setattr(Ledger, "append_states", _only_pending(Ledger.append_states))
    world.run(LAST)
    stored = set(world.objects(f"{ARCHIVE_PREFIX}recordings/date={LAST}/"))
    assert len(stored) > 5
    assert watched.verify(first=LAST, last=LAST, clock=world.clock) == 0
    assert stored <= {item["subject"] for item in watched.result["arriving"]}
    assert watched.verify(first=LAST, last=LAST) == 1
    assert stored <= {
        doubt["subject"] for doubt in watched.result["doubts"] if "run the date again" in doubt["sentence"]
    }
    assert watched.result["arriving"] == []


def _only_pending(append: Callable[..., None]) -> Callable[..., None]:
    def append_or_die(ledger: Ledger, states: list[RecordingState]) -> None:
        states = list(states)
        if any(state.status is Status.archived for state in states):
            raise SystemExit
        append(ledger, states)

    return append_or_die
