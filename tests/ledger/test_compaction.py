"""Many parts become one, and no reader ever sees a line too few or too many."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.ledger.compaction import Compaction
from pipelines.ledger.merged import Record, held_against, is_merged
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger, LedgerDamaged, LocalFiles

DAY = date(2026, 11, 18)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
REPORT = "agent_segment_metadata"
STATES = f"recording_states/date={DAY}/"
ROWS = f"report_rows/report={REPORT}/date={DAY}/"
PULLS = f"report_pulls/report={REPORT}/date={DAY}/"
READS = f"event_reads/date={DAY}/"
FOLDERS = (STATES, ROWS, PULLS, READS)
GRACE = timedelta(days=7)
Build = Callable[..., RecordingState]


def anything(name: str, sha256: str) -> bool:
    return True


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


class Interleaved(LocalFiles):
    """Calls `between` before each operation: what another process does between two of ours."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.between: Callable[[str, str], object] = lambda *_: None

    def list(self, prefix: str) -> Any:
        self.between("list", prefix)
        return super().list(prefix)

    def read(self, name: str) -> bytes:
        self.between("read", name)
        return super().read(name)


def lines_of(ledger: Ledger) -> Counter[str]:
    """Every line about every recording, every row and pull, as often as it is read, and how far each file was read."""
    found: Counter[str] = Counter()
    for recording_id in ledger.states([DAY]):
        found.update(f"state {one.recording_id} {one.run_id}" for one in ledger.state_history(DAY, recording_id))
    rows = ledger.all_rows(REPORT, DAY, columns=["row_key", "run_id"])
    found.update(f"row {key} {run}" for key, run in zip(*rows.to_pydict().values(), strict=True))
    found.update(f"pull {one.run_id}" for one in ledger.pulls(REPORT, DAY))
    found.update(f"file {name} {read_to}" for name, read_to in ledger.event_reads(DAY).items())
    return found


def append_one(ledger: Ledger, kind: str, run: str, a_state: Build, a_pull: Any, *, now: datetime) -> str:
    """One part; returns the line that it has."""
    if kind == "state":
        ledger.append_states([a_state(run_id=run, written_at=now)])
        return f"state {a_state().recording_id} {run}"
    if kind == "row":
        table = pa.table({"row_key": ["k"], "row_hash": [run], "note": pa.array([None], pa.string())})
        ledger.append_rows(REPORT, DAY, table, account_id="1", pulled_at=now, run_id=run)
        return f"row k {run}"
    if kind == "file":
        ledger.append_event_reads(DAY, {run: len(run)}, run_id=run, read_at=now)
        return f"file {run} {len(run)}"
    ledger.append_pull(a_pull(run_id=run, pulled_at=now))
    return f"pull {run}"


def merge_all(files: Any, clock: Callable[[], datetime], may: Any = anything) -> list[Any]:
    compaction = Compaction(files, clock=clock, grace=GRACE)
    return [compaction.merge(files.list(folder), may) for folder in FOLDERS]


def remove_all(files: Any, clock: Callable[[], datetime]) -> int:
    compaction = Compaction(files, clock=clock, grace=GRACE)
    return sum(
        compaction.remove(compaction.due_for_removal(files.list(folder), anything)).removed for folder in FOLDERS
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(
            ["state", "row", "pull", "file", "state", "merge", "remove", "week", "old listing", "merge old"]
        ),
        max_size=24,
    )
)
def test_a_reader_sees_exactly_what_was_appended_whatever_is_merged_and_removed_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, a_state: Build, a_pull: Any, steps: list[str]
) -> None:
    files, clock = LocalFiles(tmp_path_factory.mktemp("ledger")), Clock()
    ledger = Ledger(files, clock=clock)
    appended: Counter[str] = Counter()
    listed: dict[str, list[str]] = {}
    for number, step in enumerate(steps):
        if step in {"state", "row", "pull", "file"}:
            appended[append_one(ledger, step, f"run-{number}", a_state, a_pull, now=clock())] += 1
        elif step == "merge":
            merge_all(files, clock)
        elif step == "remove":
            remove_all(files, clock)
        elif step == "week":
            clock.now += GRACE + timedelta(hours=1)
            listed = {}  # nobody keeps a listing for a week
        elif step == "old listing":
            listed = {folder: files.list(folder) for folder in FOLDERS}
        else:  # a second compaction that listed earlier, and a part fewer than there was
            for names in listed.values():
                Compaction(files, clock=clock, grace=GRACE).merge(names[1:], anything)
        assert lines_of(ledger) == appended
    if appended:
        newest = [one for one in appended if one.startswith("row")]
        latest = ledger.latest_rows(REPORT, DAY, columns=["row_hash"])["row_hash"].to_pylist()
        assert latest == [newest[-1].split()[-1]] if newest else latest == []


