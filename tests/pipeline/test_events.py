"""End Call Events through the pipeline: rows, recordings, completeness. What starts a run is test_event_sensor.py."""

from __future__ import annotations

import shutil
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import AssetKey

from pipelines.definitions import build_defs
from pipelines.events.files import LocalEvents, day_folder, events_at, frame
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.orchestration.environment import Environment
from pipelines.ringcx.reports.columns import LINK_COLUMN, ReportName
from pipelines.settings import VerifySettings
from pipelines.steps.check.event_delivery import every_event_arrived
from sandbox.events import EventRoute, EventSender
from tests.events.receivers import AUTHORIZATION, ReceiverProcess
from tests.listing import listed
from tests.pipeline.conftest import MakeWorld
from tests.pipeline.stored_events import calls, event_fields, store

EVENTS = ["end_call_events", "recording_links", "recordings", "daily_manifest"]


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    """A world whose ledger is a folder, which costs a third less CPU; test_archive has it in the bucket."""
    return partial(make_world, LEDGER_URL="ledger")


@pytest.fixture
def events_folder(tmp_path: Path) -> Path:
    return tmp_path / "stored-events"


def check_of(result: Any, name: str) -> Any:
    (found,) = (evaluation for evaluation in result.get_asset_check_evaluations() if evaluation.check_name == name)
    return found


def counts_of(result: Any, name: str) -> dict[str, Any]:
    return defaultdict(int, {key: value.value for key, value in check_of(result, name).metadata.items()})


def test_with_a_place_for_events_the_graph_has_them_and_without_one_it_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parents(name: str) -> set[str]:
        graph = build_defs().resolve_asset_graph()
        return {key.to_user_string() for key in graph.get(AssetKey(name)).parent_keys}

    assert parents("recording_links") == {"agent_segment_metadata", "global_call_type_detail"}
    monkeypatch.setenv("EVENTS_URL", "somewhere")
    assert parents("recording_links") == {"agent_segment_metadata", "global_call_type_detail", "end_call_events"}
    defs = build_defs()
    assert "end_call_events_arrived" in {sensor.name for sensor in defs.get_repository_def().sensor_defs}
    node = defs.resolve_asset_graph().get(AssetKey("end_call_events"))
    assert node.description
    assert node.owners == []
    assert node.backfill_policy is None
    assert node.partitions_def.has_partition_key(datetime.now(UTC).date().isoformat())
    (check,) = (key for key in defs.resolve_asset_graph().asset_check_keys if key.name == "every_event_arrived")
    assert defs.resolve_asset_graph().get(check).partitions_def is not None


