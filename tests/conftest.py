"""For tests of every folder: an environment as it was, and a PostgreSQL, started when the first test asks for it."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from pipelines.orchestration.environment import _client_of_process
from pipelines.steps.pull.coverage import SETTLED
from sandbox.postgres import LocalPostgres
from sandbox.proof import environment

# Each test process, and each process that a test starts, imports Dagster: in 2.5 s if it is compiled, in 6.5 s if not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

WITH_ONE_DAGSTER = {f"tests/dagster/test_{name}.py" for name in ("daemon", "run", "ui")}
WITH_ONE_ARCHIVE = "tests/pipeline/verify"

# In the order in which they begin: longest first, and what mostly waits next to what mostly computes.
LONGEST = (
    *("dagster/daemon", "dagster/run", "dagster/ui", "chaos/chaos", "dagster/demo", "pipeline/crashes"),
    *("deploy/celery", "pipeline/limits_kept", "docs/commands", "pipeline/check_connection", "pipeline/archive"),
    *("ringcx/limits_used", "pipeline/checks/accounted_for", "pipeline/secrecy", "pipeline/strict_s3"),
    *("ringcx/limit_postgres", "deploy/image", "browser/in_chromium", "pipeline/plan/hours", "ringcx/limits"),
    *("pipeline/verify/objects", "archive/proxies_and_certificates"),
)
RANKS = {f"tests/{'/test_'.join(name.rsplit('/', 1))}.py": rank for rank, name in enumerate(LONGEST)}

# botocore parses its description of S3 for each session, in 0.14 s, and tests make hundreds of sessions.
botocore.session.create_loader = cache(botocore.session.create_loader)

# A busy machine is no fault of what is tested.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


class FilesWithTheirServers(LoadFileScheduling):
    """A file stays with one worker, and files that share a Dagster or an archive stay together: it is made once."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if file.startswith(f"{WITH_ONE_ARCHIVE}/"):
            return WITH_ONE_ARCHIVE
        return "tests/dagster" if file in WITH_ONE_DAGSTER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesWithTheirServers:
    return FilesWithTheirServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first: begun last, one of them would keep a worker after all others have ended."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    size = Counter(item.path for item in items)

    def order_of(item: pytest.Item) -> tuple[object, ...]:
        rank = RANKS.get(item.nodeid.partition("::")[0], len(RANKS))
        return rank, -slow[item.path], -size[item.path], item.path

    items.sort(key=order_of)


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """What a test's `.env` put into the environment is gone before the next test, or the next module's fixtures."""
    with environment({}):
        yield


@pytest.fixture(autouse=True)
def _s3_clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """boto3 closes a client with its process; tests make hundreds. One that is kept opens its connections again."""
    made: list[Any] = []
    create = botocore.session.Session.create_client

    def create_and_remember(session: botocore.session.Session, *arguments: Any, **options: Any) -> Any:
        made.append(create(session, *arguments, **options))
        return made[-1]

    monkeypatch.setattr(botocore.session.Session, "create_client", create_and_remember)
    yield
    _client_of_process.cache_clear()
    for client in made:
        client.close()


@pytest.fixture(autouse=True)
def _no_test_has_two_days() -> None:
    """A test that begins in the last 90 s of a day (in UTC), or of the hour after which a day can be judged, waits for
    the next: what it calls today, and what can be known of yesterday, stays so.
    """
    left = min(86_400 - (time.time() - after) % 86_400 for after in (0, SETTLED.total_seconds()))
    if left < 90:
        time.sleep(left + 0.1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalPostgres]:
    """One server for the session; use `database` unless the test stops it, and then start one of its own."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: LocalPostgres) -> str:
    """The address of an empty database, with its password in it."""
    return postgres_server.make_database(f"test_{uuid.uuid4().hex[:12]}")
