"""A date in portions is the date: nothing twice, nothing left out, however it was written and is merged meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain, count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ledger.compaction import Compaction
from pipelines.ledger.portions import Portion, one_of
from pipelines.ledger.schema import states_by_id, values
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger, LedgerDamaged, LocalFiles

DAY = date(2026, 11, 18)
NEXT = DAY + timedelta(days=1)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
Build = Callable[..., RecordingState]

written = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {
                "recording_id": st.integers(0, 400).map(lambda number: f"1/{number:03d}ü.WAV"),
                "date": st.sampled_from([DAY, NEXT]),
                "status": st.sampled_from(Status),
                "epoch": st.integers(0, 1),
                "key": st.sampled_from(["k1", "k2", "k3"]),
            }
        ),
        min_size=1,
        max_size=200,
    ),
    max_size=5,
)


def append(ledger: Ledger, a_state: Build, parts: list[list[dict[str, Any]]]) -> None:
    minute = count()
    for part in parts:
        ledger.append_states(a_state(**line, written_at=NOON + timedelta(minutes=next(minute))) for line in part)


def portions(ledger: Ledger, most: int, *days: date) -> Iterator[Portion]:
    ledger.most_lines = most
    return ledger.portions(days)


def merge(files: LocalFiles, day: date) -> None:
    folder = f"recording_states/date={day}/"
    Compaction(files, clock=lambda: NOON, grace=timedelta(7)).merge(files.list(folder), lambda *_: True)


@settings(max_examples=40, deadline=None)
@given(parts=written, most=st.integers(1, 600), merges=st.booleans(), later=written)
def test_the_portions_of_dates_are_their_recordings_each_once_and_in_order(  # noqa: PLR0917 - drawn values
    tmp_path_factory: pytest.TempPathFactory, a_state: Build, parts: Any, most: int, merges: bool, later: Any
) -> None:
    files = LocalFiles(tmp_path_factory.mktemp("ledger"))
    ledger = Ledger(files, clock=lambda: NOON)
    append(ledger, a_state, parts)
    if merges:
        merge(files, DAY)
        append(ledger, a_state, later)  # a merged part and others beside it
    whole = ledger.names([DAY, NEXT])
    lines = sum(len(part) for part in (*parts, *(later if merges else ())))
    found = list(portions(ledger, most, DAY, NEXT))
    if lines <= most:
        assert len(found) == 1
    ids = [sorted(values(one.lines["recording_id"])) for one in found]
    assert list(chain(*ids)) == sorted(whole)
    for among, of_portion in zip([one.among for one in found], ids, strict=True):
        assert all((among.first or "") <= one and (among.before is None or one < among.before) for one in of_portion)
    assert all(one.before == two.first for one, two in pairwise(one.among for one in found))
    everything = pa.concat_tables([one.lines for one in found])
    assert states_by_id(everything) == whole


@settings(max_examples=30, deadline=None)
@given(parts=written, wanted=st.lists(st.sampled_from(["k1", "k3", "k9"])), picked=st.sets(st.integers(0, 400)))
def test_recordings_are_found_by_their_ids_and_by_their_keys(
    tmp_path_factory: pytest.TempPathFactory, a_state: Build, parts: Any, wanted: list[str], picked: set[int]
) -> None:
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOON)
    append(ledger, a_state, parts)
    whole = ledger.names([DAY, NEXT])
    ids = {f"1/{number:03d}ü.WAV" for number in picked}
    some = states_by_id(ledger.current([DAY, NEXT], one_of(ids)))
    assert some == {key: one for key, one in whole.items() if key in ids}
    owners = ledger.owners([DAY, NEXT], pa.chunked_array([wanted], pa.string()))
    assert owners.keys() == {one.key for one in whole.values()} & set(wanted)
    assert all(whole[owner].key == key for key, owner in owners.items())


@pytest.mark.parametrize("order", ["sorted", "mixed", "a few lines a part"])
def test_no_portion_is_much_larger_than_it_should_be(tmp_path: Path, a_state: Build, order: str) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOON)
    numbers = list(range(20_000))
    if order != "sorted":
        Random(1).shuffle(numbers)
    size = 90 if order == "a few lines a part" else len(numbers)
    for start in range(0, len(numbers), size):
        ledger.append_states(a_state(recording_id=f"1/{number:05d}.WAV") for number in numbers[start : start + size])
    sizes = [one.lines.num_rows for one in portions(ledger, 5000, DAY)]
    assert sum(sizes) == len(numbers)
    assert len(sizes) == 4
    assert max(sizes) <= 6500


def test_a_later_portion_has_what_was_written_while_an_earlier_one_was_worked_on(
    tmp_path: Path, a_state: Build
) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOON)
    ledger.append_states(a_state(recording_id=f"1/{number:03d}.WAV") for number in range(300))
    found = portions(ledger, 150, DAY)
    next(found)
    ledger.append_states([a_state(recording_id="1/299.WAV", attempts=1, written_at=NOON + timedelta(hours=1))])
    *_, last = found
    assert states_by_id(last.lines)["1/299.WAV"].attempts == 1


@pytest.mark.parametrize("most", [1, 1000])
def test_a_part_that_another_process_merges_and_removes_meanwhile_is_read_there(
    tmp_path: Path, a_state: Build, most: int
) -> None:
    class Removing(LocalFiles):
        reads = 0

        def read(self, name: str) -> bytes:
            self.reads += 1
            if self.reads == 3:
                other = LocalFiles(tmp_path)
                merge(other, DAY)
                for one in other.list(f"recording_states/date={DAY}/"):
                    if "-" not in one.rpartition("/")[2]:
                        (tmp_path / one).unlink()
            return super().read(name)

    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOON)
    for number in range(6):
        ledger.append_states([a_state(recording_id=f"1/{number}.WAV")])
    wanted = ledger.names([DAY])
    found = list(portions(Ledger(Removing(tmp_path), clock=lambda: NOON), most, DAY))
    assert states_by_id(pa.concat_tables([one.lines for one in found])) == wanted


@pytest.mark.parametrize("most", [1, 1000])
@pytest.mark.parametrize("data", [b"", b"PAR1 and no more"])
def test_a_damaged_part_ends_every_portion(tmp_path: Path, a_state: Build, most: int, data: bytes) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOON)
    for number in range(20):
        ledger.append_states([a_state(recording_id=f"1/{number}.WAV")])
    victim = sorted(tmp_path.rglob("*.parquet"))[10]
    victim.write_bytes(data)
    with pytest.raises(LedgerDamaged, match=victim.name):
        list(portions(ledger, most, DAY))
    with pytest.raises(LedgerDamaged, match=victim.name):
        ledger.owners([DAY], pa.chunked_array([["k"]]))
