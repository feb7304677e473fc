"""The command `ringcx-archive`, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.calendar import utc_now
from pipelines.cli.main import main
from pipelines.cli.options import Dependencies

ROOT = Path(__file__).parents[1]


def an_hour_later() -> datetime:
    """When what a run has just put is no longer arriving."""
    return datetime.now(UTC) + timedelta(hours=1)


def run(
    subcommand: str,
    arguments: Sequence[str],
    s3: Any = None,
    *,
    clock: Callable[[], datetime] = utc_now,
    backoff_s: float = 1.0,
) -> int:
    """Return the exit code."""
    return main([subcommand, *arguments], Dependencies(s3, clock, backoff_s))
