"""The limiter's stores: what holds for one holds for the other."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty store of either kind, as `RateLimiter` is told of it."""
    if request.param == "sqlite":
        return tmp_path / "limits.sqlite"
    return str(request.getfixturevalue("database"))
