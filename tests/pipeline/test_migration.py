"""Moving an account from the reports to the current API: nothing is fetched twice, nothing lost, all of it said."""

from __future__ import annotations

import io
import os
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from dagster import ExecuteInProcessResult

from pipelines.ledger.schema import states_by_id
from pipelines.ledger.states import Status
from pipelines.steps.check.result import Level
from pipelines.steps.check.verdict import every_recording_is_accounted_for, judge_date
from sandbox.config import Limits
from sandbox.faults import Faults, Where
from tests.commands import run
from tests.pipeline.conftest import MakeWorld, World

OLD = date(2026, 3, 2)
ASSETS = ["recording_links", "recordings", "daily_manifest"]
REPORTS = {
    "legacy": ["agent_segment_metadata", "global_call_type_detail"],
    "current": ["interaction_metadata"],
    "both": ["agent_segment_metadata", "global_call_type_detail", "interaction_metadata"],
}


@pytest.fixture
def account(make_world: MakeWorld) -> MakeWorld:
    """A world that has both sources; `run_as` switches it."""

    def make(**arguments: Any) -> World:
        free = Limits(reports="none", exchange="none", metadata="none", download="none")
        sandbox = {"limits": free, "talk_seconds": (3, 6), **arguments.pop("sandbox", {})}
        return make_world(
            sandbox=sandbox, **{"RINGCX_LIMIT_METADATA": "none", "RINGCX_LIMIT_MEDIA": "none", **arguments}
        )

    return make


def run_as(world: World, source: str, *days: date) -> list[ExecuteInProcessResult]:
    """Runs of these dates, with this source from now on."""
    os.environ["RINGCX_SOURCE"] = source
    results = [world.run(day, select=[*REPORTS[source], *ASSETS]) for day in days]
    assert all(result.success for result in results), [world.failures(result) for result in results]
    return results


def completeness(world: World, day: date) -> Any:
    services = world.services()
    stores = services.ledger, services.bucket
    return every_recording_is_accounted_for(judge_date(*stores, day, services.settings, now=datetime.now(UTC)))


def catalog(world: World, day: date) -> list[dict[str, Any]]:
    key = f"catalog/date={day}/recordings.parquet"
    body = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    return pq.read_table(io.BytesIO(body)).to_pylist()


