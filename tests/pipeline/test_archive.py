"""The main job, end to end: reports and media over HTTP, the ledger and the archive in S3, the run by Dagster."""

from __future__ import annotations

import hashlib
import io
import json
import wave
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from assets.calls import calls
from assets.manifest import daily_manifest
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.calendar import day_bounds
from pipelines.ledger.states import FINAL, Status
from sandbox.calls import calls_between
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld, World

OLD = date(2026, 3, 2)


def test_a_date_is_archived_byte_for_byte_under_its_documented_keys(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    day = recent[0]
    for when in (day - timedelta(days=1), day):
        assert world.run(when, checks=True).success
    truth = world.truth(day)
    assert truth
    objects = world.objects(f"recordings/date={day}/")
    for recording in truth:
        basename = recording["file"].rpartition("/")[2]
        key = f"recordings/date={day}/account_id={recording['account_id']}/layout={recording['layout']}/{basename}"
        assert objects[key] == recording["sha256"]
    assert len(objects) == len(truth)


def test_a_second_run_fetches_no_media_and_seals_no_new_manifest(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    assert world.run(recent[0]).success
    before = world.objects("")
    world.sandbox.reset()
    again = world.run(recent[0])
    assert again.success
    assert world.sandbox.counters()["requests"].get("media", 0) == 0
    assert world.metadata(again, "daily_manifest")["manifest_is_new"] is False
    pulled = world.metadata(again, "agent_segment_metadata")
    assert pulled["dagster/partition_row_count"] == pulled["rows_pulled"]
    for asset in ("agent_segment_metadata", "recording_links", "recordings", "daily_manifest", "calls"):
        bucket, _, prefix = world.metadata(again, asset)["dagster/uri"].removeprefix("s3://").partition("/")
        assert bucket == world.bucket
        assert f"date={recent[0]}" in prefix
        assert world.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["KeyCount"], asset
    assert world.metadata(again, "agent_segment_metadata")["rows_new"] == 0
    assert world.metadata(again, "agent_segment_metadata")["rows_changed"] == 0
    after = world.objects("")
    assert before.items() <= after.items() | {(key, after.get(key)) for key in before if key.startswith("catalog/")}
    assert {key.partition("/")[2].partition("/")[0] for key in set(after) - set(before)} <= {"report_pulls"}


def test_the_row_count_and_the_columns_of_an_asset_are_those_of_what_is_stored_at_its_address(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world, day = make_world(sandbox={"crossing_zones": ("UTC",)}), recent[0]
    result = world.run(day)
    found = {asset: world.metadata(result, asset) for asset in ("recordings", "daily_manifest", "calls")}
    keys = {asset: said["dagster/uri"].removeprefix(f"s3://{world.bucket}/") for asset, said in found.items()}
    rows = {asset: said["dagster/partition_row_count"] for asset, said in found.items()}
    assert rows["recordings"] == len(world.objects(keys["recordings"]))
    assert rows["recordings"] < found["recordings"]["archived"], "a call over midnight is stored under the next date"
    for asset in (daily_manifest, calls):
        name = asset.key.to_user_string()
        body = world.s3.get_object(Bucket=world.bucket, Key=keys[name])["Body"].read()
        table = pq.read_table(io.BytesIO(body))
        columns = asset.metadata_by_key[asset.key]["dagster/column_schema"].columns
        assert ([column.name for column in columns], rows[name]) == (table.column_names, table.num_rows)


def test_recordings_are_the_wavs_of_the_layout_they_are_filed_under(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    assert world.run(recent[0], select=UP_TO_RECORDINGS).success
    seen: Counter[str] = Counter()
    for key in world.objects():
        body = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
        with wave.open(io.BytesIO(body)) as sound:
            seen["layout=mono" if sound.getnchannels() == 1 else "layout=stereo"] += key.count(
                "layout=mono" if sound.getnchannels() == 1 else "layout=stereo"
            )
            assert sound.getframerate() == 8000
    assert seen["layout=mono"]
    assert seen["layout=stereo"]
    assert seen.total() == len(world.objects())


@pytest.mark.slow
def test_every_fault_at_once_converges_to_the_right_states_and_bytes(make_world: MakeWorld, recent: list[date]) -> None:
    days = recent[:2]
    shares = {
        "late_rows": Where(share=0.05, first=1),
        "late_links": Where(share=0.1, first=1),
        "link_evil_host": Where(share=0.03),
        "link_credentials": Where(share=0.03),
        "link_http": Where(share=0.03),
        "link_stray_blanks": Where(share=0.2),
        "reset_early": Where(share=0.04, first=1),
        "server_error": Where(share=0.05, first=2),
        "throttled": Where(share=0.05, first=1),
        "not_yet": Where(share=0.08, first=2),
        "still_encoding": Where(share=0.08, first=1),
        "empty_body": Where(share=0.05, first=1),
        "html_200": Where(share=0.05, first=1),
        "json_200": Where(share=0.04, first=1),
        "mp3": Where(share=0.04, first=1),
        "header_only": Where(share=0.04, first=1),
        "cut_off": Where(share=0.05, first=1),
        "cut_off_chunked": Where(share=0.05, first=1),
        "cut_off_unframed": Where(share=0.05, first=1),
        "reset": Where(share=0.05, first=1),
        "redirect_same_host": Where(share=0.05),
        "forbidden": Where(share=0.04),
        "report_html_200": Where(paths=("agent_segment_metadata/inbound",), first=1),
        "report_cut_off": Where(paths=("agent_segment_metadata/outbound",), first=1),
        "report_throttled": Where(paths=("global_call_type_detail",), first=1),
        "report_reordered": Where(share=1.0),
        "report_bom": Where(share=1.0),
        "token_seconds": 4.0,
    }
    # Shares take what they take on these dates; two of each final kind are named, so that no date lacks one.
    sandbox = {"calls_per_day": (14, 18)}
    paths = [recording["recording_id"].partition("/")[2] for recording in make_world(sandbox=sandbox).truth(days[0])]
    shares["forbidden"] = Where(share=0.04, paths=tuple(paths[:2]))
    shares["link_evil_host"] = Where(share=0.03, paths=tuple(paths[2:4]))
    world = make_world(faults=Faults(seed=7, **shares), sandbox=sandbox)
    truth = world.truth(*days)

    def converged(day: date) -> bool:
        states = world.states(*days)
        of_day = world.truth(day)
        return all(
            recording["recording_id"] in states and states[recording["recording_id"]].status == recording["expected"]
            for recording in of_day
        )

    for _ in range(5):
        for day in days:
            if not converged(day):
                world.run(day, select=UP_TO_RECORDINGS)
        world.passed += timedelta(days=3)
    expected = Counter(recording["expected"] for recording in truth)
    assert expected["archived"] > 20
    assert expected["rejected"]
    assert expected["denied"]
    states = world.states(*days)
    assert [
        (recording["recording_id"], recording["faults"], recording["expected"], states.get(recording["recording_id"]))
        for recording in truth
        if recording["recording_id"] not in states
        or str(states[recording["recording_id"]].status) != recording["expected"]
    ] == []
    assert Counter(world.objects().values()) >= Counter(
        recording["sha256"] for recording in truth if recording["expected"] == "archived"
    )
    bytes_by_key = world.objects()
    for recording in truth:
        if recording["expected"] == "archived":
            assert bytes_by_key[states[recording["recording_id"]].key] == recording["sha256"]
    counters = world.sandbox.counters()
    assert counters["leaked_credentials"] == []
    world.sandbox.reset()
    assert world.run(days[1]).success
    assert world.sandbox.counters()["requests"].get("media", 0) == 0


def test_an_old_recording_that_stays_bad_ends_in_its_state_and_a_young_one_stays_pending(
    make_world: MakeWorld, recent: list[date]
) -> None:
    final = {
        "not_found": Status.missing,
        "still_encoding": Status.missing,
        "empty_body": Status.rejected,
        "html_200": Status.rejected,
        "json_200": Status.rejected,
        "mp3": Status.rejected,
        "header_only": Status.rejected,
        "cut_off": Status.rejected,
        "cut_off_chunked": Status.rejected,
        "cut_off_unframed": Status.rejected,
        "redirect_other_host": Status.rejected,
        "forbidden": Status.denied,
        "unauthorized": Status.denied,
    }
    world = make_world(sandbox={"calls_per_day": (14, 18)})
    young = recent[-1]
    fault_of: dict[str, str] = {}
    for day in (OLD, young):
        stereo = [recording["recording_id"] for recording in world.truth(day) if recording["layout"] == "stereo"]
        fault_of |= dict(zip(stereo, final, strict=False))
    assert Counter(fault_of.values()) == dict.fromkeys(final, 2), "each date has a recording for each fault"
    paths = {fault: tuple(key.partition("/")[2] for key, its in fault_of.items() if its == fault) for fault in final}
    world.sandbox.set_faults(Faults(**{fault: Where(paths=paths[fault]) for fault in final}))
    world.run_until_final(OLD, young)
    for day in (OLD, young):
        states = world.states(day)
        truth = world.truth(day)
        assert states.keys() == {recording["recording_id"] for recording in truth}
        for key, state in states.items():
            if key not in fault_of:
                assert state.status is Status.archived
                continue
            wanted = final[fault_of[key]] if day == OLD else Status.pending
            assert state.status is wanted, fault_of[key]
            assert state.reason
            assert (state.next_attempt_at is None) == (wanted is not Status.pending)
    truth = world.truth(OLD, young)
    bad = {recording["sha256"] for recording in truth if recording["recording_id"] in fault_of}
    stored = set(world.objects().values())
    assert stored >= {recording["sha256"] for recording in truth} - bad
    assert not stored & bad


def test_an_outage_during_a_backfill_costs_time_and_no_recording(make_world: MakeWorld) -> None:
    names = ("not_found", "still_encoding", "empty_body", "html_200", "json_200", "cut_off", "header_only")
    world = make_world(faults=Faults(**{name: Where(share=0.4, first=2) for name in names}))
    world.run_until_final(OLD)
    assert all(run.success for run in world.runs)
    assert {state.status for state in world.states(OLD).values()} == {Status.archived}


def test_a_page_for_every_recording_while_one_run_lasts_costs_time_and_no_recording(
    make_world: MakeWorld,
) -> None:
    world = make_world(faults=Faults(html_200=Where(share=1.0)), sandbox={"calls_per_day": (60, 60)})
    month_ago = datetime.now(UTC).date() - timedelta(days=30)
    result = world.run(month_ago, select=UP_TO_RECORDINGS)
    assert "in a row" in world.failures(result)["recordings"]
    assert {state.status for state in world.states(month_ago).values()} == {Status.pending}
    world.sandbox.set_faults(Faults())
    world.passed += timedelta(minutes=2)
    assert world.run(month_ago, select=UP_TO_RECORDINGS).success
    assert {state.status for state in world.states(month_ago).values()} == {Status.archived}


def test_a_source_that_is_down_leaves_everything_pending_whatever_its_age(make_world: MakeWorld) -> None:
    world = make_world(
        faults=Faults(server_error=Where(share=1.0), error_status=500), sandbox={"calls_per_day": (2, 2)}
    )
    world.run(OLD, select=UP_TO_RECORDINGS)
    states = world.states(OLD)
    assert states
    assert {(state.status, state.reason) for state in states.values()} == {(Status.pending, "source_unavailable")}


def test_wrong_media_credentials_fail_the_run_with_the_variable_and_deny_nothing(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(unauthorized=Where(share=1.0)))
    result = world.run(recent[0], select=UP_TO_RECORDINGS)
    assert not result.success
    assert "RINGCX_MEDIA_USERNAME" in world.failures(result)["recordings"]
    assert {state.status for state in world.states(recent[0]).values()} == {Status.pending}


def test_a_link_that_arrives_on_a_later_pull_is_taken(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(late_links=Where(share=1.0, first=1)))
    day = recent[0]
    first = world.run(day, select=UP_TO_RECORDINGS)
    assert first.success
    assert world.metadata(first, "recording_links")["recordings_found"] == 0
    second = world.run(day, select=UP_TO_RECORDINGS)
    pulled = world.metadata(second, "agent_segment_metadata")
    assert pulled["rows_new"] == 0
    assert pulled["rows_changed"] == world.metadata(second, "recording_links")["stereo"] > 0
    assert {state.status for state in world.states(day).values()} == {Status.archived}


def test_rows_that_arrive_late_are_new_on_a_later_pull(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(late_rows=Where(share=0.5, first=1)))
    day = recent[0]
    world.run(day, select=UP_TO_RECORDINGS)
    again = world.run(day, select=UP_TO_RECORDINGS)
    assert world.metadata(again, "global_call_type_detail")["rows_new"] > 0
    assert world.metadata(again, "global_call_type_detail")["rows_vanished"] == 0
    for day_before in (day - timedelta(days=1), day - timedelta(days=1)):
        world.run(day_before, select=UP_TO_RECORDINGS)
    held_on_day = {recording["recording_id"] for recording in world.truth(day)}
    assert held_on_day == {
        state.recording_id for state in world.states(day).values() if state.status is Status.archived
    }


def test_calls_over_midnight_are_stored_once_under_the_day_they_start(
    make_world: MakeWorld,
) -> None:
    zone = ZoneInfo("US/Arizona")
    world = make_world(ARCHIVE_TIMEZONE=zone.key)
    first = _before_a_leg_at_midnight(world, zone)
    days = [first, first + timedelta(days=1)]
    for day in days:
        assert world.run(day).success
    states = world.states(*days, days[-1] + timedelta(days=1))
    for state in states.values():
        assert state.started_at is not None
        assert state.date == state.started_at.astimezone(zone).date()
    late = [state for state in states.values() if state.date != state.found_on]
    assert late, "a leg that begins at midnight is in the reports of both days"
    assert all(state.status is Status.archived for state in states.values())
    digests = Counter(world.objects().values())
    assert set(digests.values()) == {1}
    truth = world.truth(*days, timezone=zone.key)
    assert {recording["sha256"] for recording in truth} <= set(digests)


def test_a_date_that_waited_for_a_call_past_midnight_is_sealed_complete_by_the_run_that_archives_it(
    make_world: MakeWorld,
) -> None:
    zone = ZoneInfo("US/Arizona")
    world = make_world(ARCHIVE_TIMEZONE=zone.key, ARCHIVE_RETRY_MINUTES="0")
    first = _before_a_leg_at_midnight(world, zone)
    after = first + timedelta(days=1)
    assert world.run(first, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]).success
    late = [state.recording_id for state in world.states(after).values() if state.found_on == first]
    world.sandbox.set_faults(Faults(not_found=Where(paths=tuple(name.partition("/")[2] for name in late))))
    assert world.run(first).success

    def verdict() -> str:
        manifest = latest_manifest(world.services().bucket, first)
        assert manifest is not None
        return str(manifest.document["totals"]["verdict"])

    assert late
    assert verdict() == "waiting"
    world.sandbox.set_faults(Faults())
    assert world.run(after).success
    assert verdict() == "complete"


def _before_a_leg_at_midnight(world: World, zone: ZoneInfo) -> date:
    """The newest local date, over for days, whose last call has a recorded leg that begins as the next day does."""
    config = world.sandbox.config
    day = datetime.now(UTC).date() - timedelta(days=4)
    while True:
        midnight = day_bounds(day, zone)[1]
        calls = calls_between(config.plan(), config.accounts[0], midnight - timedelta(minutes=1), midnight)
        if any(leg.recording and leg.started_at == midnight for call in calls for leg in call.segments):
            return day
        day -= timedelta(days=1)


@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2025, 10, 26)])
def test_days_of_23_and_25_hours_are_whole(make_world: MakeWorld, day: date) -> None:
    zone = "Europe/Berlin"
    world = make_world(ARCHIVE_TIMEZONE=zone, sandbox={"timezone": zone, "crossing_zones": (zone,)})
    before = day - timedelta(days=1)
    for when in (before, day):
        assert world.run(when).success
    held = {key for key, state in world.states(day).items() if state.status is Status.archived}
    assert held == {recording["recording_id"] for recording in world.truth(day, timezone=zone)}


