"""What starts a run when events arrive, and how soon the recordings that they name are held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dagster import DagsterInstance, DagsterRunStatus, SkipReason, build_sensor_context
from dagster._core.definitions.sensor_definition import SensorExecutionData

from pipelines.definitions import build_defs
from pipelines.ledger.states import Status
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from tests.pipeline.conftest import MakeWorld
from tests.pipeline.stored_events import calls, event_fields, store

AFTER_EVENTS = ["end_call_events", "recording_links", "recordings", "daily_manifest", "calls"]


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    """A world whose ledger is a folder, which costs a third less CPU; test_archive has it in the bucket."""
    return partial(make_world, LEDGER_URL="ledger")


@pytest.fixture
def events_folder(tmp_path: Path) -> Path:
    return tmp_path / "stored-events"


@pytest.mark.slow
def test_with_both_sensors_at_a_tick_a_minute_half_the_recordings_are_held_within_five_minutes(
    make_world: MakeWorld, events_folder: Path
) -> None:
    world, begin = make_world(EVENTS_URL=str(events_folder), sandbox={"calls_per_day": (16, 16)}), datetime.now(UTC)
    day = begin.date() - timedelta(days=1)
    of_day = calls(world, day)
    arrives = {call.uii: begin + timedelta(seconds=17 * number) for number, call in enumerate(of_day)}
    cursors: dict[str, str | None] = {}
    stored: set[str] = set()
    medians: list[float] = []
    for minute in range(1, 10):
        now = begin + timedelta(minutes=minute)
        for call in of_day:
            if arrives[call.uii] <= now and call.uii not in stored:
                store(events_folder, day, event_fields(world, [call]), at=arrives[call.uii])
                stored.add(call.uii)
        ahead = Environment(clock=lambda now=now: now + timedelta(seconds=20), s3_client=world.s3)  # a run's start
        for name in ("pending_recordings", "end_call_events_arrived"):
            tick = evaluate(world.instance, cursors.get(name), now=now, name=name)
            cursors[name] = tick.cursor
            for request in tick.run_requests:
                result = (
                    build_defs(environment=ahead)
                    .resolve_job_def("archive_day")
                    .execute_in_process(
                        partition_key=request.partition_key,
                        instance=world.instance,
                        asset_selection=list(request.asset_selection),
                        tags={"dagster/run_key": request.run_key},
                    )
                )
                medians.append(world.metadata(result, "recordings").get("event_to_archive_median_s", 0.0))
    states = world.states(day, day + timedelta(days=1)).values()
    assert {state.status for state in states} == {Status.archived}
    took = sorted((state.written_at - arrives[state.uii]).total_seconds() for state in states)
    assert len(took) == sum(bool(call.mono) for call in of_day)
    assert took[0] >= 120  # no link was asked for before it could be valid
    assert took[len(took) // 2] < 300
    assert max(took) < 300
    assert 120 <= max(medians) < 300


def evaluate(
    instance: DagsterInstance,
    cursor: str | None = None,
    *,
    now: datetime | None = None,
    name: str = "end_call_events_arrived",
) -> SensorExecutionData:
    repository = build_defs().get_repository_def()
    resources = all_resources(Environment(clock=lambda: now or datetime.now(UTC)))
    with build_sensor_context(instance, cursor, repository_def=repository, resources=resources) as context:
        found = repository.get_sensor_def(name).evaluate_tick(context)
        assert not isinstance(found, SkipReason)
        return found


def dates_requested(found: SensorExecutionData) -> list[str]:
    return [request.partition_key for request in found.run_requests]


def test_the_sensor_asks_once_for_what_arrived_and_again_for_what_comes_later(
    make_world: MakeWorld, events_folder: Path
) -> None:
    world, today = make_world(EVENTS_URL=str(events_folder)), datetime.now(UTC).date()
    assert dates_requested(evaluate(world.instance)) == []
    store(events_folder, today, [{"call_id": "1", "account_id": "15300002"}])
    first = evaluate(world.instance)
    assert dates_requested(first) == [today.isoformat()]
    assert [key.to_user_string() for key in first.run_requests[0].asset_selection] == AFTER_EVENTS
    world.instance.create_run_for_job(
        build_defs().resolve_job_def("archive_day"),
        tags={"dagster/partition": today.isoformat(), "dagster/run_key": first.run_requests[0].run_key},
        status=DagsterRunStatus.SUCCESS,
    )
    assert dates_requested(evaluate(world.instance)) == []
    store(events_folder, today, [{"call_id": "2", "account_id": "15300002"}])
    third = evaluate(world.instance)
    assert dates_requested(third) == [today.isoformat()]
    assert third.run_requests[0].run_key != first.run_requests[0].run_key


def test_a_day_that_still_grows_is_sealed_once_an_hour_and_one_that_is_over_each_time(
    make_world: MakeWorld, events_folder: Path
) -> None:
    now = datetime.now(UTC)
    zone = "UTC" if now.hour < 20 else "Etc/GMT+12"  # in which the day is not over within the next 70 minutes
    world, today = (
        make_world(EVENTS_URL=str(events_folder), ARCHIVE_TIMEZONE=zone),
        now.astimezone(ZoneInfo(zone)).date(),
    )
    for day, often in ((today, False), (today - timedelta(days=1), True)):
        selections = []
        for number, at in enumerate((now, now, now + timedelta(minutes=50), now + timedelta(minutes=70))):
            store(events_folder, day, [{"call_id": f"{number}", "account_id": "15300002"}])
            found = evaluate(world.instance, now=at)
            (request,) = [candidate for candidate in found.run_requests if candidate.partition_key == day.isoformat()]
            selections.append([key.to_user_string() for key in request.asset_selection])
            if number == 0:
                assert world.run(day, select=["daily_manifest"]).success
        assert selections == [AFTER_EVENTS if often or sealed else AFTER_EVENTS[:-2] for sealed in (1, 0, 0, 1)]


def test_the_sensor_waits_for_an_unfinished_run_and_asks_again_after_one_that_failed_when_more_arrives(
    make_world: MakeWorld, events_folder: Path
) -> None:
    world, today = make_world(EVENTS_URL=str(events_folder)), datetime.now(UTC).date()
    store(events_folder, today, [{"call_id": "1", "account_id": "15300002"}])
    job = build_defs().resolve_job_def("archive_day")
    tags = {"dagster/partition": today.isoformat()}
    run = world.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    assert dates_requested(evaluate(world.instance)) == []
    world.instance.delete_run(run.run_id)
    (request,) = evaluate(world.instance).run_requests
    world.instance.create_run_for_job(
        job, tags=tags | {"dagster/run_key": request.run_key}, status=DagsterRunStatus.FAILURE
    )
    assert dates_requested(evaluate(world.instance)) == []
    store(events_folder, today, [{"call_id": "2", "account_id": "15300002"}])
    assert dates_requested(evaluate(world.instance)) == [today.isoformat()]
