"""`ringcx-archive browse` as a process: what it refuses, that it serves, and that it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher

from sandbox.s3 import LocalS3
from tests.servers.ports import free_port

COMMAND = [sys.executable, "-m", "pipelines.cli.main", "browse"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    with LocalS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def variables(s3: LocalS3) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARCHIVE_", "BROWSE_", "AWS_"))}
    root = str(Path(__file__).parents[2])
    given = {"ARCHIVE_BUCKET": s3.bucket, "PYTHONPATH": root, "BROWSE_PORT": str(free_port())}
    return kept | s3.environment() | given


def ended(
    variables: Mapping[str, str], tmp_path: Path, *arguments: str, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=variables,
        cwd=tmp_path,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_does_not_start_until_somebody_says_who_may_sign_in(variables: dict[str, str], tmp_path: Path) -> None:
    found = ended(variables, tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("BROWSE_AUTH is not set: choose who may sign in: password, proxy, oidc, or open")


def test_a_password_is_hashed_for_the_access_file(variables: dict[str, str], tmp_path: Path) -> None:
    found = ended(variables, tmp_path, "--hash-password", typed="correct horse\n")
    assert found.returncode == 0, found.stderr
    assert PasswordHasher().verify(found.stdout.strip(), "correct horse")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_well(variables: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    url = f"http://127.0.0.1:{variables['BROWSE_PORT']}"
    log = tmp_path / "log"
    with (
        log.open("w") as into,
        subprocess.Popen(COMMAND, env=variables | {"BROWSE_AUTH": "open"}, cwd=tmp_path, stderr=into) as process,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as http,
    ):
        try:
            deadline = time.monotonic() + 60
            while f"Find and hear calls: {url}" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
                # The address is logged just before it answers.
                transport = httpx.HTTPTransport(retries=5)
            with httpx.Client(transport=transport, base_url=url, trust_env=False) as patient:
                assert "Find a call" in patient.get("/").text
            assert http.get("/", headers={"Host": "evil.example"}).status_code == 403
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()
    output = log.read_text()
    assert f"BROWSE_AUTH=open: anyone who can reach {url} can listen to every call." in output
    assert not re.search(r"Traceback|ERROR", output)


def test_a_port_that_is_taken_is_named(variables: dict[str, str], tmp_path: Path, s3: LocalS3) -> None:
    found = ended(variables | {"BROWSE_AUTH": "open", "BROWSE_PORT": str(s3.port)}, tmp_path)
    assert found.returncode == 2
    assert "choose others" in found.stderr
