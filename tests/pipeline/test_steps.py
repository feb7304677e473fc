"""What single steps promise where whole runs seldom come: failures at one place, and two things at the same moment."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from pipelines.archive.keys import catalog_key, recording_key
from pipelines.archive.proof.chain import read_chain
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.ledger.schema import table_of
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.settings import Calendar
from pipelines.steps.fetch.fetcher import Fetcher, FetchResult
from pipelines.steps.fetch.work_queue import work_queue
from pipelines.steps.link.recordings_table import RecordingsTable, recordings_of
from pipelines.steps.link.register_links import register_links
from pipelines.steps.seal.seal_day import Stores, seal_day
from sandbox.config import Credentials
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld, Store, World
from tests.services import Services

OLD = date(2026, 3, 2)


@pytest.fixture
def make_world(make_world: MakeWorld, rclone: Store) -> MakeWorld:
    """With a store whose client has boto3's events, at which tests come between."""
    return partial(make_world, store=rclone)


@contextmanager
def at_each(client: Any, operation: str, act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with the key before each such request of the S3 client; what it raises is raised to the caller."""

    def handler(params: dict[str, Any], **_: Any) -> None:
        act(params["url_path"])

    client.meta.events.register(f"before-call.s3.{operation}", handler)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-call.s3.{operation}", handler)


def fetched(services: Services, *states: RecordingState) -> FetchResult:
    """What a run does that knows these recordings and no other, all that are pending due."""
    due = {"next_attempt_at": datetime(2020, 1, 1, tzinfo=UTC)}
    rows = [replace(state, **due) if state.status is Status.pending else state for state in states]
    known = RecordingsTable.of(table_of(RecordingState, rows))
    queue = work_queue(known, services.allowed, services.bucket.prefix, now=services.clock(), run_id="test")
    assert len(queue) == sum(state.status is Status.pending for state in states)
    threads = min(4, services.settings.archive_concurrency)
    return Fetcher(services.attempt, services.ledger, threads, "test", lambda _: None).run(queue)


def some_state(key: str, day: date, **values: Any) -> RecordingState:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    known: dict[str, Any] = {
        "recording_id": key,
        "account_id": "15300002",
        "uii": "1",
        "layout": "mono",
        "source": "global_call_type_detail",
        "date": day,
        "status": Status.pending,
        "next_attempt_at": at,
        "run_id": "test",
        "written_at": at,
        "link": "https://c02-recordings.virtualacd.biz/x",
        "found_on": day,
        "first_seen_at": at,
    }
    return RecordingState(**known | values)


def test_wrong_credentials_deny_no_recording_however_old_it_is(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(unauthorized=Where(share=1.0)))
    result = world.run(OLD, select=UP_TO_RECORDINGS)
    assert "RINGCX_MEDIA_USERNAME" in world.failures(result)["recordings"]
    assert {state.status for state in world.states(OLD).values()} == {Status.pending}


def test_a_password_that_was_changed_denies_nothing_because_earlier_recordings_were_given(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(
        faults=Faults(not_found=Where(paths=("*-session-2-stereo.WAV",))),
        sandbox={"credentials": Credentials(media_username="recorder", media_password="before")},
    )
    day = recent[0]
    assert world.run(day, select=UP_TO_RECORDINGS).success
    waiting = {key for key, state in world.states(day).items() if state.status is Status.pending}
    assert waiting
    world.sandbox.set_faults(Faults())
    monkeypatch.setenv("RINGCX_MEDIA_PASSWORD", "after")
    assert not world.run(day, select=UP_TO_RECORDINGS).success
    assert {world.states(day)[key].status for key in waiting} == {Status.pending}
    monkeypatch.setenv("RINGCX_MEDIA_PASSWORD", "before")
    assert world.run(day, select=UP_TO_RECORDINGS).success
    assert {world.states(day)[key].status for key in waiting} == {Status.archived}


def test_what_was_never_tried_comes_before_what_always_fails(make_world: MakeWorld) -> None:
    world = make_world()
    now = datetime.now(UTC)
    stuck = [some_state(f"15300002/a{number:03d}.WAV", OLD, attempts=9) for number in range(50)]
    fresh = some_state("15300002/z.WAV", OLD + timedelta(days=1))
    known = RecordingsTable.of(table_of(RecordingState, [*stuck, fresh]))
    due = [item.state for item in work_queue(known, world.services().allowed, "", now=now, run_id="test")]
    assert due[0] == fresh
    assert len(due) == 51


def test_a_bucket_that_fails_for_one_recording_leaves_that_one_pending_and_stops_no_other(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(LEDGER_URL="ledger-one")
    day = recent[0]
    assert world.run(day, select=UP_TO_RECORDINGS).success
    victim = min(world.states(day).values(), key=lambda state: state.recording_id)

    def fail(path: str) -> None:
        if path.endswith(str(victim.key).rpartition("/")[2]):
            raise EndpointConnectionError(endpoint_url="s3")

    with at_each(world.s3, "HeadObject", fail), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGER_URL", "ledger-two")  # one that was lost: everything is there to be adopted
        world.run(day, select=UP_TO_RECORDINGS)
        states = world.states(day)
    assert (states[victim.recording_id].status, states[victim.recording_id].reason) == (
        Status.pending,
        "storage_unavailable",
    )
    assert {recording.status for key, recording in states.items() if key != victim.recording_id} == {Status.archived}


def test_a_defect_met_at_one_recording_is_raised_but_stops_no_other(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    day = recent[0]
    assert world.run(day, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]).success
    first = min(world.states(day))

    def break_down(path: str) -> None:
        if path.endswith(first.rpartition("/")[2]):
            raise ZeroDivisionError("a defect of ours")

    with at_each(world.s3, "PutObject", break_down):
        result = world.run(day, select=["recordings"])
    assert not result.success
    assert "ZeroDivisionError" in str([event.step_failure_data for event in result.all_events if event.is_step_failure])
    states = world.states(day)
    assert (states[first].status, states[first].reason) == (Status.pending, "defect")
    assert {state.status for key, state in states.items() if key != first} == {Status.archived}


def test_a_recording_that_the_bucket_refuses_is_named_at_the_end_and_stops_no_other(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(ARCHIVE_CONCURRENCY="1")
    day = recent[0]
    assert world.run(day, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]).success
    first = min(world.states(day))

    def refuse(path: str) -> None:
        if path.endswith(first.rpartition("/")[2]):
            answer = {"Error": {"Code": "413"}, "ResponseMetadata": {"HTTPStatusCode": 413}}
            raise ClientError(cast("Any", answer), "PutObject")

    with at_each(world.s3, "PutObject", refuse):
        result = world.run(day, select=["recordings"])
    (failure,) = world.failures(result).values()
    assert "client_max_body_size" in failure
    states = world.states(day)
    assert (states[first].status, states[first].reason) == (Status.pending, "storage_refused")
    assert {state.status for key, state in states.items() if key != first} == {Status.archived}
    assert len(states) > 3


def test_a_full_temporary_disk_is_named_and_says_nothing_of_a_recording(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    day = recent[0]

    file = tempfile.TemporaryFile

    def full(**given: Any) -> IO[bytes]:
        # The kernel's own ENOSPC, but for the reports, which ask for a file as it is by default.
        return Path("/dev/full").open("r+b") if given else cast("IO[bytes]", file())

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.steps.fetch.attempt._IN_MEMORY", 1000)
        patch.setattr("tempfile.TemporaryFile", full)
        result = world.run(day, select=UP_TO_RECORDINGS)
    sentence = world.failures(result)["recordings"]
    assert "TMPDIR" in sentence
    assert "pending" in sentence
    states = world.states(day).values()
    assert {(state.status, state.reason) for state in states} == {(Status.pending, "temporary_disk_full")}
    assert world.run(day, select=UP_TO_RECORDINGS).success
    assert {state.status for state in world.states(day).values()} == {Status.archived}


def test_what_was_stored_before_an_interrupt_in_the_last_write_is_adopted_by_the_next_run(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    day = recent[0]
    assert world.run(day, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]).success
    states, interrupts = world.states(day), iter([KeyboardInterrupt()])
    services = world.services()

    def interrupt(path: str) -> None:
        if "recording_states" in path and (once := next(interrupts, None)):
            raise once

    with at_each(world.s3, "PutObject", interrupt), pytest.raises(KeyboardInterrupt):
        fetched(services, *states.values())
    world.sandbox.reset()
    assert fetched(world.services(), *states.values()).adopted == len(states)
    assert {state.status for state in world.states(day).values()} == {Status.archived}
    assert not world.sandbox.counters()["media_by_path"]


def test_a_recording_is_adopted_though_one_of_the_same_file_name_was_found_since(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    day = recent[0]
    assert world.run(day, select=["global_call_type_detail", "recording_links"]).success
    first, second = list(world.states(day).values())[:2]
    later = replace(first, recording_id="15300002/perspective-a/same.WAV")
    earlier = replace(second, recording_id="15300002/perspective-b/same.WAV")
    services = world.services()
    # A run that knew only `earlier` stored it under the plain name, and was killed before it wrote that down.
    fetched(services, earlier)
    assert set(world.objects()) == {recording_key("", day, "15300002", "mono", "same.WAV")}
    world.sandbox.reset()
    result = fetched(world.services(), later, earlier)
    assert (result.settled, result.archived, result.adopted) == (2, 2, 1)
    assert len(world.objects()) == 2
    assert sum(world.sandbox.counters()["media_by_path"].values()) == 1


def test_a_refused_link_that_the_source_corrects_is_taken(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(link_http=Where(share=1.0)))
    day = recent[0]
    assert world.run(day, select=UP_TO_RECORDINGS).success
    assert {state.status for state in world.states(day).values()} == {Status.rejected}
    world.sandbox.set_faults(Faults())
    assert world.run(day, select=UP_TO_RECORDINGS).success
    assert {state.status for state in world.states(day).values()} == {Status.archived}


def call_rows(*links: str, start: datetime, key: str = "k") -> pa.Table:
    return pa.table(
        {
            "row_key": [f"{key}#{number}" for number in range(len(links))],
            "row_hash": [f"{number:032x}" for number in range(len(links))],
            "uii": ["a-call-without-a-time"] * len(links),
            "recording_url": list(links),
            "call_start_dts": [f"{start:%Y-%m-%dT%H:%M:%S}.000+0000"] * len(links),
            "call_duration": ["5"] * len(links),
        }
    )


def registered(world: World, day: date, rows: pa.Table, now: datetime) -> dict[str, RecordingState]:
    services = world.services()
    if rows is not None:
        services.ledger.append_rows(
            "global_call_type_detail", day, rows, account_id="15300002", pulled_at=now, run_id="test"
        )
    register_links(
        services.ledger, day, Calendar(archive_timezone="UTC"), allowed=services.allowed, now=now, run_id="test"
    )
    return services.ledger.states([day + timedelta(days=offset) for offset in range(-2, 9)])


def test_of_several_links_to_one_recording_one_that_may_be_requested_counts(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    query = "recordings?file=15300002/202611/19/a-1.WAV"
    good, bad = f"http://{world.sandbox.host}/{query}", f"http://evil.example.com/{query}"
    now = datetime.now(UTC)
    start = datetime.combine(recent[0], datetime.min.time(), UTC)
    (state,) = registered(world, recent[0], call_rows(good, bad, start=start), now).values()
    assert (state.status, state.link) == (Status.pending, good)


def test_a_recording_keeps_its_date_however_late_its_day_is_looked_at(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    day = recent[0]
    start = datetime.combine(day + timedelta(days=6), datetime.min.time(), UTC)
    link = f"http://{world.sandbox.host}/recordings?file=15300002/{day:%Y%m/%d}/a-1.WAV"
    first = registered(world, day, call_rows(link, start=start), datetime.combine(day, datetime.min.time(), UTC))
    later = registered(world, day, None, start + timedelta(days=2))
    assert len(first) == 1
    assert later == first


def test_the_recordings_of_a_run_are_those_of_its_date_and_of_its_pull(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    day, after = recent[0], recent[0] + timedelta(days=1)
    mine = [
        some_state("15300002/1.WAV", day),
        some_state("15300002/2.WAV", after, found_on=day),
        some_state("15300002/3.WAV", day, found_on=day - timedelta(days=1)),
    ]
    ledger: Ledger = world.services().ledger
    ledger.append_states([*mine, some_state("15300002/4.WAV", after)])
    found = recordings_of(ledger, day, {day, after}).rest["recording_id"].to_pylist()
    assert sorted(found) == [state.recording_id for state in mine]


def stores_of(services: Services) -> Stores:
    return Stores(services.bucket, services.ledger, services.settings)


def test_what_another_run_archives_while_a_date_is_sealed_is_in_the_manifest_and_the_catalog(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(LEDGER_URL="ledger")
    day = recent[0]
    assert world.run(day, select=["global_call_type_detail", "recording_links"]).success
    services, other = world.services(), world.services()
    states, left = other.ledger.states([day]), iter([True])

    def meanwhile(path: str) -> None:
        if "catalog" in path and next(left, False):  # our manifest says `pending` already; the other run overtakes us
            fetched(other, *states.values())
            seal_day(stores_of(other), day, now=datetime.now(UTC), run_id="other")

    with at_each(services.bucket._client, "PutObject", meanwhile):
        seal_day(stores_of(services), day, now=datetime.now(UTC), run_id="slow")
    assert next(left, None) is None
    sealed = latest_manifest(services.bucket, day)
    assert sealed is not None
    assert {entry["status"] for entry in json.loads(services.bucket.get_bytes(sealed.key))["entries"]} == {"archived"}
    body = world.s3.get_object(Bucket=world.bucket, Key=catalog_key("", day))["Body"].read()
    assert set(pq.read_table(pa.BufferReader(body))["status"].to_pylist()) == {"archived"}
    assert read_chain(services.bucket, day).problems == []
