"""What is shown of a date while it is archived: on a terminal, and where nobody watches."""

import io
import time
from datetime import date

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    DagsterInstance,
    EventLogEntry,
    Failure,
    MaterializeResult,
    asset,
    asset_check,
    materialize,
)
from rich.console import Console

from pipelines.cli.progress import Progress

DAY = date(2026, 11, 18)
PROGRESS = "5 of 10 recordings done, 1.5 MB archived, 2.0 recordings a second, about 0:00:03 left"


@asset
def recordings(context: AssetExecutionContext) -> MaterializeResult[None]:
    context.log.info(PROGRESS)
    return MaterializeResult(metadata={"archived_now": 10, "pending": 0, "megabytes_now": 3.0})


@asset(deps=[recordings])
def daily_manifest() -> MaterializeResult[None]:
    raise Failure("The bucket [archive] is gone.\nMore of it.")


@asset(deps=[daily_manifest])
def calls() -> None:
    """Never run: the manifest failed."""


@asset_check(asset=calls)
def is_searchable() -> AssetCheckResult:
    return AssetCheckResult(passed=True)


@asset_check(asset=recordings)
def audio_is_true() -> AssetCheckResult:
    return AssetCheckResult(passed=False, severity=AssetCheckSeverity.WARN)


@pytest.fixture(scope="module")
def events() -> list[EventLogEntry]:
    with DagsterInstance.ephemeral() as instance:
        everything = [recordings, daily_manifest, calls, audio_is_true, is_searchable]
        run = materialize(everything, instance=instance, raise_on_error=False)
        return list(instance.all_logs(run.run_id))


def shown(events: list[EventLogEntry], *, terminal: bool, seconds: float = 0.0) -> str:
    screen = io.StringIO()
    with Progress(Console(file=screen, force_terminal=terminal, width=160), DAY) as progress:
        progress.steps = ["recordings", "daily_manifest", "recordings_audio_is_true"]
        for event in events:
            progress.show(event)
            time.sleep(seconds)
    return screen.getvalue()


def test_without_a_terminal_each_event_that_says_something_is_a_line(events: list[EventLogEntry]) -> None:
    assert sorted(shown(events, terminal=False).splitlines()) == [
        "2026-11-18  calls                    not run: a step before it failed",
        "2026-11-18  checks                   1 with a warning",
        "2026-11-18  daily_manifest           FAILED: The bucket [archive] is gone.",
        "2026-11-18  recordings               10 archived now, 0 pending, 3.0 MB",
        f"2026-11-18  recordings               {PROGRESS}",
    ]


def test_a_terminal_shows_the_running_step_with_its_progress_and_what_follows(events: list[EventLogEntry]) -> None:
    screen = shown(events, terminal=True, seconds=0.15)
    assert "\033[" in screen
    assert PROGRESS in screen
    assert "daily_manifest, 1 check" in screen
    assert "10 archived now, 0 pending, 3.0 MB" in screen
    assert "[dim]" not in screen