@pytest.mark.slow
def test_a_range_that_is_legacy_then_both_then_current_fetches_no_recording_twice_and_loses_none(
    account: MakeWorld, recent: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    world = account()
    first, second, third = recent
    run_as(world, "legacy", first - timedelta(days=1), first, second)
    by_reports = set(world.states(first, second))
    run_as(world, "both", second, third)
    run_as(world, "current", first, second, third, third + timedelta(days=1))

    counters = world.sandbox.counters()
    assert max(counters["media_by_path"].values()) == 1
    assert counters["requests"]["download"] > 0  # of the date that the reports never told of

    truth = world.truth(*recent)
    objects = world.objects()
    # Mono recordings have no counterpart: they come as long as the reports are asked for.
    assert Counter(objects.values()) >= Counter(recording["sha256"] for recording in truth)
    assert max(Counter(objects.values()).values()) == 1
    states = world.states(*recent)
    assert by_reports <= states.keys()
    assert {state.status for state in states.values()} == {Status.archived}
    ids = {recording["recording_id"] for recording in truth}
    for day in (first, second):
        assert {key for key, state in states.items() if state.date == day} == {
            recording["recording_id"] for recording in truth if recording["start"].startswith(f"{day}")
        }
    names = states_by_id(world.services().ledger.current(recent))
    for recording in (recording for recording in truth if recording["segment"]):
        known = names[recording["segment"]["recording_id"]]
        assert known.same_as in ids or known.status is Status.archived

    for day in recent:
        found = completeness(world, day)
        assert (found.level, found.counts["reports_not_pulled"]) == (Level.ok, 0), found.sentence
        assert found.counts["found"] == found.counts["archived"]
    rows = catalog(world, first)
    assert len(rows) == sum(state.date == first for state in states.values())
    also = {row["recording_id"]: row["also_known_as"] for row in rows}
    for recording in truth:
        if recording["segment"] and recording["recording_id"] in also:
            assert also[recording["recording_id"]] == [recording["segment"]["recording_id"]]
    code = run("verify", ["--from", f"{first}", "--to", f"{third}", "--read-data"], world.s3)
    assert code == 0, capsys.readouterr().out


def test_the_second_run_of_a_date_under_both_changes_nothing(account: MakeWorld, recent: list[date]) -> None:
    world = account(sandbox={"calls_per_day": (4, 5)})
    (result,) = run_as(world, "both", recent[0])
    found = world.metadata(result, "recording_links")
    days = [recent[0] + timedelta(days=step) for step in (-1, 0, 1)]
    held, names = world.states(*days), states_by_id(world.services().ledger.current(days))
    assert found["of_both_sources"] == sum(state.same_as is not None for state in names.values()) > 0
    assert {state.same_as for state in names.values()} - {None} <= {
        key for key, state in held.items() if state.source == "agent_segment_metadata"
    }
    assert found["recordings_found"] == len(held)
    assert max(world.sandbox.counters()["media_by_path"].values()) == 1
    world.sandbox.reset()
    (again,) = run_as(world, "both", recent[0])
    assert world.sandbox.counters()["media_by_path"] == {}
    assert world.metadata(again, "recording_links")["recordings_new"] == 0
    assert world.metadata(again, "recordings")["found"] == found["recordings_found"]
    assert world.metadata(again, "daily_manifest")["manifest_is_new"] is False


@pytest.mark.slow
def test_what_the_reports_source_lost_is_taken_from_the_current_api_and_is_then_lost_no_more(
    account: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = account(sandbox={"calls_per_day": (4, 5)})
    world.sandbox.set_faults(Faults(not_found=Where(paths=("*-stereo.WAV",))))
    for _ in range(3):
        run_as(world, "legacy", OLD)
        world.passed += timedelta(hours=13)
    stereo = [state for state in world.states(OLD).values() if state.layout == "stereo"]
    assert stereo
    assert {state.status for state in stereo} == {Status.missing}
    world.sandbox.set_faults(Faults())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RINGCX_SOURCE", "current")
        assert world.run(OLD, select=["interaction_metadata", "recording_links", "recordings"]).success
    assert run("verify", ["--from", f"{OLD}", "--to", f"{OLD}"], world.s3) == 1
    output = capsys.readouterr().out
    assert "stale" in output  # not sealed since, and no more than that: nothing was taken out of the ledger
    assert "ledger_lacks" not in output
    run_as(world, "current", OLD, OLD + timedelta(days=1), OLD)  # a call over midnight is reported on the day it ends
    states = world.states(OLD)
    assert {state.status for state in states.values()} == {Status.archived}
    names = states_by_id(world.services().ledger.current([OLD]))
    assert all(states[names[state.recording_id].same_as].status is Status.archived for state in stereo)
    assert completeness(world, OLD).level is Level.ok


def test_an_id_that_waited_for_the_other_one_is_tried_itself_when_that_one_is_given_up(
    account: MakeWorld,
) -> None:
    world = account(sandbox={"calls_per_day": (3, 3)})
    world.sandbox.set_faults(Faults(not_found=Where(paths=("*-stereo.WAV",))))
    for _ in range(3):
        (result,) = run_as(world, "both", OLD)
        world.passed += timedelta(hours=13)
    waiting = {key: state for key, state in world.states(OLD).items() if state.source == "interaction_metadata"}
    assert {(state.status, state.reason) for state in waiting.values()} == {(Status.pending, "other_source_failed")}
    assert world.metadata(result, "recordings")["pending"] == len(waiting) > 0
    world.sandbox.set_faults(Faults())
    assert world.run(OLD, select=["recordings", "daily_manifest"]).success
    names = states_by_id(world.services().ledger.current([OLD]))
    assert {names[key].status for key in waiting} == {Status.archived}
    assert {state.same_as for state in names.values()} - {None} == waiting.keys()  # found and held once


def test_a_date_pulled_by_either_source_is_pulled_and_one_pulled_by_none_or_half_is_not(
    account: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = account(sandbox={"calls_per_day": (3, 3)})
    run_as(world, "legacy", recent[0])
    assert world.run(recent[1], select=["agent_segment_metadata"]).success  # half of the legacy source
    run_as(world, "current", recent[2])
    gaps = {
        source: [
            (monkeypatch.setenv("RINGCX_SOURCE", source), completeness(world, day).counts["reports_not_pulled"])[1]
            for day in recent
        ]
        for source in ("legacy", "current", "both")
    }
    assert gaps == {"legacy": [0, 1, 0], "current": [0, 1, 0], "both": [0, 2, 2]}  # whose mono recordings nothing names