@pytest.mark.parametrize("kind", ["state", "row", "pull", "file"])
def test_a_reader_that_listed_before_the_removal_and_reads_after_it_lists_again(
    tmp_path: Path, a_state: Build, a_pull: Any, kind: str
) -> None:
    files, clock = Interleaved(tmp_path), Clock()
    ledger, other = Ledger(files, clock=clock), LocalFiles(tmp_path)
    appended = Counter(append_one(ledger, kind, f"run-{n}", a_state, a_pull, now=clock()) for n in range(5))
    reads = count()

    def remove_at_third_read(verb: str, name: str) -> None:
        if verb == "read" and next(reads) == 2:
            merge_all(other, clock)
            clock.now += GRACE
            assert remove_all(other, clock) == 5

    files.between = remove_at_third_read
    found = lines_of(ledger)
    assert {one: number for one, number in found.items() if one.startswith(kind)} == appended


def test_a_merged_part_that_was_merged_again_and_removed_is_no_gap_either(
    tmp_path: Path, a_state: Build, a_pull: Any
) -> None:
    files, clock = Interleaved(tmp_path), Clock()
    ledger, other = Ledger(files, clock=clock), LocalFiles(tmp_path)
    appended = Counter(append_one(ledger, "state", f"run-{n}", a_state, a_pull, now=clock()) for n in range(3))
    merge_all(other, clock)
    appended[append_one(ledger, "state", "run-last", a_state, a_pull, now=clock())] += 1
    done: list[int] = []

    def merge_again(verb: str, name: str) -> None:
        if verb == "read" and is_merged(name) and not done:
            done.append(1)
            merge_all(other, clock)
            clock.now += GRACE
            assert remove_all(other, clock) == 5

    files.between = merge_again
    assert lines_of(ledger) == appended
    assert done


def test_a_part_that_is_gone_and_that_no_merged_one_replaces_is_still_an_error(tmp_path: Path, a_state: Build) -> None:
    files = Interleaved(tmp_path)
    ledger = Ledger(files, clock=Clock())
    for run in ("1", "2", "3"):
        ledger.append_states([a_state(run_id=run)])
    merge_all(files, Clock())
    ledger.append_states([a_state(run_id="4")])
    last = files.list(STATES)[-1]
    files.between = lambda verb, _: (tmp_path / last).unlink(missing_ok=True) if verb == "read" else None
    with pytest.raises(LedgerDamaged, match=r"it was listed and is gone"):
        ledger.states([DAY])


def test_a_merged_part_says_what_it_replaces_and_holds_it_line_by_line(place: Any, a_state: Build, a_pull: Any) -> None:
    clock, files = Clock(), place.files
    ledger = place.ledger(clock=clock)
    appended: Counter[str] = Counter()
    for number in range(4):
        for kind in ("state", "row", "pull", "file"):
            appended[append_one(ledger, kind, f"run-{number}", a_state, a_pull, now=clock())] += 1
    before = {folder: files.list(folder) for folder in FOLDERS}
    days = ledger.state_days()
    made = merge_all(files, clock)
    assert [one.parts for one in made] == [4, 4, 4, 4]
    for one, folder in zip(made, FOLDERS, strict=True):
        data, record = LedgerParts(files).merged(one.name)
        assert [part.name for part in record.parts] == before[folder]
        assert held_against(data, record, LedgerParts(files).read_if_there) == (frozenset(), frozenset())
    assert lines_of(place.ledger(clock=clock)) == appended
    assert ledger.state_days() == days, "what asks for the newest part must not take a merge for news"
    clock.now += GRACE
    assert remove_all(files, clock) == 16
    assert [len(files.list(folder)) for folder in FOLDERS] == [1, 1, 1, 1]
    assert lines_of(place.ledger(clock=clock)) == appended
    assert merge_all(files, clock) == [None] * 4


def test_two_that_merge_the_same_at_once_make_one_part(tmp_path: Path, a_state: Build) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for run in ("1", "2"):
        ledger.append_states([a_state(run_id=run)])
    names = files.list(STATES)
    made = [Compaction(files, clock=clock, grace=GRACE).merge(names, anything) for _ in range(2)]
    assert made[0] == made[1]
    assert len(files.list(STATES)) == 3


def test_columns_of_older_and_newer_versions_are_all_kept(tmp_path: Path) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for number, column in enumerate(("old", "new")):
        table = pa.table({"row_key": [column], "row_hash": ["1"], column: ["x"]})
        pulled_at = NOON + timedelta(minutes=number)
        ledger.append_rows(REPORT, DAY, table, account_id="0015", pulled_at=pulled_at, run_id="r")
    before = ledger.latest_rows(REPORT, DAY).to_pylist()
    merge_all(files, clock)
    assert ledger.latest_rows(REPORT, DAY).to_pylist() == before
    assert before[0]["account_id"] == "0015"
    clock.now += GRACE
    remove_all(files, clock)
    (name,) = files.list(ROWS)
    assert {"old", "new"} <= set(pq.read_table(tmp_path / name, partitioning=None).column_names)


