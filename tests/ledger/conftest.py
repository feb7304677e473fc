"""Two real S3 servers, three places that can store a ledger, child processes, and small builders."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pipelines
from pipelines.ledger.files import Files, LocalFiles, S3Files
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from sandbox.s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY, S3Endpoint
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.rclone import Rclone

BUCKET = "ledger-test"
DAY = date(2026, 11, 18)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)

# What every child process begins with: the ledger at the location that its first argument describes.
CHILD = """
import json, os, sys
from datetime import UTC, date, datetime
from pathlib import Path
import boto3, pyarrow as pa
from pipelines.ledger.files import LocalFiles, S3Files
from pipelines.ledger.store import Ledger
from pipelines.ledger.states import RecordingState, Status
location = json.loads(sys.argv[1])
if "root" in location:
    files = LocalFiles(Path(location["root"]))
else:
    client = boto3.client("s3", endpoint_url=location["endpoint"], region_name="us-east-1",
                          aws_access_key_id=location["key_id"], aws_secret_access_key=location["secret"])
    files = S3Files(client, location["bucket"], location["prefix"])
ledger = Ledger(files, clock=lambda: datetime.now(UTC))
day = date(2026, 11, 18)
"""


@dataclass(frozen=True)
class Location:
    """Somewhere to keep a ledger, that a child process can open too."""

    files: Files
    description: dict[str, str]
    server: S3Endpoint | None = None
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ledger(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Ledger:
        return Ledger(self.files, clock=clock)

    def run(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        root = Path(pipelines.__file__).parents[1]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD + code, json.dumps(self.description), *arguments],
            env={**os.environ, "PYTHONPATH": str(root)},
            cwd=root,
        )
        self.children.append(child)
        return child


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("rclone"), bucket=BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[AtomicMoto]:
    with AtomicMoto() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(params=["local", "rclone", "moto"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "local":
        made = Location(LocalFiles(tmp_path / "ledger"), {"root": str(tmp_path / "ledger")})
    else:
        server: S3Endpoint = request.getfixturevalue(request.param)
        prefix = f"{uuid.uuid4().hex}/ledger"
        made = Location(
            S3Files(server.client(), BUCKET, prefix),
            {
                "endpoint": server.url,
                "bucket": BUCKET,
                "prefix": prefix,
                "key_id": ACCESS_KEY_ID,
                "secret": SECRET_ACCESS_KEY,
            },
            server,
        )
    yield made
    for child in made.children:
        if child.poll() is None:
            child.kill()
        child.wait(10)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(LocalFiles(tmp_path / "ledger"), clock=lambda: NOON)


@pytest.fixture(scope="session")
def a_state() -> Callable[..., RecordingState]:
    def build(**changes: Any) -> RecordingState:
        plain: dict[str, Any] = {
            "recording_id": "15300002/15300002/202611/18/1.WAV",
            "account_id": "15300002",
            "uii": "202611181200000132130000036446",
            "layout": "mono",
            "source": "global_call_type_detail",
            "date": DAY,
            "status": Status.pending,
            "run_id": "run-1",
            "written_at": NOON,
            "link": "https://c02-recordings.virtualacd.biz/api/v1/calls/recordings?file=15300002/202611/18/1.WAV",
            "found_on": DAY,
            "first_seen_at": NOON,
        }
        if changes.get("status", Status.pending) is Status.pending:
            plain["next_attempt_at"] = NOON + timedelta(minutes=2)
        if changes.get("status") is Status.archived:
            plain |= {"key": "recordings/1.WAV", "size": 320044, "sha256": "ab" * 32}
        return RecordingState(**plain | changes)

    return build


@pytest.fixture(scope="session")
def a_pull() -> Callable[..., PullRecord]:
    def build(**changes: Any) -> PullRecord:
        plain: dict[str, Any] = {
            "report": "agent_segment_metadata",
            "day": DAY,
            "account_id": "15300002",
            "period_start": NOON - timedelta(hours=12),
            "period_end": NOON + timedelta(hours=12),
            "pulled_at": NOON,
            "run_id": "run-1",
            "size": 812,
            "sha256": "cd" * 32,
            "rows": 3,
            "new": 2,
            "changed": 1,
            "unchanged": 0,
            "vanished": 0,
            "with_link": 2,
        }
        return PullRecord(**plain | changes)

    return build


@pytest.fixture(scope="session")
def rows() -> Callable[..., pa.Table]:
    """`rows(a="1", b="2", text=[…])`: row keys with their hashes, and further columns."""

    def build(_columns: dict[str, list[str | None]] | None = None, /, **hashes: str) -> pa.Table:
        identity = {
            "row_key": pa.array(list(hashes), pa.string()),
            "row_hash": pa.array(list(hashes.values()), pa.string()),
        }
        return pa.table({**identity, **{k: pa.array(v, pa.string()) for k, v in (_columns or {}).items()}})

    return build