def test_an_event_is_a_row_and_its_link_a_mono_recording_due_two_minutes_later(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    received = datetime.now(UTC).replace(microsecond=0)
    store(events_folder, day, event_fields(world, calls(world, day)), at=received)
    result = world.run(day, select=EVENTS)
    assert result.success
    found = world.metadata(result, "end_call_events")
    recorded = [call for call in calls(world, day) if call.mono]
    assert (found["events_new"], found["events_with_link"]) == (len(calls(world, day)), len(recorded))
    assert found["dagster/partition_row_count"] == len(calls(world, day))
    assert "events_of_date" not in found
    assert found["dagster/uri"].endswith(f"/ledger/report_rows/report=end_call_events/date={day}/")
    assert len(recorded) < len(calls(world, day))  # unanswered calls are rows without a link
    states = world.states(day, day + timedelta(days=1))
    assert set(states) == {f"{call.account_id}/{call.mono[-1].path}" for call in recorded}
    assert {(state.layout, state.source, state.status) for state in states.values()} == {
        ("mono", "end_call_events", Status.pending)
    }
    assert {state.next_attempt_at for state in states.values()} == {received + timedelta(minutes=2)}
    for state in states.values():
        call = next(call for call in recorded if call.uii == state.uii)
        assert (state.started_at, state.date, state.found_on) == (call.started_at, day, day)
        assert state.expected_duration_s == int((call.ended_at - call.started_at).total_seconds())


def test_how_long_it_took_from_the_event_to_the_archive_is_shown(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    begun = datetime.now(UTC)
    store(events_folder, day, event_fields(world, calls(world, day)), at=begun - timedelta(seconds=130))
    result = world.run(day, select=EVENTS)
    found = world.metadata(result, "recordings")
    assert found["archived"] == found["recordings_by_event"] == len(world.states(day, day + timedelta(days=1)))
    passed = (datetime.now(UTC) - begun).total_seconds()
    assert 130 <= found["event_to_archive_median_s"] <= found["event_to_archive_p95_s"] <= 130 + passed
    assert "recordings_by_event" not in world.metadata(world.run(day, select=EVENTS), "recordings")


@pytest.mark.slow
def test_with_a_tenth_lost_and_a_tenth_doubled_events_and_reports_end_complete(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), sandbox={"calls_per_day": (60, 60)}), recent[0]
    with ReceiverProcess(events_folder) as receiver:
        route = {"url": receiver.url, "header": ("Authorization", AUTHORIZATION), "lost": 0.1, "doubled": 0.1}
        sent = EventSender(world.sandbox.config, world.sandbox.url, EventRoute(form="query", **route)).send_day(day)
    assert set(sent.statuses) == {200}
    assert sent.calls["lost"] > 2
    assert sent.calls["twice"] > 2
    first = world.run(day, select=EVENTS)
    found = world.metadata(first, "end_call_events")
    assert (found["events_read"], found["events_new"]) == (sum(sent.statuses.values()), len(sent.acknowledged))
    result = world.run(day)
    assert result.success
    truth = {recording["recording_id"]: recording["sha256"] for recording in world.truth(day)}
    states = {key: state for key, state in world.states(day).items() if state.date == day}
    assert set(states) == set(truth)
    # What an event told two minutes ago and less is not due yet; the report does not make it wait, nor come twice.
    waiting = {key for key, state in states.items() if state.status is Status.pending}
    assert all(states[key].source == "end_call_events" for key in waiting)
    three_minutes_on = Environment(clock=lambda: datetime.now(UTC) + timedelta(minutes=3), s3_client=world.s3)
    later = build_defs(environment=three_minutes_on).resolve_job_def("archive_day")
    last = later.execute_in_process(partition_key=day.isoformat(), instance=world.instance)
    assert {state.status for state in world.states(day).values() if state.date == day} == {Status.archived}
    assert world.sandbox.counters()["media_by_path"] == dict.fromkeys(world.sandbox.counters()["media_by_path"], 1)
    assert check_of(last, "every_recording_is_accounted_for").passed
    arrived = check_of(last, "every_event_arrived")
    lost = {call.uii for call in calls(world, day) if call.mono and call.uii in sent.lost}
    assert not arrived.passed
    assert arrived.severity.value == "WARN"
    assert counts_of(last, "every_event_arrived")["calls_without_event"] == len(lost)
    assert "check the receiver" in arrived.metadata["to_do"].value
    sample = listed(arrived.metadata["sample"].value)
    assert {row["uii"] for row in sample} == lost
    customers = {call.ani for call in calls(world, day)} | {call.dnis for call in calls(world, day)}
    shown = " ".join(str(event) for run in (first, result, last) for event in run.all_events)
    assert not [number for number in customers if number in shown]


def test_an_event_that_comes_again_or_is_read_again_changes_nothing(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), LEDGER_URL="ledger"), recent[0]
    events = event_fields(world, calls(world, day))
    store(events_folder, day, events)
    assert world.run(day, select=["end_call_events"]).success
    ledger = world.services().ledger
    rows = ledger.all_rows("end_call_events", day).num_rows
    assert rows == len(events)
    store(events_folder, day, [*events[:3], *events[:1]], at=datetime.now(UTC) + timedelta(seconds=5))
    again = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
    assert (again["events_read"], again["events_new"], again["events_known"]) == (4, 0, 4)
    idle = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
    assert (idle["events_read"], idle["files_read"]) == (0, 0)
    for trace in Path("ledger", "event_reads").rglob("*.parquet"):
        trace.unlink()  # as if each run had been killed before it wrote down how far it read
    afresh = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
    assert (afresh["events_read"], afresh["events_new"]) == (len(events) + 4, 0)
    assert ledger.all_rows("end_call_events", day).num_rows == rows