@pytest.mark.parametrize(
    "fault",
    [
        "report_html_200",
        "report_json_error_200",
        "report_empty_body",
        "report_cut_off",
        "report_cut_off_chunked",
        "report_no_url_column",
        "report_wrong_width",
        "report_forbidden",
    ],
)
@pytest.mark.parametrize("report", ["agent_segment_metadata", "global_call_type_detail"])
def test_a_bad_report_fails_its_asset_with_a_sentence_and_writes_nothing(
    make_world: MakeWorld, recent: list[date], fault: str, report: str
) -> None:
    form = {"report_csv": Where(share=1.0)} if fault in ("report_no_url_column", "report_wrong_width") else {}
    world = make_world(faults=Faults(**{fault: Where(paths=(f"{report}*",))}, **form))
    result = world.run(recent[0], select=["agent_segment_metadata", "global_call_type_detail"])
    sentence = world.failures(result)[report]
    assert report in sentence
    assert str(recent[0]) in sentence
    assert world.sandbox.config.accounts[0] in sentence
    other = ({"agent_segment_metadata", "global_call_type_detail"} - {report}).pop()
    assert world.metadata(result, other)["rows_new"] > 0
    ledger = world.services().ledger
    assert ledger.days("report_rows", report) == []
    assert ledger.pulls(report, recent[0]) == []
    assert ledger.days("report_rows", other) == [recent[0]]


