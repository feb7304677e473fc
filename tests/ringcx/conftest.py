"""The limiter's stores: what holds for one holds for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pipelines.ringcx.limits.limiter import RateLimiter


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty store of either kind, as `RateLimiter` is told of it."""
    if request.param == "sqlite":
        return tmp_path / "limits.sqlite"
    return str(request.getfixturevalue("database"))


@pytest.fixture
def each(tmp_path: Path, database: str) -> Callable[[Callable[[Path | str], None]], None]:
    """Try something that takes real time with an empty store of each kind, at once."""

    def try_each(body: Callable[[Path | str], None]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(body, [tmp_path / "limits.sqlite", database]))

    return try_each


@pytest.fixture
def open_limiter() -> Iterator[Callable[..., RateLimiter]]:
    """Make limiters that are closed after the test."""
    with ExitStack() as stack:
        yield lambda *where, **options: stack.enter_context(closing(RateLimiter(*where, **options)))
