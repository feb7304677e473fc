"""The local PostgreSQL: of any user, password-protected, and gone without a trace."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import LocalPostgres


def test_it_keeps_its_data_over_a_crash_and_nothing_after_its_end() -> None:
    with LocalPostgres() as server:
        url = server.make_database("kept")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
            (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        assert Path(data).is_dir()
        server.stop(crash=True)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT answer FROM t").fetchone() == (42,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url.replace(server.password, "another"), connect_timeout=5)
    assert not Path(data).parent.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5)