def test_a_quiet_day_succeeds_and_leaves_a_trace(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox={"calls_per_day": (0, 0), "crossing_zones": ()})
    result = world.run(recent[0])
    assert result.success
    assert world.metadata(result, "agent_segment_metadata")["rows_pulled"] == 0
    assert [pull.rows for pull in world.services().ledger.pulls("agent_segment_metadata", recent[0])] == [0]
    (key,) = world.objects("manifests/")
    manifest = json.loads(world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
    assert manifest["totals"]["rows_agent_segment_metadata"] == 0
    assert manifest["totals"]["found"] == 0


def test_every_account_is_archived_and_one_that_fails_takes_nothing_from_the_others(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(sandbox={"accounts": ("15300002", "15300003")}, RINGCX_ACCOUNT_IDS="15300002,99999,15300003")
    result = world.run(recent[0])
    assert not result.success
    assert "99999" in world.failures(result)["agent_segment_metadata"]
    pulled = {pull.account_id for pull in world.services().ledger.pulls("agent_segment_metadata", recent[0])}
    assert pulled == {"15300002", "15300003"}
    assert world.run(recent[0], select=["recording_links", "recordings", "daily_manifest"]).success
    assert {state.account_id for state in world.states(recent[0]).values()} == {"15300002", "15300003"}


def test_a_link_refused_by_a_setting_is_taken_when_the_setting_changes(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(RINGCX_MEDIA_HOSTS="recordings.example.com")
    assert world.run(recent[0], select=UP_TO_RECORDINGS).success
    refused = world.states(recent[0])
    assert {(state.status, state.reason) for state in refused.values()} == {
        (Status.rejected, "link_refused:host_not_allowed")
    }
    assert world.sandbox.counters()["requests"].get("media", 0) == 0
    monkeypatch.setenv("RINGCX_MEDIA_HOSTS", world.sandbox.host)
    assert world.run(recent[0], select=UP_TO_RECORDINGS).success
    assert {state.status for state in world.states(recent[0]).values()} == {Status.archived}


def test_today_is_pulled_as_far_as_it_is_settled(make_world: MakeWorld, noon: str) -> None:
    world = make_world(ARCHIVE_TIMEZONE=noon)
    result = world.run(datetime.now(UTC).date())
    assert result.success
    assert world.metadata(result, "agent_segment_metadata")["whole_day"] is False


def test_other_bytes_under_a_recordings_key_are_a_conflict_and_both_are_kept(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(LEDGER_URL="ledger-one")
    day = recent[0]
    assert world.run(day).success
    victim = next(iter(world.states(day).values()))
    client = world.s3
    held = client.get_object(Bucket=world.bucket, Key=victim.key)
    altered = held["Body"].read()[:-2] + b"no"
    metadata = {name.lower(): value for name, value in held["Metadata"].items()} | {"sha256": "0" * 64}
    client.put_object(Bucket=world.bucket, Key=victim.key, Body=altered, Metadata=metadata)
    # A ledger that knows nothing of it, as after a restore: the source's bytes meet the altered ones.
    monkeypatch.setenv("LEDGER_URL", "ledger-two")
    assert world.run(day).success
    states = world.states(day)
    assert (states[victim.recording_id].status, states[victim.recording_id].reason) == (Status.rejected, "conflict")
    assert world.objects()[victim.key] == hashlib.sha256(altered).hexdigest()
    assert list(world.objects("conflicts/").values()) == [victim.sha256]
    others = [state for state in states.values() if state.recording_id != victim.recording_id]
    assert {state.status for state in others} == {Status.archived}


def test_a_ledger_that_was_lost_is_rebuilt_from_the_archive_without_fetching(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(LEDGER_URL="ledger-one")
    assert world.run(recent[0]).success
    before = {key: (state.status, state.sha256, state.key) for key, state in world.states(recent[0]).items()}
    world.sandbox.reset()
    monkeypatch.setenv("LEDGER_URL", "ledger-two")
    again = world.run(recent[0])
    assert again.success
    assert world.metadata(again, "recordings")["adopted_now"] == world.metadata(again, "recordings")["archived"]
    assert {key: (state.status, state.sha256, state.key) for key, state in world.states(recent[0]).items()} == before
    assert world.sandbox.counters()["requests"].get("media", 0) == 0


def test_more_denied_recordings_than_the_run_bears_failures_in_a_row_still_end_denied(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(forbidden=Where(paths=("*-session-*",))), sandbox={"calls_per_day": (60, 60)})
    day = recent[0]
    world.run(day, select=UP_TO_RECORDINGS)
    expected = {recording["recording_id"]: recording["expected"] for recording in world.truth(day)}
    assert list(expected.values()).count("denied") > 40
    assert not {state.status for state in world.states(day).values()} & FINAL
    for _ in range(40):  # how many it takes depends on the date's calls, and on the order in which answers come
        world.passed += timedelta(days=3)
        world.run(day, select=["recordings"])
        states = world.states(day)
        if all(states[key].status in FINAL for key, end in expected.items() if end == "denied"):
            break
    assert {key: str(state.status) for key, state in states.items() if key in expected} == expected


def test_the_first_row_of_each_asset_of_a_date_is_one_sentence_that_says_how_far_it_goes(
    make_world: MakeWorld, noon: str
) -> None:
    today = datetime.now(UTC).date()
    world = make_world(ARCHIVE_TIMEZONE=noon, sandbox={"timezone": noon, "calls_per_day": (14, 14)})
    for day, how_far in ((today, "only up to"), (today - timedelta(days=1), "whole day")):
        result = world.run(day)
        assert result.success
        for asset in ("agent_segment_metadata", "global_call_type_detail", "recording_links"):
            (event,) = result.asset_materializations_for_node(asset)
            name, first = next(iter(event.metadata.items()))
            assert name == "summary"
            assert str(day) in str(first.value)
            assert str(first.value).endswith(".")
            assert (how_far in str(first.value)) is (asset != "recording_links")
            assert [value.value for value in event.metadata.values()].count(0) <= 3
        for asset in ("recordings", "daily_manifest"):
            (event,) = result.asset_materializations_for_node(asset)
            assert next(iter(event.metadata)) == "verdict"
        # `recordings` is the percentage that people plot; of a date that is not over it is not known.
        (sealed,) = result.asset_materializations_for_node("daily_manifest")
        assert ("percent_held" in sealed.metadata) is (how_far == "whole day")
