"""Killed and concurrent writers, as real processes."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from tests.ledger.conftest import Location
from tests.servers.rclone import Rclone

DAY = date(2026, 11, 18)
REPORT = "agent_segment_metadata"
LINES = 200

ENDLESS = f"""
while True:
    rows = pa.table({{
        "row_key": [f"{{os.getpid()}}-{{os.urandom(8).hex()}}" for _ in range({LINES})],
        "row_hash": ["1"] * {LINES},
        "note": [os.urandom(60_000).hex() for _ in range({LINES})],
    }})
    ledger.append_rows("{REPORT}", day, rows, account_id="1", pulled_at=datetime.now(UTC), run_id="killed")
"""

WRITER = f"""
writer, parts = sys.argv[2], int(sys.argv[3])
now = datetime.now(UTC)
for part in range(parts):
    keys = [f"{{writer}}-{{part}}-{{n}}" for n in range(20)]
    rows = pa.table({{"row_key": keys + ["shared"], "row_hash": [writer] * 21}})
    ledger.append_rows("{REPORT}", day, rows, account_id="1", pulled_at=datetime.now(UTC), run_id=writer)
    ledger.append_states(
        RecordingState(recording_id=key, account_id="1", uii="u", layout="mono", source="{REPORT}", date=day,
                       status=Status.pending, run_id=writer, written_at=now, link="https://x.vacd.biz/a",
                       found_on=day, first_seen_at=now, next_attempt_at=now)
        for key in keys)
"""


def killed_while(seen: Callable[[], bool], child: Any) -> None:
    deadline = time.monotonic() + 20
    while not seen():
        assert child.poll() is None, "the writer ended by itself"
        assert time.monotonic() < deadline, "the writer never came to write"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)


def whole_parts(ledger: Ledger) -> int:
    """Read everything; every part that is there must have all its lines."""
    found = ledger.latest_rows(REPORT, DAY)
    killed = [run for run in found["run_id"].to_pylist() if run == "killed"]
    assert len(killed) % LINES == 0
    return len(killed) // LINES


@pytest.mark.parametrize("location", ["local"], indirect=True)
def test_a_writer_killed_in_mid_write_leaves_a_readable_ledger(
    location: Location, a_state: Callable[..., RecordingState]
) -> None:
    ledger, root = location.ledger(), Path(location.description["root"])
    ledger.append_states([a_state()])
    halves = 0
    for _ in range(8):
        before = set(root.glob(".unfinished/*"))
        child = location.run(ENDLESS)
        killed_while(lambda known=before: any(p.stat().st_size for p in set(root.glob(".unfinished/*")) - known), child)
        whole_parts(ledger)
        assert len(ledger.states([DAY])) == 1
        halves = len(list(root.glob(".unfinished/*")))
        if halves:
            break
    assert halves, "never killed in mid-write: the test proved nothing"
    parts = whole_parts(ledger)
    ledger.append_rows(
        REPORT,
        DAY,
        ledger.latest_rows(REPORT, DAY, columns=["row_key", "row_hash"]).slice(0, 0),
        account_id="1",
        pulled_at=datetime.now(UTC),
        run_id="after",
    )
    assert whole_parts(ledger) == parts


@pytest.mark.parametrize("location", ["rclone"], indirect=True)
def test_a_writer_killed_while_it_uploads_leaves_a_readable_ledger(location: Location) -> None:
    assert isinstance(location.server, Rclone)
    folder = location.server.folder / location.description["bucket"] / location.description["prefix"]
    ledger = location.ledger()

    def begun() -> set[Path]:
        return {path for path in folder.rglob("*") if path.is_file()}

    lost = 0
    for _ in range(6):
        before = begun()
        child = location.run(ENDLESS)
        killed_while(lambda known=before: bool(begun() - known), child)
        time.sleep(0.3)  # for the server to notice that nobody sends any more
        lost += begun() == before
        whole_parts(ledger)
        if lost:
            break
    assert lost, "never killed while it uploaded: the test proved nothing"


def test_processes_that_append_at_once_lose_nothing(location: Location) -> None:
    children = [location.run(WRITER, f"writer-{n}", "6") for n in range(3)]
    for child in children:
        assert child.wait(60) == 0
    ledger = location.ledger()
    expected = {f"writer-{w}-{part}-{n}" for w in range(3) for part in range(6) for n in range(20)}
    found = ledger.latest_rows(REPORT, DAY, columns=["row_key"])["row_key"].to_pylist()
    assert set(found) == expected | {"shared"}
    assert len(found) == len(expected) + 1
    assert ledger.all_rows(REPORT, DAY).num_rows == 3 * 6 * 21
    states = ledger.states([DAY])
    assert set(states) == expected
    assert {state.status for state in states.values()} == {Status.pending}


def test_threads_that_share_a_ledger_lose_nothing(location: Location, a_state: Callable[..., RecordingState]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ledger = location.ledger(clock=lambda: datetime(2026, 11, 18, tzinfo=UTC))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.append_states([a_state(recording_id=str(n))]), range(48)))
    assert set(ledger.states([DAY])) == {str(n) for n in range(48)}