def test_an_older_version_of_an_event_that_comes_late_adds_no_row(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), LEDGER_URL="ledger"), recent[0]
    (event, *_) = event_fields(world, [call for call in calls(world, day) if call.mono])
    now = datetime.now(UTC)
    store(events_folder, day, [event | {"agent_disposition": ""}], at=now)
    store(events_folder, day, [event | {"agent_disposition": "Resolved"}], at=now + timedelta(seconds=1))
    assert world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")["events_changed"] == 1
    store(events_folder, day, [event | {"agent_disposition": ""}], at=now + timedelta(seconds=2))
    assert world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")["events_known"] == 1
    (latest,) = world.services().ledger.latest_rows("end_call_events", day).to_pylist()
    assert latest["agent_disposition"] == "Resolved"


def test_a_file_of_an_earlier_receiver_is_read_up_to_its_last_whole_line_and_again_when_it_has_grown(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    first, second = (
        frame({"received_at": "2026-11-20T10:00:00+00:00", "fields": event})
        for event in event_fields(world, calls(world, day)[:2])
    )
    file = events_folder / day_folder(day) / "01KB0000000000000000000000.events"
    file.parent.mkdir(parents=True)
    file.write_bytes(first + second[:40])
    assert world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")["events_new"] == 1
    file.write_bytes(first + second)
    grown = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
    assert (grown["events_read"], grown["events_new"], grown["damaged_lines"]) == (2, 1, 0)
    file.write_bytes(first + second + b"spoiled by the disk\n" + first)
    for _ in range(2):  # shown by every run, until somebody looks
        spoiled = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
        assert (spoiled["events_read"], spoiled["events_new"], spoiled["damaged_lines"]) == (3, 0, 1)


def test_events_of_other_accounts_are_taken_once_the_account_is_archived(
    make_world: MakeWorld, recent: list[date], events_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), sandbox={"accounts": ("15300002", "15300003")}), recent[0]
    both = calls(world, day)
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002")
    store(events_folder, day, event_fields(world, both))
    found = world.metadata(world.run(day, select=EVENTS), "end_call_events")
    others = [call for call in both if call.account_id == "15300003"]
    assert (found["events_new"], found["events_of_other_accounts"]) == (len(both) - len(others), len(others))
    assert {state.account_id for state in world.states(day).values()} == {"15300002"}
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002,15300003")
    for new in (len(others), 0):
        found = world.metadata(world.run(day, select=EVENTS), "end_call_events")
        assert (found["events_new"], found["events_of_other_accounts"]) == (new, 0)
    assert {state.account_id for state in world.states(day).values()} == {"15300002", "15300003"}


