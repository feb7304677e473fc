"""The current API end to end: windows of interaction metadata, recordings by dialog and segment."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dagster import AssetKey

from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs
from pipelines.ledger.states import Status
from pipelines.settings import Calendar
from pipelines.steps.pull.windows import TRACES
from sandbox.config import Limits
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import MakeWorld, Nursery, Store, World

OLD = date(2026, 3, 2)
FREE = Limits(reports="none", exchange="none", metadata="none", download="none")
CURRENT = {"RINGCX_SOURCE": "current", "RINGCX_LIMIT_METADATA": "none", "RINGCX_LIMIT_MEDIA": "none"}
PULL = ["interaction_metadata"]
ALL = [*PULL, "recording_links", "recordings", "daily_manifest"]


@pytest.fixture
def current(make_world: MakeWorld) -> MakeWorld:
    """A world whose source is the current API."""

    def make(**arguments: Any) -> World:
        sandbox = {"limits": FREE, **arguments.pop("sandbox", {})}
        return make_world(sandbox=sandbox, **{**CURRENT, **arguments})

    return make


def segments_of(world: World, *days: date, timezone: str = "UTC") -> list[dict[str, Any]]:
    """The recordings that the current API has of these dates, as the sandbox lists them."""
    return [recording for recording in world.truth(*days, timezone=timezone) if recording["segment"]]


def rows_of(world: World, day: date, *columns: str) -> list[dict[str, Any]]:
    names = ["account_id", "row_key", *columns]
    return world.services().ledger.latest_rows("interaction_metadata", day, columns=names).to_pylist()


def times_asked(world: World) -> dict[str, int]:
    """Start of each window that was asked for -> how often."""
    return {name.rpartition("/")[2]: count for name, count in world.sandbox.counters()["windows"].items()}


def starts(day: date, *hours: int) -> list[str]:
    return [f"{day}T{hour:02d}:00:00" for hour in hours]


def test_a_date_of_the_current_api_is_archived_byte_for_byte_under_its_segments_names(
    current: MakeWorld, recent: list[date]
) -> None:
    world = current(RINGCX_DOWNLOAD_METHOD="POST")
    for day in (recent[0], recent[1]):
        result = world.run(day, select=ALL)
        assert result.success, world.failures(result)
    truth = segments_of(world, recent[0])
    assert truth
    states, objects = world.states(recent[0]), world.objects(f"recordings/date={recent[0]}/")
    for recording in truth:
        dialog, segment = recording["segment"]["dialog_id"], recording["segment"]["segment_id"]
        key = f"recordings/date={recent[0]}/account_id=15300002/layout=stereo/{dialog}_{segment}.wav"
        assert objects[key] == recording["sha256"]
        state = states[f"15300002/{dialog}/{segment}"]
        assert (state.status, state.key, state.uii) == (Status.archived, key, recording["uii"])
        assert state.source == "interaction_metadata"
        assert (state.expected_duration_s, state.warnings) == (recording["duration_s"], ())
    assert len(objects) == len(truth) == len(states)
    world.sandbox.reset()
    assert world.run(recent[0], select=ALL).success
    counters = world.sandbox.counters()
    assert "download" not in counters["requests"]
    assert counters["leaked_credentials"] == []


def test_the_graph_has_the_assets_and_checks_of_the_chosen_source() -> None:
    wanted = {
        "legacy": {"agent_segment_metadata", "global_call_type_detail"},
        "current": {"interaction_metadata"},
        "both": {"agent_segment_metadata", "global_call_type_detail", "interaction_metadata"},
    }
    for source, reports in wanted.items():
        graph = build_defs(calendar=Calendar(ringcx_source=source)).resolve_asset_graph()
        assert {key.to_user_string() for key in graph.get(AssetKey("recording_links")).parent_keys} == reports
        assert {key.asset_key.to_user_string() for key in graph.asset_check_keys} >= reports
        compared = "mono_and_stereo_agree" in {key.name for key in graph.asset_check_keys}
        assert compared == (source != "current")


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2025, 10, 26), 25), (OLD, 24)])
def test_the_windows_of_a_day_cover_it_exactly_also_where_the_clocks_change(
    current: MakeWorld, day: date, hours: int
) -> None:
    world = current(ARCHIVE_TIMEZONE="Europe/Berlin", RINGCX_METADATA_WINDOW="10800")
    result = world.run(day, select=PULL)
    assert world.metadata(result, "interaction_metadata")["whole_day"] is True
    bounds = day_bounds(day, ZoneInfo("Europe/Berlin"))
    traces = sorted(world.services().ledger.pulls(TRACES, day), key=lambda pull: pull.period_start)
    assert (traces[0].period_start, traces[-1].period_end) == bounds
    assert all(earlier.period_end == later.period_start for earlier, later in pairwise(traces))
    assert sum((trace.period_end - trace.period_start for trace in traces), timedelta()) == timedelta(hours=hours)
    assert set(times_asked(world)) == {f"{trace.period_start:%Y-%m-%dT%H:%M:%S}" for trace in traces}
    ended = [datetime.fromisoformat(row["segment_end_time_ms"]) for row in rows_of(world, day, "segment_end_time_ms")]
    assert ended
    assert all(bounds[0] <= end <= bounds[1] for end in ended)


def test_of_today_only_what_is_over_by_a_quarter_of_an_hour_is_asked_for(current: MakeWorld) -> None:
    now = datetime.now(UTC)
    zone = f"Etc/GMT{now.hour - 13:+d}"  # where it is one o'clock: in the middle of a day, and of its fifth window
    world, today = current(ARCHIVE_TIMEZONE=zone), now.astimezone(ZoneInfo(zone)).date()
    result = world.run(today, select=PULL)
    assert world.metadata(result, "interaction_metadata")["whole_day"] is False
    (pull,) = world.services().ledger.pulls("interaction_metadata", today)
    assert pull.period_end <= pull.pulled_at - timedelta(minutes=15)
    before = times_asked(world)
    time.sleep(1.1)  # periods end at whole seconds
    assert world.run(today, select=PULL).success
    # The whole windows are not asked for again so soon; the one that is not over yet has grown.
    assert {
        name: count - before.get(name, 0) for name, count in times_asked(world).items() if count > before.get(name, 0)
    } == ({max(before): 1})


def test_a_pull_that_broke_off_goes_on_with_the_window_at_which_it_broke_off(
    current: MakeWorld, recent: list[date]
) -> None:
    day = recent[0]
    world = current(faults=Faults(report_server_error=Where(paths=(f"interaction_metadata/{day}T12:00:00",))))
    result = world.run(day, select=PULL)
    assert not result.success
    assert "is not available now (HTTP 503)" in world.failures(result)["interaction_metadata"]
    assert set(times_asked(world)) == set(starts(day, 0, 3, 6, 9, 12))
    assert world.services().ledger.pulls("interaction_metadata", day) == []
    world.sandbox.reset()
    world.sandbox.set_faults(Faults())
    assert world.run(day, select=PULL).success
    assert times_asked(world) == dict.fromkeys(starts(day, 12, 15, 18, 21), 1)
    (pull,) = world.services().ledger.pulls("interaction_metadata", day)
    assert pull.rows == pull.new == len(rows_of(world, day))
    world.sandbox.reset()
    world.sandbox.set_faults(Faults())
    assert world.run(day, select=PULL).success  # complete by now: a later pull asks for all, since rows change
    assert times_asked(world) == dict.fromkeys(starts(day, *range(0, 24, 3)), 1)
    assert world.services().ledger.pulls("interaction_metadata", day)[-1].unchanged == pull.rows


def test_a_killed_run_does_not_ask_for_its_finished_windows_again(
    current: MakeWorld, rclone: Store, nursery: Nursery, recent: list[date]
) -> None:
    world, day = current(store=rclone), recent[0]
    run = nursery.start(world, day, RINGCX_LIMIT_METADATA="3/3600")  # three windows, then it waits for an hour
    deadline = time.monotonic() + 60
    while len(world.services().ledger.pulls(TRACES, day)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert times_asked(world) == dict.fromkeys(starts(day, 0, 3, 6), 1)
    assert world.run(day, select=PULL).success
    assert times_asked(world) == dict.fromkeys(starts(day, *range(0, 24, 3)), 1)


def test_a_window_that_is_not_whole_fails_loudly_and_writes_nothing_and_the_others_are_kept(
    current: MakeWorld, recent: list[date]
) -> None:
    day = recent[0]
    for fault in ("report_html_200", "report_json_error_200", "report_cut_off", "report_no_url_column"):
        faults = Faults(**{fault: Where(paths=(f"interaction_metadata/{day}T18:00:00",))})
        world = current(faults=faults, sandbox={"calls_per_day": (40, 40)})
        result = world.run(day, select=PULL)
        assert not result.success
        sentence = world.failures(result)["interaction_metadata"]
        assert "interaction_metadata of" in sentence
        for secret in ("internal error", "sign in"):
            assert secret not in sentence
        ended = [row["segment_end_time_ms"] for row in rows_of(world, day, "segment_end_time_ms")]
        assert ended
        assert not [end for end in ended if f"{day}T18:00:00" <= end < f"{day}T21:00:00"]
        assert len(world.services().ledger.pulls(TRACES, day)) == 7
        assert world.services().ledger.pulls("interaction_metadata", day) == []


def test_a_recording_flag_that_turns_true_later_is_a_change_and_the_recording_is_taken(
    current: MakeWorld, recent: list[date]
) -> None:
    world = current(faults=Faults(late_links=Where(share=1.0, first=1)))
    day = recent[0]
    first = world.run(day, select=ALL)
    assert world.metadata(first, "interaction_metadata")["rows_with_link"] == 0
    assert world.states(day) == {}
    second = world.run(day, select=ALL)
    seen = world.metadata(second, "interaction_metadata")
    assert seen["rows_changed"] == seen["rows_with_link"] > 0
    assert seen["rows_new"] == seen["rows_vanished"] == 0
    assert {state.status for state in world.states(day).values()} == {Status.archived}


def test_messages_nulls_and_unknown_fields_are_kept_and_lead_to_no_request(
    current: MakeWorld, recent: list[date]
) -> None:
    world = current(faults=Faults(report_reordered=Where(share=1.0)), sandbox={"calls_per_day": (12, 12)})
    days = recent[:2]
    for day in days:
        assert world.run(day, select=[*PULL, "recording_links"]).success
    columns = ("channel_class", "segment_type", "agent_notes", "segment_events", "has_recording", "futurefield")
    rows = [row for day in days for row in rows_of(world, day, *columns)]
    digital = [row for row in rows if row["channel_class"] == "DIGITAL"]
    assert digital
    assert {row["has_recording"] for row in digital} == {None}
    assert {row["futurefield"] for row in rows} == {'{"later":[1,null]}'}
    assert {row["segment_events"] for row in rows if row["segment_type"] == "IVR"} == {None}
    events = [json.loads(row["segment_events"]) for row in rows if row["segment_events"]]
    assert {event["eventType"] for each in events for event in each} == {"REC_START", "REC_STOP"}
    recorded = sum(row["has_recording"] == "true" for row in rows)
    assert 0 < recorded == len({key for day in world.services().ledger.state_days() for key in world.states(day)})


def test_without_the_right_the_failure_names_it(current: MakeWorld, recent: list[date]) -> None:
    world = current(sandbox={"wem": False})
    result = world.run(recent[0], select=PULL)
    sentence = world.failures(result)["interaction_metadata"]
    assert "HTTP 403" in sentence
    assert "WEM access right" in sentence
    assert sum(times_asked(world).values()) == 0
    assert world.sandbox.counters()["requests"]["metadata"] == 1  # no window has it, so one question is enough


def test_a_token_that_runs_out_is_renewed_and_one_that_is_no_bearer_ends_the_run_with_a_sentence(
    current: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = current(faults=Faults(token_seconds=1.5))
    assert world.run(recent[0], select=ALL).success
    assert {state.status for state in world.states(recent[0]).values()} == {Status.archived}
    for name in ("RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RINGCX_API_TOKEN", world.sandbox.config.credentials.api_token)
    result = world.run(recent[2], select=ALL)
    assert "WEM access right" in world.failures(result)["recordings"]
    assert {state.status for state in world.states(recent[2]).values()} == {Status.pending}


def test_a_segment_with_one_channel_is_taken_and_said_and_the_same_again_is_adopted(
    current: MakeWorld, recent: list[date]
) -> None:
    world = current(faults=Faults(mono_file=Where(share=1.0)))
    assert world.run(recent[0], select=ALL).success
    states = world.states(recent[0])
    assert {(state.status, state.layout, state.warnings) for state in states.values()} == {
        (Status.archived, "stereo", ("mono_segment",))
    }


def test_a_segment_ends_in_the_same_states_as_a_link(current: MakeWorld) -> None:
    final = {"not_found": Status.missing, "html_200": Status.rejected, "forbidden": Status.denied}
    world = current()
    bad = dict(zip((segment["segment"]["recording_id"] for segment in segments_of(world, OLD)), final, strict=False))
    files = {segment["segment"]["recording_id"]: segment["file"] for segment in segments_of(world, OLD)}
    world.sandbox.set_faults(Faults(**{fault: Where(paths=(files[key],)) for key, fault in bad.items()}))
    for _ in range(3):
        assert world.run(OLD, select=ALL).success
        world.passed += timedelta(hours=13)
    status_of = {key: state.status for key, state in world.states(OLD).items()}
    assert {key: status_of[key] for key in bad} == {key: final[fault] for key, fault in bad.items()}
    assert {status for key, status in status_of.items() if key not in bad} == {Status.archived}
    assert len(bad) == len(final)


def test_what_the_current_api_gives_proves_nothing_of_the_log_in_for_links_at_the_same_host(
    current: MakeWorld, recent: list[date]
) -> None:
    world = current(RINGCX_SOURCE="both", faults=Faults(unauthorized=Where(paths=("*-[0-9].WAV",))))  # mono
    result = world.run(recent[0], select=[*PULL, "global_call_type_detail", "recording_links", "recordings"])
    assert not result.success
    assert "RINGCX_MEDIA_USERNAME" in world.failures(result)["recordings"]
    of = {state.layout: state.status for state in world.states(recent[0]).values()}
    assert of == {"stereo": Status.archived, "mono": Status.pending}