def test_a_damaged_part_is_not_hidden_in_a_merged_one(tmp_path: Path, a_state: Build) -> None:
    files = LocalFiles(tmp_path)
    ledger = Ledger(files, clock=Clock())
    for run in ("1", "2"):
        ledger.append_states([a_state(run_id=run)])
    name = files.list(STATES)[0]
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LedgerDamaged, match=name):
        merge_all(files, Clock())
    assert len(files.list(STATES)) == 2


def test_a_merged_part_that_lost_a_line_or_its_record_is_damaged_for_every_reader(
    tmp_path: Path, a_state: Build
) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for run in ("1", "2", "3"):
        ledger.append_states([a_state(run_id=run)])
    made = merge_all(files, clock)[0]
    path = tmp_path / made.name
    with pq.ParquetFile(path) as file:
        metadata, table = file.metadata.metadata, file.read()
    for kept, record in ((table.slice(1), metadata), (table, {})):
        path.unlink()
        pq.write_table(kept.replace_schema_metadata(record), path)
        with pytest.raises(LedgerDamaged, match=made.name):
            ledger.states([DAY])


def test_what_may_not_be_replaced_is_left_alone_and_what_no_witness_saw_is_kept(tmp_path: Path, a_state: Build) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for run in ("1", "2", "3"):
        ledger.append_states([a_state(run_id=run)])
    names = files.list(STATES)
    compaction = Compaction(files, clock=clock, grace=GRACE)
    made = compaction.merge(names, lambda name, _: name != names[1])
    assert made is not None
    assert made.parts == 2
    assert len(ledger.state_history(DAY, a_state().recording_id)) == 3
    clock.now += GRACE
    assert compaction.due_for_removal(files.list(STATES), lambda *_: False) == []
    assert compaction.due_for_removal(files.list(STATES), anything) == [names[0], names[2]]


def test_nothing_is_removed_before_its_grace_is_over_or_where_it_is_refused(tmp_path: Path, a_state: Build) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for run in ("1", "2"):
        ledger.append_states([a_state(run_id=run)])
    merge_all(files, clock)
    clock.now += GRACE - timedelta(minutes=1)
    assert remove_all(files, clock) == 0
    assert len(files.list(STATES)) == 3


KILLED = """
from datetime import timedelta
from pipelines.ledger.compaction import Compaction
folder = f"recording_states/date={day}/"
compaction = Compaction(files, clock=lambda: datetime.now(UTC), grace=timedelta(0))
print("ready", flush=True)
while True:
    compaction.merge(files.list(folder), lambda *_: True)
    for name in compaction.due_for_removal(files.list(folder), lambda *_: True):
        compaction.remove([name])
"""


@pytest.mark.parametrize("place", ["local", "moto"], indirect=True)
def test_killed_at_any_instant_it_leaves_every_line_and_the_next_one_goes_on(place: Any, a_state: Build) -> None:
    ledger = place.ledger()
    expected = 0
    seen: set[int] = set()
    for round_number in range(5):
        for number in range(8):
            ledger.append_states([a_state(run_id=f"{round_number}-{number}")])
            expected += 1
        child = place.run(KILLED)
        deadline = time.monotonic() + 90
        listed = len(place.files.list(STATES))
        # Killed at another step each time: after so many parts were made or removed.
        while len(place.files.list(STATES)) == listed and round_number:
            assert time.monotonic() < deadline, "it never came to work"
            assert child.poll() is None
            time.sleep(0.002)
        time.sleep(0.01 * round_number)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        seen.add(len(place.files.list(STATES)))
        assert len(ledger.state_history(DAY, a_state().recording_id)) == expected
    assert len(seen) > 1, "killed at the same step each time: the test proved nothing"
    clock = Clock()
    clock.now = datetime.now(UTC) + timedelta(days=1)
    merge_all(place.files, clock)
    clock.now += GRACE
    remove_all(place.files, clock)
    assert len(place.files.list(STATES)) == 1
    assert len(ledger.state_history(DAY, a_state().recording_id)) == expected


def test_a_record_goes_through_the_file_unchanged(tmp_path: Path, a_state: Build) -> None:
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    for run in ("1", "2"):
        ledger.append_states([a_state(run_id=run)])
    first = merge_all(files, clock)[0]
    ledger.append_states([a_state(run_id="3")])
    again = merge_all(files, clock)[0]
    record = Record.of(files.read(again.name))
    assert [one.name for one in record.between] == [first.name]
    assert [one.lines for one in record.parts] == [1, 1, 1]
    assert record.merged_at <= clock.now
