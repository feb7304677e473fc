"""For tests of every folder: a PostgreSQL, started when the first test asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from sandbox.postgres import LocalPostgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalPostgres]:
    """One server for the session; use `database` unless the test stops it, and then start one of its own."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: LocalPostgres) -> str:
    """The address of an empty database, with its password in it."""
    return postgres_server.make_database(f"test_{uuid.uuid4().hex[:12]}")