def test_events_that_an_earlier_version_kept_aside_are_taken_though_their_files_are_gone(
    make_world: MakeWorld, recent: list[date], events_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    store(events_folder, day, event_fields(world, calls(world, day)))
    assert world.run(day, select=["end_call_events"]).success
    kept = world.services().ledger.all_rows("end_call_events", day)
    Path("ledger/report_rows/report=end_call_events").rename("ledger/report_rows/report=end_call_events_foreign")
    shutil.rmtree(events_folder)
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300009")
    world.run(day, select=["end_call_events"])
    assert world.services().ledger.all_rows("end_call_events", day).num_rows == 0
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002")
    for new in (kept.num_rows, 0):
        found = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
        assert (found["events_new"], found["events_known"], found["events_read"]) == (new, 0, 0)
    taken = world.services().ledger.all_rows("end_call_events", day)
    assert set(taken["row_hash"].to_pylist()) == set(kept["row_hash"].to_pylist())
    assert set(taken["account_id"].to_pylist()) == {"15300002"}


@pytest.mark.parametrize("record", [{}, {"fields": {"call_id": "1"}}, {"received_at": "x", "fields": {"call_id": 1}}])
def test_a_line_with_its_checksum_that_is_no_event_is_named_and_stops_no_other(
    make_world: MakeWorld,
    recent: list[date],
    events_folder: Path,
    record: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    LocalEvents(events_folder).write([(day_folder(day), frame(record))])
    store(events_folder, day, event_fields(world, calls(world, day)))
    found = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
    assert (found["events_new"], found["damaged_lines"]) == (len(calls(world, day)), 1)
    (message,) = {entry.getMessage() for entry in caplog.records if entry.name == "pipelines.steps.pull.events"}
    assert message.startswith(f"The file {day_folder(day)}")


def test_a_call_start_in_another_zone_than_the_setting_says_is_found_out(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), EVENTS_TIMEZONE="US/Pacific"), recent[0]
    store(events_folder, day, event_fields(world, calls(world, day)))
    found = world.metadata(world.run(day, select=EVENTS), "end_call_events")
    assert found["start_disagrees"] == len(calls(world, day))
    starts = {call.uii: call.started_at for call in calls(world, day)}
    assert all(state.started_at == starts[state.uii] for state in world.states(day).values())


def test_no_date_is_complete_by_its_events_nor_incomplete_without_them(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    store(events_folder, day, event_fields(world, calls(world, day)), at=datetime.now(UTC) - timedelta(minutes=5))
    by_events = world.run(day, select=EVENTS, checks=True)
    assert not check_of(by_events, "every_recording_is_accounted_for").passed
    assert counts_of(by_events, "every_recording_is_accounted_for")["reports_not_pulled"] == 2
    other = world.run(recent[1], checks=True)
    assert check_of(other, "every_recording_is_accounted_for").passed
    assert world.metadata(other, "end_call_events")["events_read"] == 0


def test_the_check_says_both_ways_what_the_other_does_not_know(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder), sandbox={"calls_per_day": (50, 50)}), recent[1]
    recorded = [call for call in calls(world, day) if call.mono]
    events = event_fields(world, recorded[30:])
    invented = events[0] | {"call_id": f"{day:%Y%m%d}120000" + "0" * 14}
    store(events_folder, day, [*events, invented])
    result = world.run(day, checks=True)
    found = counts_of(result, "every_event_arrived")
    assert (found["calls_without_event"], found["events_without_call"]) == (30, 1)
    assert (found["calls_with_recording"], found["events_with_recording"]) == (len(recorded), len(events) + 1)
    finding = check_of(result, "every_event_arrived")
    assert not finding.passed
    sample = listed(finding.metadata["sample"].value)
    assert [row["condition"] for row in sample] == ["without_call"] + ["without_event"] * 30
    assert f"30 have no event ({30 / len(recorded):.2%})" in (finding.description or "")
    before = world.run(recent[0], checks=True)  # the first event is of a later date
    assert check_of(before, "every_event_arrived").passed


def test_an_event_is_not_held_against_a_report_that_does_not_cover_the_day(
    make_world: MakeWorld, recent: list[date], events_folder: Path
) -> None:
    world, day = make_world(EVENTS_URL=str(events_folder)), recent[0]
    store(events_folder, day, event_fields(world, calls(world, day)))
    assert world.run(day, select=["end_call_events"]).success
    settings = world.services().settings
    finding = every_event_arrived(world.services().ledger, day, settings, now=datetime.now(UTC))
    assert (finding.counts["events_without_call"], finding.counts["accounts_not_compared"]) == (0, 1)


def test_an_event_and_a_call_whose_uii_differs_in_letter_case_only_are_the_same_call(tmp_path: Path) -> None:
    day, now = date(2026, 11, 21), datetime(2026, 11, 23, tzinfo=UTC)
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: now)
    reports: tuple[tuple[ReportName, str], ...] = (("global_call_type_detail", "ABC"), ("end_call_events", "abc"))
    for report, uii in reports:
        row = {
            "row_key": uii,
            "row_hash": "1",
            "uii": uii,
            LINK_COLUMN[report]: "https://c01-recordings.virtualacd.biz/x",
        }
        rows = pa.table({name: [value] for name, value in row.items()})
        ledger.append_rows(report, day, rows, account_id="1", pulled_at=now, run_id="r")
    settings = VerifySettings(archive_bucket="archive", ringcx_account_ids=("1",))
    finding = every_event_arrived(ledger, day, settings, now=now)
    assert finding.counts["calls_with_recording"] == finding.counts["events_with_recording"] == 1
    assert (finding.counts["calls_without_event"], finding.counts["events_without_call"]) == (0, 0)


def test_events_in_a_bucket_are_taken_like_those_in_a_folder(make_world: MakeWorld, recent: list[date]) -> None:
    world, day = make_world(), recent[0]
    world.variables["EVENTS_URL"] = f"s3://{world.bucket}/events"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTS_URL", world.variables["EVENTS_URL"])
        keeper = events_at(world.variables["EVENTS_URL"], lambda: world.s3)
        received = datetime.now(UTC).isoformat()
        for event in event_fields(world, calls(world, day)):
            keeper.write([(day_folder(day), frame({"received_at": received, "fields": event}))])
        for new in (len(calls(world, day)), 0):
            found = world.metadata(world.run(day, select=["end_call_events"]), "end_call_events")
            assert (found["events_new"], found["files_read"]) == (new, new)
