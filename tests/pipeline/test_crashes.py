"""Killed at any instant, run twice, run side by side: the archive ends the same, and no fetch is wasted."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest

from pipelines.archive.proof.chain import read_chain
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.ledger.states import Status
from tests.pipeline.conftest import MakeWorld, Nursery, Store, World
from tests.servers.rclone import Rclone

Phase = Literal["before", "half", "after"]
LOOK_S = 50.0


class Gate:
    """A way to S3 that stops puts at a chosen instant and keeps them there.

    `before`: S3 has not heard of it. `half`: S3 has half of its body. `after`: S3 has it, its sender does not know.
    """

    def __init__(self, upstream: str) -> None:
        self.reached = threading.Event()
        self._go_on = threading.Event()
        self._closed = False
        self._upstream = urlsplit(upstream).netloc
        self._seen: Counter[str] = Counter()
        self._where: tuple[str, int, Phase] = ("", 0, "before")
        self._lock = threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else every answer with a body takes 40 ms

            def handle(self) -> None:
                with suppress(ConnectionError):  # the sender was killed
                    super().handle()

            def answer(self) -> None:
                gate.pass_on(self)

            do_GET = do_HEAD = do_PUT = answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop_at(self, part: str, number: int, phase: Phase) -> None:
        """Stop at the put number so and so of a key with `part` in it, and at those after it."""
        self._where = (part, number, phase)

    def let_go(self) -> None:
        """Let the puts go on."""
        self._go_on.set()

    def close(self) -> None:
        self._closed = True
        self._go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        phase = self._phase(request)
        body = b""
        if phase == "before":
            self._hold()
        size = int(request.headers.get("Content-Length", 0))
        body = request.rfile.read(size)
        upstream = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            upstream.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    upstream.putheader(name, value)
            upstream.endheaders()
            if phase == "half":
                upstream.send(body[: size // 2])
                self._hold()
                return
            upstream.send(body)
            answer = upstream.getresponse()
            content = answer.read()
            if phase == "after":
                self._hold()
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"connection", "date", "server", "transfer-encoding"}:
                    request.send_header(name, value)
            if "content-length" not in {name.lower() for name, _ in answer.getheaders()}:
                request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
        finally:
            upstream.close()

    def _phase(self, request: BaseHTTPRequestHandler) -> Phase | None:
        part, number, phase = self._where
        if request.command != "PUT" or not part or part not in unquote(request.path):
            return None
        with self._lock:
            self._seen[part] += 1
            return phase if self._seen[part] >= number else None

    def _hold(self) -> None:
        self.reached.set()
        if not self._go_on.wait(LOOK_S) or self._closed:
            raise ConnectionAbortedError  # its sender is dead, and half a body must not become a whole one


@pytest.fixture
def make_world(make_world: MakeWorld, rclone: Store) -> MakeWorld:
    """With a store that other processes reach."""
    return partial(make_world, store=rclone)


@pytest.fixture
def gate(s3: Rclone) -> Iterator[Gate]:
    opened = Gate(s3.url)
    yield opened
    opened.close()


def held_once(world: World, day: date) -> None:
    """Every recording that starts on `day` is held once, with the source's bytes, and its state says so."""
    truth = world.truth(day)
    objects = world.objects(f"recordings/date={day}/")
    assert Counter(objects.values()) == Counter(recording["sha256"] for recording in truth)
    states = world.states(day)
    for recording in truth:
        assert states[recording["recording_id"]].status is Status.archived
        assert objects[states[recording["recording_id"]].key] == recording["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "instant",
    [
        pytest.param(("ledger/report_rows/", 1, "after"), id="between a report's rows and the trace of its pull"),
        pytest.param(("ledger/recording_states/", 1, "before"), id="before the links are known"),
        pytest.param(("recordings/date=", 1, "before"), id="before the first put"),
        pytest.param(("recordings/date=", 1, "half"), id="in the middle of an upload"),
        pytest.param(("recordings/date=", 9, "after"), id="between a put and its line"),
        pytest.param(("ledger/recording_states/", 5, "before"), id="in mid-batch, some lines written"),
        pytest.param(("manifests/", 1, "after"), id="between the manifest and the catalog"),
    ],
)
def test_a_run_killed_at_any_instant_is_made_good_by_the_next_without_fetching_twice(
    make_world: MakeWorld, gate: Gate, nursery: Nursery, recent: list[date], instant: tuple[str, int, Phase]
) -> None:
    world = make_world(sandbox={"calls_per_day": (9, 9), "crossing_zones": (), "media_latency_s": 0.1})
    day = recent[0]
    gate.stop_at(*instant)
    # Two at a time and a clock in a hurry, so that lines are written several times in one run, as in a long one.
    killed = nursery.start(world, day, speed=100, AWS_ENDPOINT_URL_S3=gate.url, ARCHIVE_CONCURRENCY="2")
    assert gate.reached.wait(LOOK_S), killed.outcome()
    killed.signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert killed.outcome() == {}
    stored = set(world.objects().values())
    readable = world.states(day)
    assert all(state.key is None or state.sha256 in stored for state in readable.values()), "no line without its object"

    world.sandbox.reset()
    assert world.run(day).success
    held_once(world, day)
    again = world.sandbox.counters()["media_by_path"]
    assert [
        recording["file"]
        for recording in world.truth(day)
        if recording["sha256"] in stored and recording["file"] in again
    ] == []
    assert max(again.values(), default=1) == 1
    bucket = world.services().bucket
    assert read_chain(bucket, day).problems == []
    sealed = latest_manifest(bucket, day)
    assert sealed is not None
    assert {
        entry["recording_id"]: entry["status"] for entry in json.loads(bucket.get_bytes(sealed.key))["entries"]
    } == {key: str(state.status) for key, state in world.states(day).items()}


