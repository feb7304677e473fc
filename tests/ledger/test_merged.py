"""What version 0.1.0 merged is read so that no line is missing, and one that comes twice counts once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.ledger.files import Files, LedgerDamaged, LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger
from tests.merging import RECORD, merged_part

DAY = date(2026, 11, 18)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
REPORT = "agent_segment_metadata"
STATES = f"recording_states/date={DAY}/"
ROWS = f"report_rows/report={REPORT}/date={DAY}/"
FOLDERS = (STATES, ROWS, f"report_pulls/report={REPORT}/date={DAY}/", f"event_reads/date={DAY}/")
Build = Callable[..., RecordingState]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def lines_of(ledger: Ledger) -> set[str]:
    """What is read about every recording, every row and pull, and how far each file was read."""
    found = {f"state {state.recording_id} {state.run_id}" for state in ledger.states([DAY]).values()}
    rows = ledger.all_rows(REPORT, DAY, columns=["row_key", "run_id"])
    found |= {f"row {key} {run}" for key, run in zip(*rows.to_pydict().values(), strict=True)}
    in_parts = ledger.iter_rows(REPORT, DAY, columns=["run_id"])
    assert {run for table in in_parts for run in table["run_id"].to_pylist()} == set(rows["run_id"].to_pylist())
    pulls = [f"pull {pull.run_id}" for pull in ledger.pulls(REPORT, DAY)]
    assert len(pulls) == len(set(pulls))
    return found | set(pulls) | {f"file {name} {read_to}" for name, read_to in ledger.event_reads(DAY).items()}


def append_one(
    ledger: Ledger, kind: str, run: str, a_state: Build, a_pull: Callable[..., PullRecord], *, now: datetime
) -> str:
    """One part; returns the line that it has."""
    if kind == "state":
        ledger.append_states([a_state(recording_id=run, run_id=run, written_at=now)])
        return f"state {run} {run}"
    if kind == "row":
        table = pa.table({"row_key": ["k"], "row_hash": [run], "note": pa.array([None], pa.string())})
        ledger.append_rows(REPORT, DAY, table, account_id="1", pulled_at=now, run_id=run)
        return f"row k {run}"
    if kind == "file":
        ledger.append_event_reads(DAY, {run: len(run)}, run_id=run, read_at=now)
        return f"file {run} {len(run)}"
    ledger.append_pull(a_pull(run_id=run, pulled_at=now))
    return f"pull {run}"


def merge(files: Files, names: list[str]) -> str:
    """Merge these parts of a folder as 0.1.0 did; returns the merged part's name."""
    name, data = merged_part({name: files.read(name) for name in names})
    if name not in files.list(name):
        files.create(name, data)
    return name


def replaced_by(files: Files, name: str) -> set[str]:
    metadata = pq.read_metadata(pa.BufferReader(files.read(name))).metadata or {}
    record = json.loads(metadata.get(RECORD.encode(), b"{}"))
    return {part["name"] for parts in ("parts", "between") for part in record.get(parts, ())}


@pytest.fixture
def old(tmp_path: Path, a_state: Build, a_pull: Callable[..., PullRecord]) -> tuple[LocalFiles, Ledger, set[str]]:
    """Four parts in each folder, and the lines in them."""
    files, clock = LocalFiles(tmp_path), Clock()
    ledger = Ledger(files, clock=clock)
    kinds = ("state", "row", "pull", "file")
    lines = {append_one(ledger, kind, f"run-{n}", a_state, a_pull, now=clock()) for n in range(4) for kind in kinds}
    return files, ledger, lines


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_line_is_lost_whatever_was_merged_twice_merged_again_and_removed(
    tmp_path_factory: pytest.TempPathFactory, a_state: Build, a_pull: Callable[..., PullRecord], data: st.DataObject
) -> None:
    root, clock = tmp_path_factory.mktemp("ledger"), Clock()
    files, ledger = LocalFiles(root), Ledger(LocalFiles(root), clock=clock)
    number = data.draw(st.integers(2, 6))
    appended: set[str] = set()
    for kind in ("state", "row", "pull", "file"):
        appended.update(append_one(ledger, kind, f"run-{n}", a_state, a_pull, now=clock()) for n in range(number))
    may_go: set[str] = set()
    for folder in FOLDERS:
        names = files.list(folder)
        some = st.lists(st.sampled_from(names), min_size=2, unique=True)
        first, _ = (merge(files, data.draw(some)) for _ in range(2))  # two at once, which had listed at other moments
        replaced = {name for name in files.list(folder) for name in replaced_by(files, name)}
        rest = set(names) - replaced_by(files, first)
        if rest and data.draw(st.booleans()):
            replaced |= replaced_by(files, merge(files, [first, *rest]))
        may_go |= replaced
    assert lines_of(ledger) == appended
    for name in data.draw(st.sets(st.sampled_from(sorted(may_go)))):
        (root / name).unlink()
    assert lines_of(ledger) == appended
    latest = ledger.latest_rows(REPORT, DAY, columns=["row_hash"])["row_hash"].to_pylist()
    assert latest == [f"run-{number - 1}"]


def test_a_merged_part_takes_the_place_of_the_last_that_it_replaces(
    old: tuple[LocalFiles, Ledger, set[str]],
) -> None:
    files, ledger, _ = old
    days = ledger.state_days()
    merge(files, files.list(STATES))
    assert ledger.state_days() == days, "what asks for the newest part must not take a merge for news"


def test_columns_of_older_and_newer_versions_are_all_kept(tmp_path: Path) -> None:
    files, ledger = LocalFiles(tmp_path), Ledger(LocalFiles(tmp_path), clock=Clock())
    for number, column in enumerate(("old", "new")):
        table = pa.table({"row_key": [column], "row_hash": ["1"], column: ["x"]})
        pulled_at = NOON + timedelta(minutes=number)
        ledger.append_rows(REPORT, DAY, table, account_id="0015", pulled_at=pulled_at, run_id="r")
    before = ledger.latest_rows(REPORT, DAY).to_pylist()
    merge(files, files.list(ROWS))
    assert ledger.latest_rows(REPORT, DAY).to_pylist() == before


def test_a_part_that_is_gone_and_that_no_merged_part_replaces_is_an_error(
    old: tuple[LocalFiles, Ledger, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_state: Build
) -> None:
    files, ledger, _ = old
    merge(files, files.list(STATES))
    ledger.append_states([a_state(run_id="last")])
    listed = files.list(STATES)
    (tmp_path / listed[-1]).unlink()
    monkeypatch.setattr(LocalFiles, "list", lambda *_: listed)
    with pytest.raises(LedgerDamaged, match=r"it was listed and is gone"):
        ledger.states([DAY])
