"""What is written to a ledger comes back, and of several lines of one key the latest counts."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ledger.files import LedgerDamaged, LocalFiles
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.schema import PULL_SCHEMA, ROW_COLUMNS, SCHEMAS, STATE_SCHEMA, Acceptance, PullRecord
from pipelines.ledger.states import RecordingState, Status, archived, final
from pipelines.ledger.store import Ledger
from tests.ledger.conftest import Location

DAY = date(2026, 11, 18)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
REPORT = "agent_segment_metadata"
Build = Callable[..., RecordingState]
Rows = Callable[..., pa.Table]


def append(ledger: Ledger, table: pa.Table, *, minutes: int = 0, account_id: str = "1", day: date = DAY) -> None:
    pulled_at = NOON + timedelta(minutes=minutes)
    ledger.append_rows(REPORT, day, table, account_id=account_id, pulled_at=pulled_at, run_id="run-1")


def held(state: RecordingState, minutes: int = 1) -> RecordingState:
    return archived(
        state,
        key="recordings/1.WAV",
        size=2**40,
        sha256="ab" * 32,
        duration_s=12.345,
        etag='"e"',
        version_id="v1",
        warnings=("duration", "länger"),
        now=NOON + timedelta(minutes=minutes),
        run_id="run-2",
    )


def acceptance(name: str = "1/a.WAV", **changed: Any) -> Acceptance:
    whole = Acceptance(
        recording_id=name,
        day=DAY,
        status="missing",
        reason="not_found",
        epoch=0,
        accepted=True,
        accepted_by="compliance",
        why="TICKET-1",
        at=NOON,
        run_id="run-1",
    )
    return replace(whole, **changed)


# Everything, in each of the three places


def test_rows_states_and_pulls_come_back_from_every_place(
    location: Location, rows: Rows, a_state: Build, a_pull: Callable[..., PullRecord]
) -> None:
    ledger = location.ledger()
    append(ledger, rows({"ani": ["+4930123", None]}, a="1", b="2"))
    ledger.append_pull(a_pull())
    ledger.append_states([a_state(), held(a_state())])
    assert ledger.latest_rows(REPORT, DAY, columns=["row_key", "ani"]).to_pylist() == [
        {"row_key": "a", "ani": "+4930123"},
        {"row_key": "b", "ani": None},
    ]
    assert ledger.pulls(REPORT, DAY) == [a_pull()]
    assert ledger.states([DAY]) == {a_state().recording_id: held(a_state())}
    assert ledger.days("report_rows", REPORT) == [DAY]
    assert list(ledger.state_days()) == [DAY]


def test_an_empty_ledger_answers_with_nothing(location: Location) -> None:
    ledger = location.ledger()
    assert ledger.latest_rows(REPORT, DAY).to_pydict() == {name: [] for name in ROW_COLUMNS}
    assert ledger.latest_rows(REPORT, DAY, columns=["ani", "row_key"]).to_pydict() == {"ani": [], "row_key": []}
    assert ledger.all_rows(REPORT, DAY).num_rows == 0
    assert (ledger.states([DAY]), ledger.states([]), ledger.pending(DAY)) == ({}, {}, [])
    assert (ledger.pulls(REPORT, DAY), ledger.days("report_rows", REPORT)) == ([], [])
    assert not ledger.state_days()
    assert ledger.acceptances([DAY]) == {}


def test_of_the_decisions_on_a_loss_the_latest_counts_whichever_part_it_is_in(location: Location) -> None:
    ledger = location.ledger()
    tomorrow = DAY + timedelta(days=1)
    revoked = acceptance(accepted=False, at=NOON + timedelta(hours=2))
    ledger.append_acceptances([revoked, acceptance("1/b.WAV", day=tomorrow)])
    ledger.append_acceptances([acceptance(at=NOON + timedelta(hours=1), why="TICKET-2"), acceptance()])
    assert ledger.acceptances([DAY]) == {"1/a.WAV": revoked}
    assert ledger.acceptances([DAY, tomorrow]) == {
        "1/a.WAV": revoked,
        "1/b.WAV": acceptance("1/b.WAV", day=tomorrow),
    }
    again = acceptance(at=revoked.at, why="at the same moment, written later")
    ledger.append_acceptances([again])
    assert ledger.acceptances([DAY]) == {"1/a.WAV": again}


# Rows


def test_of_several_pulls_the_latest_line_of_each_key_counts(ledger: Ledger, rows: Rows) -> None:
    append(ledger, rows({"v": ["new"]}, a="2"), minutes=5)
    append(ledger, rows({"v": ["old", "only"]}, a="1", b="1"), minutes=1)
    latest = ledger.latest_rows(REPORT, DAY, columns=["row_key", "row_hash", "v"]).to_pylist()
    assert sorted(latest, key=str) == [
        {"row_key": "a", "row_hash": "2", "v": "new"},
        {"row_key": "b", "row_hash": "1", "v": "only"},
    ]
    assert ledger.all_rows(REPORT, DAY).num_rows == 3


def test_of_two_parts_pulled_at_the_same_instant_the_later_written_counts(ledger: Ledger, rows: Rows) -> None:
    for version in ("1", "2", "3"):
        append(ledger, rows(a=version))
    assert ledger.latest_rows(REPORT, DAY)["row_hash"].to_pylist() == ["3"]


@settings(max_examples=25, deadline=None)
@given(
    pulls=st.lists(
        st.tuples(st.integers(0, 5), st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"), min_size=1)),
        max_size=6,
    )
)
def test_latest_rows_are_what_a_dictionary_would_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, pulls: list[tuple[int, dict[str, str]]]
) -> None:
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOON)
    for minutes, hashes in pulls:
        append(ledger, rows(**hashes), minutes=minutes)
    expected: dict[str, str] = {}
    for _, hashes in sorted(pulls, key=lambda pull: pull[0]):
        expected |= hashes
    latest = ledger.latest_rows(REPORT, DAY, columns=["row_key", "row_hash"])
    assert dict(zip(*latest.to_pydict().values(), strict=True)) == expected
    assert latest.num_rows == len(expected)


def test_accounts_reports_and_dates_do_not_mix(ledger: Ledger, rows: Rows) -> None:
    append(ledger, rows(a="1"), account_id="1")
    append(ledger, rows(b="1"), account_id="2")
    append(ledger, rows(c="1"), day=DAY + timedelta(days=1))
    assert ledger.latest_rows(REPORT, DAY, account_id="2", columns=["row_key"]).to_pydict() == {"row_key": ["b"]}
    assert ledger.latest_rows("global_call_type_detail", DAY).num_rows == 0
    assert ledger.days("report_rows", REPORT) == [DAY, DAY + timedelta(days=1)]


def test_a_column_that_a_report_gains_later_is_null_in_what_was_there_before(ledger: Ledger, rows: Rows) -> None:
    append(ledger, rows({"old": ["x"]}, a="1"))
    append(ledger, rows({"new": ["y"]}, b="1"), minutes=1)
    assert ledger.latest_rows(REPORT, DAY).select(["row_key", "old", "new"]).to_pylist() == [
        {"row_key": "a", "old": "x", "new": None},
        {"row_key": "b", "old": None, "new": "y"},
    ]
    never = ledger.latest_rows(REPORT, DAY, columns=["never", "row_key"])
    assert never.to_pydict() == {"never": [None, None], "row_key": ["a", "b"]}
    assert never.schema.field("never").type == pa.string()


def test_ids_stay_text_with_their_leading_zeros_and_all_their_digits(ledger: Ledger, rows: Rows) -> None:
    ids = ["0007", "202007302136360132130000036446", "1e5", "", None, "NaN", "null"]
    keyed = {f"k{index}": "1" for index in range(len(ids))}
    append(ledger, rows({"session_id": ids}, **keyed), account_id="0015")
    latest = ledger.latest_rows(REPORT, DAY)
    assert latest["session_id"].to_pylist() == ids
    assert set(latest["account_id"].to_pylist()) == {"0015"}
    assert all(pa.types.is_string(f.type) for f in latest.schema if f.name != "pulled_at")


def test_text_of_any_script_and_with_line_breaks_comes_back(ledger: Ledger, rows: Rows) -> None:
    texts = ['a,"b"\r\nc', "日本語 ру́сский 🎧", "\x00\x1f", " "]
    append(ledger, rows({"agent_disposition": texts}, a="1", b="1", c="1", d="1"))
    assert ledger.latest_rows(REPORT, DAY)["agent_disposition"].to_pylist() == texts


@pytest.mark.parametrize("values", [pa.array([15300002]), pa.array([1.5]), pa.array([NOON]), pa.array([True])])
def test_a_column_that_is_not_text_is_refused(ledger: Ledger, rows: Rows, values: "pa.Array[Any]") -> None:
    with pytest.raises(pa.ArrowTypeError, match="agent_id"):
        append(ledger, rows(a="1").append_column("agent_id", values))


def test_rows_without_identity_are_refused(ledger: Ledger, rows: Rows) -> None:
    with pytest.raises(ValueError, match="row_hash"):
        append(ledger, rows(a="1").drop_columns(["row_hash"]))
    with pytest.raises(ValueError, match="row_key"):
        append(ledger, pa.table({"row_key": pa.array([None], pa.string()), "row_hash": ["1"]}))


def test_no_rows_write_no_part(ledger: Ledger, rows: Rows) -> None:
    append(ledger, rows())
    assert ledger.days("report_rows", REPORT) == []


# Pulls


def test_a_quiet_day_leaves_a_trace(ledger: Ledger, a_pull: Callable[..., PullRecord]) -> None:
    quiet = a_pull(rows=0, new=0, changed=0, with_link=0, pulled_at=NOON + timedelta(minutes=1))
    ledger.append_pull(quiet)
    ledger.append_pull(a_pull())
    assert ledger.pulls(REPORT, DAY) == [a_pull(), quiet]
    assert ledger.days("report_rows", REPORT) == []


# States


def test_every_field_of_a_state_comes_back(ledger: Ledger, a_state: Build) -> None:
    plain = a_state()
    full = held(
        a_state(started_at=NOON - timedelta(hours=2, microseconds=1), expected_duration_s=0.1, epoch=3, reason="x")
    )
    ended = final(a_state(recording_id="2"), Status.denied, "unauthorized", NOON, "run-3")
    for state in (plain, full, ended):
        ledger.append_states([replace(state, recording_id=state.status)])
    assert ledger.states([DAY]) == {s.status: replace(s, recording_id=s.status) for s in (plain, full, ended)}
    assert all(isinstance(state.status, Status) for state in ledger.states([DAY]).values())


def test_times_of_any_zone_come_back_as_the_same_instant_in_utc(ledger: Ledger, a_state: Build) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    twice = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)  # this hour happens twice that night
    first = a_state(recording_id="first", started_at=twice, written_at=twice)
    second = a_state(recording_id="second", started_at=twice.replace(fold=1))
    ledger.append_states([first, second])
    found = ledger.states([DAY])
    assert found["first"].started_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert found["second"].started_at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert {state.written_at.tzinfo for state in found.values()} == {UTC}


@settings(max_examples=40, deadline=None)
@given(
    moments=st.lists(
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()),  # noqa: DTZ001
        min_size=1,
        max_size=5,
    )
)
def test_no_instant_loses_a_microsecond(
    tmp_path_factory: pytest.TempPathFactory, a_state: Build, moments: list[datetime]
) -> None:
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOON)
    ledger.append_states(a_state(recording_id=str(n), started_at=moment) for n, moment in enumerate(moments))
    for n, moment in enumerate(moments):
        started_at = ledger.states([DAY])[str(n)].started_at
        assert started_at is not None
        assert started_at == moment.astimezone(UTC)


choices = st.fixed_dictionaries(
    {
        "recording_id": st.sampled_from("ab"),
        "date": st.sampled_from([DAY, DAY + timedelta(days=1)]),
        "status": st.sampled_from(Status),
        "epoch": st.integers(0, 2),
        "written_at": st.integers(0, 3).map(lambda m: NOON + timedelta(minutes=m)),
        "attempts": st.integers(0, 2),
        "run_id": st.sampled_from(["run-1", "run-2"]),
        "reason": st.sampled_from([None, "not_found", "empty_body"]),
    }
)


def current(states: list[RecordingState]) -> dict[str, RecordingState]:
    """What docs/storage.md says of which line counts, in plain Python."""
    rank = {Status.pending: 0, Status.archived: 2}

    def weight(state: RecordingState) -> tuple[Any, ...]:
        ranked = state.epoch, rank.get(state.status, 1), state.written_at
        return *ranked, state.attempts, state.run_id, state.status, state.reason or ""

    return {state.recording_id: state for state in sorted(states, key=weight)}


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(choices, max_size=14), cuts=st.sets(st.integers(0, 14)), data=st.data())
def test_the_ledger_picks_the_same_line_however_the_lines_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    a_state: Build,
    lines: list[dict[str, Any]],
    cuts: set[int],
    data: st.DataObject,
) -> None:
    states = [a_state(**line) for line in lines]
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOON)
    shuffled = data.draw(st.permutations(states))
    edges = sorted({0, len(states), *(cut for cut in cuts if cut < len(states))})
    for begin, end in pairwise(edges):
        ledger.append_states(shuffled[begin:end])
    # Lines that differ in nothing that is weighed may stand for each other.
    weighed = ("recording_id", "status", "epoch", "written_at", "attempts", "run_id", "reason")
    found = ledger.states([DAY, DAY + timedelta(days=1)])
    assert {i: [getattr(s, n) for n in weighed] for i, s in found.items()} == {
        i: [getattr(s, n) for n in weighed] for i, s in current(states).items()
    }


def test_pending_gives_only_recordings_whose_current_state_is_pending(ledger: Ledger, a_state: Build) -> None:
    ledger.append_states([a_state(recording_id="a"), a_state(recording_id="b")])
    ledger.append_states([held(a_state(recording_id="a"))])
    ledger.append_states([a_state(recording_id="a", written_at=NOON + timedelta(hours=1))])
    assert ledger.pending(DAY) == [a_state(recording_id="b")]


def test_states_of_several_dates_go_each_under_its_own(ledger: Ledger, a_state: Build) -> None:
    tomorrow = DAY + timedelta(days=1)
    ledger.append_states([a_state(recording_id="t", date=tomorrow), a_state(recording_id="d")])
    assert list(ledger.states([DAY])) == ["d"]
    assert ledger.states([tomorrow])["t"].date == tomorrow
    assert list(ledger.states([tomorrow, DAY, DAY])) == ["d", "t"]
    assert ledger.state_days() == {DAY: NOON, tomorrow: NOON}


def test_no_states_write_no_part(ledger: Ledger) -> None:
    ledger.append_states([])
    assert not ledger.state_days()


# Parts: names, damage, other readers


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "ledger").rglob("*.parquet"))


def test_part_names_grow_even_when_the_clock_stands_still_or_is_set_back(tmp_path: Path, a_state: Build) -> None:
    ticks = iter([NOON, NOON, NOON - timedelta(hours=1), NOON + timedelta(hours=1)])
    ledger = Ledger(LocalFiles(tmp_path / "ledger"), clock=lambda: next(ticks))
    names: list[str] = []
    for _ in range(4):
        ledger.append_states([a_state()])
        names += {part.stem for part in parts(tmp_path)} - set(names)
    assert names == sorted(names)
    assert {len(name) for name in names} == {26}


def test_nothing_written_is_ever_changed(tmp_path: Path, ledger: Ledger, a_state: Build, rows: Rows) -> None:
    before: dict[Path, bytes] = {}
    for minutes in range(3):
        ledger.append_states([a_state(), held(a_state())])
        append(ledger, rows(a=str(minutes)), minutes=minutes)
        ledger.states([DAY])
        now = {part: part.read_bytes() for part in parts(tmp_path)}
        assert now.items() >= before.items()
        before = now
    assert len(before) == 6


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "not parquet", "gone"])
@pytest.mark.parametrize("kind", ["rows", "states", "pulls", "events", "accepted"])
def test_a_damaged_part_is_named_and_never_skipped(  # noqa: PLR0917 - fixtures come by name
    tmp_path: Path,
    ledger: Ledger,
    a_state: Build,
    a_pull: Callable[..., PullRecord],
    rows: Rows,
    damage: str,
    kind: str,
) -> None:
    append(ledger, rows(a="secret-of-a-caller"))
    ledger.append_states([a_state()])
    ledger.append_pull(a_pull())
    ledger.append_event_reads(DAY, {"one.events": 1}, run_id="r", read_at=NOON)
    ledger.append_acceptances([acceptance()])
    folders = {"rows": "report_rows", "states": "recording_states", "pulls": "report_pulls", "events": "event_reads"}
    folders["accepted"] = "accepted_losses"
    folder = folders[kind]
    (part,) = (tmp_path / "ledger" / folder).rglob("*.parquet")
    whole = part.read_bytes()
    if damage == "gone":
        part.unlink()
        part.symlink_to(tmp_path / "nowhere")
    else:
        flipped = whole[:30] + bytes([whole[30] ^ 4]) + whole[31:]
        part.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": flipped, "not parquet": b"<html>" * 99}[damage]
        )
    read: dict[str, Callable[[], object]] = {
        "rows": lambda: ledger.latest_rows(REPORT, DAY),
        "states": lambda: ledger.states([DAY]),
        "pulls": lambda: ledger.pulls(REPORT, DAY),
        "events": lambda: ledger.event_reads(DAY),
        "accepted": lambda: ledger.acceptances([DAY]),
    }
    with pytest.raises(LedgerDamaged, match=rf"{folder}/.*{part.name}.*restore it") as raised:
        read[kind]()
    assert "secret" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_any_cut_of_a_part_is_noticed(tmp_path: Path, ledger: Ledger, a_state: Build) -> None:
    ledger.append_states([a_state()])
    (part,) = parts(tmp_path)
    whole = part.read_bytes()
    for length in range(0, len(whole), 61):
        part.write_bytes(whole[:length])
        with pytest.raises(LedgerDamaged):
            ledger.states([DAY])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["link"]), "'link' with null"),
        (lambda t: t.set_column(0, "recording_id", pa.array([15300002])), "ArrowTypeError"),
        (
            lambda t: t.set_column(t.column_names.index("written_at"), "written_at", pa.array(["now"])),
            "ArrowTypeError",
        ),
        (lambda t: t.set_column(t.column_names.index("status"), "status", pa.array(["paused"])), "does not know"),
        (lambda t: t.set_column(t.column_names.index("uii"), "uii", pa.array([None], pa.string())), "'uii' with null"),
    ],
)
def test_a_part_of_another_shape_is_named(
    tmp_path: Path, ledger: Ledger, a_state: Build, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    ledger.append_states([a_state()])
    (part,) = parts(tmp_path)
    pq.write_table(change(pq.ParquetFile(part).read()), part)
    with pytest.raises(LedgerDamaged, match=message):
        ledger.states([DAY])


def test_a_part_from_before_an_optional_column_or_after_an_unknown_one_is_read(
    tmp_path: Path, ledger: Ledger, a_state: Build
) -> None:
    ledger.append_states([a_state()])
    (part,) = parts(tmp_path)
    older = pq.ParquetFile(part).read().drop_columns(["etag", "warnings", "expected_duration_s"])
    pq.write_table(older.append_column("from_the_future", pa.array([1])), part)
    assert ledger.states([DAY]) == {a_state().recording_id: a_state()}


STRANGE = (
    *(f"date={text}" for text in ("yesterday", "202-11-17", "0001-01-01", "9999-12-31", "2026-02-30", "20261118", "")),
    *("2026-11-18", "date=2026-11-18/date=2026-11-18"),
)


@pytest.mark.parametrize("folder", STRANGE)
def test_a_strange_folder_is_named_and_stops_no_date(
    tmp_path: Path, ledger: Ledger, a_state: Build, rows: Rows, folder: str
) -> None:
    ledger.append_states([a_state()])
    append(ledger, rows(a="1"))
    root = tmp_path / "ledger"
    strays = [f"{kind}/{folder}/01KA8GM800ZZZZZZZZZZZZZZZZ.parquet" for kind in SCHEMAS]
    strays += [f"report_rows/report={REPORT}/{folder}/01KA8GM800ZZZZZZZZZZZZZZZZ.parquet"]
    for stray in strays:
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_bytes(b"not read by anybody")
    ledger_parts = LedgerParts(LocalFiles(root))
    assert ledger.state_days() == {DAY: NOON}
    assert ledger.days("report_rows", REPORT) == [DAY]
    assert list(map(len, ledger_parts.names(DAY).values())) == [0, 0, 1, 0, 1]
    assert len(ledger.states([DAY])) == 1
    strange = ledger_parts.strange()
    assert {name.rpartition("/")[0] for name in strange} == {name.rpartition("/")[0] for name in strays}


@pytest.mark.parametrize(
    "foreign",
    ["README.txt", "copy.parquet", "part-00000.snappy.parquet", "_SUCCESS", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ.parquet"],
)
def test_a_foreign_file_is_named_and_left_alone(tmp_path: Path, ledger: Ledger, a_state: Build, foreign: str) -> None:
    ledger.append_states([a_state()])
    parts(tmp_path)[0].with_name(foreign).write_bytes(b"not ours")
    assert len(ledger.states([DAY])) == 1
    assert ledger.state_days() == {DAY: NOON}
    assert LedgerParts(LocalFiles(tmp_path / "ledger")).strange() == [f"recording_states/date={DAY}/{foreign}"]


def test_an_unreadable_part_fails_its_own_date_and_no_other(tmp_path: Path, ledger: Ledger, a_state: Build) -> None:
    tomorrow = DAY + timedelta(days=1)
    ledger.append_states([a_state(), a_state(date=tomorrow)])
    victim = next((tmp_path / "ledger").rglob(f"date={DAY}/*.parquet"))
    victim.write_bytes(b"<html>")
    assert ledger.state_days() == {DAY: NOON, tomorrow: NOON}
    assert len(ledger.states([tomorrow])) == 1
    with pytest.raises(LedgerDamaged, match=victim.name):
        ledger.states([DAY])


def test_other_readers_see_the_whole_ledger_with_its_dates(
    tmp_path: Path, ledger: Ledger, a_state: Build, rows: Rows
) -> None:
    tomorrow = DAY + timedelta(days=1)
    ledger.append_states([a_state(), a_state(date=tomorrow)])
    append(ledger, rows(a="1"))
    states, found_rows = tmp_path / "ledger" / "recording_states", tmp_path / "ledger" / "report_rows"
    assert sorted(map(str, pd.read_parquet(states)["date"])) == ["2026-11-18", "2026-11-19"]
    assert set(pq.read_table(states).column_names) == set(STATE_SCHEMA.names)
    assert set(ds.dataset(states, partitioning="hive").to_table().column_names) == set(STATE_SCHEMA.names)
    assert set(pq.read_table(found_rows).column_names) == {*ROW_COLUMNS, "report", "date"}
    assert {"report", "date", "sha256"} <= set(PULL_SCHEMA.names)


# Speed


@pytest.mark.slow
def test_the_states_of_a_hundred_thousand_recordings_take_seconds_and_not_minutes(
    ledger: Ledger, a_state: Build
) -> None:
    pending = [
        a_state(
            recording_id=f"15300002/202611/18/{n}.WAV",
            uii=f"2026111812{n}",
            written_at=NOON + timedelta(microseconds=n),
        )
        for n in range(100_000)
    ]
    ledger.append_states(pending)
    for first in range(0, len(pending), 5_000):
        ledger.append_states(held(state) for state in pending[first : first + 5_000])
    del pending
    for _ in range(3):  # processor seconds, in one of three tries: others may be busy on the same machine
        begun = time.process_time()
        found = ledger.states([DAY])
        taken = time.process_time() - begun
        if taken < 10:
            break
    assert len(found) == 100_000
    assert {state.status for state in found.values()} == {Status.archived}
    assert taken < 10
