"""The receiver as a process: killed, ended, next to another one, and held by clients that say nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.archive.client import make_s3_client
from pipelines.events.files import LocalEvents, day_folder, events_at
from sandbox.s3 import LocalS3
from tests.events.conftest import stored_calls
from tests.events.receivers import AUTHORIZATION, ROOT, Load, ReceiverProcess, event


@pytest.mark.slow
def test_killed_under_load_again_and_again_it_loses_nothing_that_it_acknowledged(events_folder: Path) -> None:
    acknowledged: set[str] = set()
    port, sent = 0, 0
    for kill in range(4):
        with ReceiverProcess(events_folder, port=port) as receiver:
            port = receiver.port
            with Load(port, clients=8, first=kill * 1_000_000) as load:
                load.wait_for(150 + 70 * kill)
                assert receiver.end(signal.SIGKILL) == -signal.SIGKILL
        acknowledged |= load.acknowledged
        sent += load.sent
        assert set(load.answers) == {200}
    found = stored_calls(LocalEvents(events_folder))
    assert acknowledged <= set(found)
    assert len(acknowledged) <= len(set(found)) <= sent


@pytest.mark.slow
def test_killed_while_it_puts_into_a_bucket_it_loses_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalS3(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{server.bucket}/events"
        with ReceiverProcess(url, **server.environment()) as receiver, Load(receiver.port, clients=8) as load:
            load.wait_for(100)
            receiver.end(signal.SIGKILL)
        stored = events_at(url, lambda: make_s3_client(max_connections=4))
        assert load.acknowledged <= set(stored_calls(stored))
        assert set(load.answers) == {200}
        objects = sum(len(stored.files(day_folder(day))) for day in stored.days())
        assert objects < len(load.acknowledged)  # requests share a put


@pytest.mark.slow
def test_two_receivers_on_one_place_lose_nothing_when_one_is_killed(events_folder: Path) -> None:
    with ReceiverProcess(events_folder) as receiver, ReceiverProcess(events_folder) as other_receiver:
        with Load(receiver.port, clients=3) as first, Load(other_receiver.port, clients=3, first=1_000_000) as second:
            first.wait_for(100)
            second.wait_for(100)
            receiver.end(signal.SIGKILL)
            second.wait_for(len(second.acknowledged) + 50)
        assert other_receiver.end(signal.SIGTERM) == 0
    assert first.acknowledged | second.acknowledged <= set(stored_calls(LocalEvents(events_folder)))


@pytest.mark.slow
def test_told_to_end_it_answers_what_it_has_begun_and_ends_well(events_folder: Path) -> None:
    with ReceiverProcess(events_folder) as receiver, Load(receiver.port, clients=6) as load:
        load.wait_for(200)
        assert receiver.end(signal.SIGTERM) == 0
    assert set(load.answers) == {200}
    found = stored_calls(LocalEvents(events_folder))
    assert sorted(found) == sorted(load.acknowledged)  # each one answered: none was cut off in the middle
    assert f"Ended; in total: stored {len(found)}" in receiver.log
    for secret in (AUTHORIZATION[6:], "5105550111", "recordings.virtualacd", "My Queue"):
        assert secret not in receiver.log


def answer_of(connection: socket.socket) -> bytes:
    connection.settimeout(20)
    received = b""
    while True:
        try:
            piece = connection.recv(4096)
        except ConnectionError:
            return received
        if not piece:
            return received
        received += piece


@pytest.mark.slow
def test_clients_that_dawdle_or_crowd_do_not_hold_it(events_folder: Path) -> None:
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZATION}\r\nContent-Length: 100\r\n\r\n"
    health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ReceiverProcess(events_folder, EVENTS_TIMEOUT_SECONDS="1", EVENTS_MAX_CONNECTIONS="5") as receiver:

        def connect(begun: str) -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", receiver.port))
            connection.sendall(begun.encode())
            return connection

        begun = time.monotonic()
        with connect(head + "{") as half_a_body:
            assert answer_of(half_a_body).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < 15
        with ExitStack() as crowd:
            for _ in range(4):
                crowd.enter_context(connect(""))
            time.sleep(0.3)
            with connect(health) as the_last:
                assert answer_of(the_last).startswith(b"HTTP/1.1 200 ")
            crowd.enter_context(connect(""))
            with connect(health) as one_more:
                assert answer_of(one_more).startswith(b"HTTP/1.1 503 ")
        with Load(receiver.port, clients=1) as load:
            load.wait_for(5)
        with connect("no HTTP at all\r\n\r\n") as stray:
            assert answer_of(stray).startswith(b"HTTP/1.1 400 ")
        assert receiver.end(signal.SIGTERM) == 0
    assert "too_slow 1" in receiver.log.rpartition("Ended; in total: ")[2]


@pytest.mark.slow
def test_it_ends_with_one_sentence_when_it_cannot_start(events_folder: Path, tmp_path: Path) -> None:
    def refusal(**variables: str) -> str:
        command = [sys.executable, "-m", "pipelines.cli.main", "receiver"]
        known = {
            "PATH": "/usr/bin:/bin",
            "EVENTS_HEADER_VALUE": "s3cret",
            "EVENTS_URL": str(events_folder),
            **variables,
        }
        ended = subprocess.run(command, env=known, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 2
        assert "s3cret" not in ended.stderr
        return ended.stderr

    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lines = refusal(EVENTS_PORT=str(taken.getsockname()[1]))
    assert lines.startswith("Cannot listen on EVENTS_HOST and EVENTS_PORT (127.0.0.1:")
    assert lines.count("\n") == 1
    assert refusal(EVENTS_URL=str(tmp_path / "file" / "x")).startswith("Cannot write ")
    assert refusal(EVENTS_HEADER_VALUE="").startswith("No secret is set")


def test_the_count_says_what_is_stored(events_folder: Path) -> None:
    code = "import sys, pipelines.cli.main as _, pipelines.cli.receiver as _; "
    code += "print([name for name in sys.modules if name in ('dagster', 'pyarrow')])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"  # a receiver is small
    with ReceiverProcess(events_folder) as receiver, Load(receiver.port, clients=2) as load:
        load.wait_for(20)
        receiver.end(signal.SIGTERM)
    command = [sys.executable, "-m", "pipelines.cli.main", "receiver", "--count"]
    counted = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "EVENTS_URL": str(events_folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert counted.stdout.splitlines()[-1].split() == ["total", str(len(load.acknowledged)), "0"]
    assert json.dumps(event(0)["call_id"]) not in counted.stdout
