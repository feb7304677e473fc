"""Execute checks of a date, or the standing check, and read their results."""

from __future__ import annotations

import io
import struct
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    Definitions,
    JobDefinition,
    TableMetadataValue,
)

from pipelines.definitions import build_defs
from pipelines.ledger.states import RecordingState, Status
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar, load
from tests.listing import listed
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld, World, assets_of_date, job_of_date
from tests.servers.scripted_http import Response, ScriptedServer
from tests.states import pending

OLD = date(2026, 3, 2)
REPORTS = ["agent_segment_metadata", "global_call_type_detail"]
STEREO = ("*-session-*-stereo.WAV",)
FEW = {"calls_per_day": (3, 3)}
ERROR, WARN = AssetCheckSeverity.ERROR, AssetCheckSeverity.WARN


def later(**ahead: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(**ahead)


def environment_of(world: World, clock: Callable[[], datetime] | None = None) -> Environment:
    return Environment(clock=clock, s3_client=world.s3) if clock else world.environment


def defs_of(world: World, clock: Callable[[], datetime] | None = None) -> Definitions:
    return build_defs(environment=environment_of(world, clock))


@cache
def job_of_check(calendar: Calendar, key: AssetCheckKey) -> JobDefinition:
    return job_of_date(calendar).get_subset(asset_selection=set(), asset_check_selection={key})


def check(
    world: World, name: str, day: date, *, asset: str = "recordings", clock: Callable[[], datetime] | None = None
) -> AssetCheckEvaluation:
    """Execute one check of one date alone, as the UI does."""
    job = job_of_check(load(Calendar), AssetCheckKey(AssetKey(asset), name))
    resources = all_resources(environment_of(world, clock))
    result = job.execute_in_process(partition_key=day.isoformat(), instance=world.instance, resources=resources)
    (found,) = result.get_asset_check_evaluations()
    assert found.partition == day.isoformat()
    return found


def standing(world: World, *, clock: Callable[[], datetime] | None = None) -> AssetCheckEvaluation:
    result = defs_of(world, clock).resolve_job_def("standing_check").execute_in_process(instance=world.instance)
    (found,) = result.get_asset_check_evaluations()
    return found


def run(world: World, day: date, **config: Any) -> Any:
    """A run of `recordings` with this config, as the launchpad gives it, without its checks."""
    return assets_of_date(load(Calendar), ("recordings",)).execute_in_process(
        partition_key=day.isoformat(),
        instance=world.instance,
        resources=all_resources(world.environment),
        run_config={"ops": {"recordings": {"config": config}}} if config else None,
        raise_on_error=False,
    )


def fetch(world: World, day: date) -> None:
    """What a run does to have the recordings: everything but the checks and the seal."""
    assert world.run(day, select=UP_TO_RECORDINGS).success


def figures(found: AssetCheckEvaluation) -> dict[str, Any]:
    return defaultdict(int, {name: value.value for name, value in found.metadata.items()})


def rows(found: AssetCheckEvaluation, name: str) -> list[Mapping[str, Any]]:
    value: Any = found.metadata[name]
    if isinstance(value, TableMetadataValue):
        return [record.data for record in value.records]
    return list(listed(value.value))


def states_of(world: World, day: date, status: Status) -> list[RecordingState]:
    return [state for state in world.states(day).values() if state.status is status]


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    """A world whose ledger is a folder, which costs a third less CPU; test_archive has it in the bucket."""
    return partial(make_world, LEDGER_URL="ledger")


def wav(seconds: int, *, left: int, right: int) -> bytes:
    frames = struct.pack("<hh", left, right) + struct.pack("<hh", -left, -right)
    body = io.BytesIO()
    with wave.open(body, "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(frames * (seconds * 4000))
    return body.getvalue()


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """A source that has one recording; yields `host:port`."""

    with ScriptedServer(Response(body=body, headers={"Content-Type": "audio/wav"})) as server:
        yield server.host


def known_recording(world: World, day: date, host: str, *, expected_s: float) -> RecordingState:
    """A stereo recording on `day` whose link leads to `host`, as if a row had named it."""
    now = datetime.now(UTC)
    account = world.sandbox.config.accounts[0]
    file = f"perspective/{account}/{day:%Y%m/%d}/{day:%Y%m%d}0930000100000000000001-session-2-stereo.WAV"
    state = pending(
        f"{account}/{file}",
        day,
        now,
        account_id=account,
        uii=f"{day:%Y%m%d}0930000100000000000001",
        layout="stereo",
        source="agent_segment_metadata",
        link=f"http://{host}/api/v1/calls/recordings?v=1&accountId={account}&bucket=b&region=r&file={file}",
        started_at=now - timedelta(days=1),
        expected_duration_s=expected_s,
    )
    world.services().ledger.append_states([state])
    return state
