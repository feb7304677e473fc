"""Whole runs in several processes at once stay inside the source's limits, log in once, and fall silent together."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest

from pipelines.orchestration import priority
from pipelines.ringcx.limits import limiter
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.settings import Calendar
from sandbox.config import Limits
from tests.pipeline.conftest import MakeWorld, Nursery, Store

SILENCE_S = 3
# What was under way when the source asked for silence still arrives.
UNDER_WAY_S = 0.5


@pytest.fixture
def make_world(make_world: MakeWorld, rclone: Store) -> MakeWorld:
    """With a store that other processes reach."""
    return partial(make_world, store=rclone)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_several_processes_with_different_dates_keep_every_limit_and_log_in_once_each(
    make_world: MakeWorld, nursery: Nursery, recent: list[date], store: str, request: pytest.FixtureRequest
) -> None:
    # As documented, 2 and 5 requests in 60 s, with the waits made short enough for a test.
    limits = Limits(reports="5/2", exchange="2/2", media="25/1")
    world = make_world(
        sandbox={"limits": limits, "calls_per_day": (8, 10), "crossing_zones": ()},
        RINGCX_LIMIT_REPORTS=limits.reports,
        RINGCX_LIMIT_AUTH=limits.exchange,
        RINGCX_LIMIT_MEDIA=limits.media,
        RATE_LIMIT_URL=request.getfixturevalue("database") if store == "postgres" else "",
    )
    together = time.time() + 1.0
    runs = [nursery.start(world, day, go_at=together) for day in recent]
    for run in runs:
        assert run.wait() == 0
        assert run.outcome()["success"], run.outcome()["errors"]
    counted = world.sandbox.counters()
    assert not any(counted["violations"].values()), counted["violations"]
    assert sum(counted["reports"].values()) == 9, "more than a window takes"
    assert counted["requests"]["media"] > 25
    logins = counted["logins"]
    assert (logins["oauth"], logins["exchange"], logins["legacy_login"]) == (3, 3, 0)
    assert set(world.objects().values()) >= {recording["sha256"] for recording in world.truth(*recent)}


def test_a_step_that_waits_long_for_a_permit_says_so_in_the_log_of_its_run(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "ANNOUNCED_FROM_S", 1.0)
    world = make_world(RINGCX_LIMIT_REPORTS="1/3", RINGCX_ACCOUNT_IDS="15300002")
    reports = ["agent_segment_metadata", "global_call_type_detail"]
    run = world.run(recent[0], select=reports)
    assert run.success
    waits = [
        (entry.step_key, entry.user_message)
        for entry in world.instance.all_logs(run.run_id)
        if entry.user_message.startswith("Waiting for a permit of the limit `reports` of account 15300002: about ")
    ]
    assert len(waits) >= 1
    assert {step for step, _ in waits} <= set(reports)


@pytest.mark.slow
def test_a_429_with_retry_after_silences_every_process_for_as_long_as_it_says(
    make_world: MakeWorld, nursery: Nursery, recent: list[date]
) -> None:
    world = make_world(sandbox={"calls_per_day": (14, 14), "crossing_zones": (), "media_latency_s": 0.15})
    days = recent[:2]
    files = [sorted(recording["file"] for recording in world.truth(day)) for day in days]
    world.sandbox.set_faults({"throttled": {"paths": [files[0][12]], "first": 1}, "retry_after_s": SILENCE_S})
    together = time.time() + 1.0
    runs = [nursery.start(world, day, go_at=together, ARCHIVE_CONCURRENCY="1") for day in days]
    deadline = time.monotonic() + 30
    while not (seen := world.sandbox.counters())["statuses"].get("fault throttled"):
        assert time.monotonic() < deadline, [run.outcome() for run in runs]
        time.sleep(0.02)
    asked = time.monotonic()
    for of_day in files:
        assert 0 < len(set(of_day) & set(seen["media_by_path"])) < len(of_day), (
            "one is idle: silence would show nothing"
        )
    time.sleep(UNDER_WAY_S)
    before = world.sandbox.counters()["requests"]["media"]
    time.sleep(max(0.0, asked + SILENCE_S - 0.3 - time.monotonic()))
    assert world.sandbox.counters()["requests"]["media"] == before
    for run in runs:
        assert run.wait() == 0
        assert run.outcome()["success"], run.outcome()["errors"]
    counted = world.sandbox.counters()
    assert counted["requests"]["media"] > before
    assert counted["statuses"]["media 429"] == 1
    assert set(world.objects().values()) >= {recording["sha256"] for recording in world.truth(*days)}


@pytest.mark.slow
def test_the_requests_of_a_run_wait_with_the_priority_of_its_date(
    make_world: MakeWorld, nursery: Nursery, recent: list[date]
) -> None:
    world = make_world(RINGCX_LIMIT_REPORTS="100/1")
    file = Path(world.variables["DATA_DIR"]) / "rate_limits.sqlite"
    account = world.sandbox.config.accounts[0]
    limiter = RateLimiter(file)
    limiter.hold_off("reports", account, 60)
    today, old = datetime.now(UTC).date(), date(2024, 2, 29)
    runs = [nursery.start(world, day) for day in (old, recent[2])]
    wanted = {priority.of_requests(day, today, Calendar()) for day in (old, recent[2])}
    deadline = time.monotonic() + 60
    found: set[int] = set()
    while not found >= wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
        with sqlite3.connect(file) as connection:
            rows = connection.execute("SELECT queue FROM states WHERE name = 'reports'").fetchall()
        connection.close()
        found = {priority for (queue,) in rows for priority, *_ in json.loads(queue)}
    assert found == wanted
    assert min(wanted) == 2, "the day before yesterday"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE states SET held_until = 0")
    connection.close()
    for run in runs:
        assert run.wait() == 0
    limiter.close()
