"""Today first, then the look-back, then the oldest date: at the limiter, in Dagster's queue, and for places to run."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus, OpExecutionContext, build_schedule_context, job, op
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.ui import POOLS
from pipelines.definitions import build_defs
from pipelines.orchestration import priority
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 24)


def rank_of(day: date, today: date, calendar: Calendar) -> tuple[int, int]:
    """Where a date belongs, in the words of the requirement: today, the look-back (newest first), the oldest first."""
    back = (today - day).days
    return (0, back) if back <= calendar.archive_look_back_days + 1 else (1, -back)


@given(
    look_back=st.integers(0, 366),
    days=st.lists(st.dates(date(2010, 1, 1), TODAY), min_size=2, max_size=20, unique=True),
)
def test_dates_get_permits_today_first_then_the_look_back_then_the_oldest(look_back: int, days: list[date]) -> None:
    calendar = Calendar(archive_look_back_days=look_back)
    by_priority = sorted(days, key=lambda day: priority.of_requests(day, TODAY, calendar))
    assert by_priority == sorted(days, key=lambda day: rank_of(day, TODAY, calendar))
    assert all(-(2**31) <= priority.of_requests(day, TODAY, calendar) < 2**31 for day in days), "what a store can keep"


def test_what_belongs_to_no_date_waits_for_none() -> None:
    calendar = Calendar()
    assert priority.of_requests(None, TODAY, calendar) <= priority.of_requests(TODAY, TODAY, calendar)


def test_tomorrow_by_another_zone_counts_as_today() -> None:
    calendar = Calendar()
    tomorrow = TODAY + timedelta(days=1)
    assert priority.of_requests(tomorrow, TODAY, calendar) == priority.of_requests(TODAY, TODAY, calendar)
    assert priority.run_tags(tomorrow, TODAY, calendar) == priority.run_tags(TODAY, TODAY, calendar)


@pytest.mark.parametrize(
    ("tags", "day"),
    [
        ({"dagster/partition": "2026-11-20"}, date(2026, 11, 20)),
        ({}, None),
    ],
)  # fmt: skip
def test_the_services_of_a_run_know_its_date(tags: dict[str, str], day: date | None) -> None:
    seen: list[date | None] = []

    @op(required_resource_keys={"source"})
    def note_date(context: OpExecutionContext) -> None:
        seen.append(context.resources.source.day)

    @job(resource_defs=all_resources())
    def noting() -> None:
        note_date()

    assert noting.execute_in_process(tags=tags).success
    assert seen == [day]


def test_the_schedules_runs_stand_before_others_in_the_queue_and_the_newest_date_first() -> None:
    defs = build_defs(calendar=Calendar(archive_look_back_days=3))

    def priorities(name: str, at: datetime) -> list[int]:
        context = build_schedule_context(scheduled_execution_time=at, repository_def=defs.get_repository_def())
        requests = defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or []
        return [int(request.tags["dagster/priority"]) for request in requests]

    night = priorities("daily_archive", datetime(2026, 11, 24, 4, 30, tzinfo=UTC))
    (now,) = priorities("intraday_archive", datetime(2026, 11, 24, 14, 15, tzinfo=UTC))
    assert [now, *night] == sorted({now, *night}, reverse=True)
    assert min(night) > 0, "what a backfill's runs have"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """An instance with the product's dagster.yaml."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with DagsterInstance.from_config(str(tmp_path / "home")) as opened:
        yield opened


@job
def noop() -> None:
    """Stands for archive_day: what the queue looks at are the tags."""


def put(instance: DagsterInstance, day: date, *, backfill: bool = False, running: bool = False) -> None:
    """A run of the date: of a backfill, or one that a schedule or a sensor asks for."""
    tags = {"dagster/partition": day.isoformat()}
    tags |= {"dagster/backfill": "all-of-it"} if backfill else priority.run_tags(day, TODAY, Calendar())
    status = DagsterRunStatus.STARTED if running else DagsterRunStatus.QUEUED
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ringcx_archive"), "__repository__")
    origin = RemoteJobOrigin(repository, "archive_day")
    instance.create_run_for_job(noop, tags=tags, status=status, remote_job_origin=origin)


def next_to_start(instance: DagsterInstance) -> list[str]:
    """The dates whose runs Dagster's daemon would start now, in order."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    runs = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)
    return [run.tags["dagster/partition"] for run in runs]


def test_a_long_backfill_leaves_places_free_and_the_nights_run_does_not_stand_behind_it(
    instance: DagsterInstance,
) -> None:
    for ago in range(60):
        put(instance, date(2024, 1, 1) + timedelta(days=ago), backfill=True)
    assert next_to_start(instance) == ["2024-01-01", "2024-01-02"], "the oldest first, and places left"
    for day in (date(2023, 12, 1), date(2023, 12, 2)):
        put(instance, day, backfill=True, running=True)
    assert next_to_start(instance) == [], "it has all it may have"
    put(instance, date(2024, 6, 1))
    put(instance, date(2024, 6, 2))
    assert next_to_start(instance) == ["2024-06-01"], "one place for older dates whose recordings have become due"
    put(instance, date(2024, 5, 1), running=True)
    for ago in (4, 3, 2, 1):  # the nightly run, in whatever order
        put(instance, TODAY - timedelta(days=ago))
    assert next_to_start(instance) == ["2026-11-23"], "yesterday has the last place"
    put(instance, TODAY)
    assert next_to_start(instance) == ["2026-11-24"]


def test_the_places_in_the_pools_are_more_than_runs_of_older_dates_may_hold() -> None:
    runs = yaml.safe_load((ROOT / "dagster.yaml").read_text())["concurrency"]["runs"]
    older = sum(
        limit["limit"]
        for limit in runs["tag_concurrency_limits"]
        if limit["key"] in {"dagster/backfill", priority.OLDER_TAG}
    )
    assert older < runs["max_concurrent_runs"]
    assert all(older < limit for limit in POOLS.values())