def test_states_are_written_though_one_recording_keeps_the_run_waiting(
    make_world: MakeWorld, gate: Gate, nursery: Nursery, recent: list[date]
) -> None:
    world = make_world(sandbox={"calls_per_day": (9, 9), "crossing_zones": ()})
    gate.stop_at("recordings/date=", 9, "before")
    run = nursery.start(world, recent[0], speed=100, AWS_ENDPOINT_URL_S3=gate.url, ARCHIVE_CONCURRENCY="1")
    assert gate.reached.wait(LOOK_S), run.outcome()
    deadline = time.monotonic() + 10
    while sum(state.status is Status.archived for state in world.states(recent[0]).values()) < 8:
        assert time.monotonic() < deadline, "what was done before is not written"
    run.signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rclone", "moto"])
def test_runs_of_one_date_side_by_side_end_as_one_would(
    make_world: MakeWorld, nursery: Nursery, recent: list[date], request: pytest.FixtureRequest, kind: str
) -> None:
    store = request.getfixturevalue(kind)
    world = make_world(store=store, sandbox={"calls_per_day": (6, 6), "crossing_zones": ()})
    if kind == "moto":
        world.s3.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration={"Status": "Enabled"})
    day = recent[0]
    # One has seen an empty bucket and is about to store; meanwhile two others do all of it at once.
    with closing(Gate(store.environment["AWS_ENDPOINT_URL_S3"])) as gate:
        gate.stop_at("recordings/date=", 1, "before")
        slow = nursery.start(world, day, AWS_ENDPOINT_URL_S3=gate.url)
        assert gate.reached.wait(LOOK_S), slow.outcome()
        together = time.time() + 0.5
        runs = [nursery.start(world, day, go_at=together) for _ in range(2)]
        for run in runs:
            assert run.wait() == 0
        gate.let_go()
        assert slow.wait() == 0
    for run in (slow, *runs):
        assert run.outcome()["success"], run.outcome()["errors"]
    held_once(world, day)
    fetched = world.sandbox.counters()["media_by_path"]
    assert sum(fetched.values()) > len(fetched) + 4, "they did not meet, so nothing was shown"
    assert world.objects("conflicts/") == {}
    states = world.states(day)
    assert {state.status for state in states.values()} == {Status.archived}
    ledger = world.services().ledger
    for report in ("agent_segment_metadata", "global_call_type_detail"):
        assert len(ledger.pulls(report, day)) == 3
        keys = ledger.latest_rows(report, day, columns=["row_key"])["row_key"].to_pylist()
        assert len(keys) == len(set(keys)) == ledger.pulls(report, day)[0].rows
    bucket = world.services().bucket
    assert read_chain(bucket, day).problems == []
    sealed = latest_manifest(bucket, day)
    assert sealed is not None
    assert {entry["status"] for entry in json.loads(bucket.get_bytes(sealed.key))["entries"]} == {"archived"}
    if kind == "moto":
        versions = world.s3.list_object_versions(Bucket=world.bucket)["Versions"]
        written = Counter(
            version["Key"] for version in versions if not version["Key"].startswith(("catalog/", "calls/"))
        )
        assert max(written.values()) == 1, "something that was there was overwritten"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_terminated_run_writes_the_states_it_has_and_ends_its_threads(
    make_world: MakeWorld, nursery: Nursery, recent: list[date], sign: signal.Signals
) -> None:
    world = make_world(sandbox={"calls_per_day": (9, 9), "crossing_zones": (), "media_latency_s": 0.15})
    # The interrupt is an exception, which Python drops when it falls into a weak reference's callback (1 in 80 did).
    for day in recent:
        run = nursery.start(world, day, ARCHIVE_CONCURRENCY="2")
        deadline = time.monotonic() + LOOK_S
        under = f"recordings/date={day}/"
        while world.s3.list_objects_v2(Bucket=world.bucket, Prefix=under).get("KeyCount", 0) < 8:
            assert time.monotonic() < deadline, run.outcome()
            time.sleep(0.02)
        run.signal(sign)
        asked = time.monotonic()
        assert run.wait() == 0
        outcome = run.outcome()
        if not outcome["success"]:
            break
    assert time.monotonic() - asked < 4
    assert outcome["success"] is False
    assert any("DagsterExecutionInterruptedError" in error for error in outcome["errors"])
    assert [name for name in outcome["threads"] if name.startswith("recording")] == []
    states = world.states(day)
    held = [state for state in states.values() if state.status is Status.archived]
    stored = set(world.objects().values())
    assert 4 <= len(held) < len(states)  # four at most were stored and not yet settled
    assert {state.sha256 for state in held} <= stored
    world.sandbox.reset()
    assert world.run(day).success
    held_once(world, day)
    again = world.sandbox.counters()["media_by_path"]
    assert [
        recording["file"]
        for recording in world.truth(day)
        if recording["sha256"] in stored and recording["file"] in again
    ] == []
