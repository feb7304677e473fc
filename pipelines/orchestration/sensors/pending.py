"""Sensors that start runs between scheduled ones: for due recordings, for failed reports, and after the UI stopped."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache

import dagster as dg
from pydantic import AwareDatetime, BaseModel

from pipelines.calendar import utc_now
from pipelines.ledger.files import LedgerDamaged, LedgerError
from pipelines.ledger.store import Ledger
from pipelines.orchestration.jobs import ARCHIVE_DAY
from pipelines.orchestration.resources import EnvironmentParam, LedgerStore
from pipelines.orchestration.run_requests import AFTER_LINKS, AFTER_REPORTS, PARTITION_TAG, STOPPED_TAG, RunRequests
from pipelines.ringcx.reports.columns import REPORTS
from pipelines.settings import Calendar
from pipelines.steps.parallel import map_readable
from pipelines.wording import number

# Dagster gives a tick 60 s and keeps no cursor of one that took longer.
TICK_SECONDS = 7.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Writers on other machines have other clocks: parts this much older than the position are read again.
CLOCK_OVERLAP = timedelta(minutes=10)
_READERS = 8  # more only wait for each other's CPU: at 30 ms a request, a date costs as much of that as of waiting


class Cursor(BaseModel):
    """What a tick leaves to the next one. Every part written up to `read_until` has been read, except those of the
    dates `left`: no time was left for them, or they have a damaged part, and the sensor cannot see that it is restored.

    `due`: date of the recordings -> partition whose run fetches them -> the earliest `next_attempt_at` there. 0.1.0 had
    a `read_to`, which is not taken over: its damaged dates were elsewhere.
    """

    read_until: AwareDatetime = _EPOCH
    left: list[date] = []
    due: dict[str, dict[str, str]] = {}


def changed_dates(
    ledger: Ledger,
    cursor: Cursor,
    now: datetime,
    read: Callable[[date], dict[str, str]],
    *,
    seconds: float = TICK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[date, dict[str, str] | LedgerDamaged]]:
    """Yield the result of `read` for each date that changed since `cursor`, and advance the cursor; for a date with
    a damaged part the error, so that the others are still read. After `seconds`, no further date is begun.
    """
    end = clock() + seconds
    written = ledger.state_days()
    # A part from a clock ahead of ours must not hide what is written until ours has caught up.
    since = min(cursor.read_until, now) - CLOCK_OVERLAP
    changed = sorted((at, day) for day, at in written.items() if at > since)
    todo = list(dict.fromkeys([*cursor.left, *(day for _, day in changed)]))
    cursor.read_until, cursor.left = min(max([cursor.read_until, *written.values()]), now), list(todo)

    def in_time() -> Iterator[date]:
        for begun, day in enumerate(todo):
            # Some dates are read however long the listing took: otherwise no tick would ever advance.
            if clock() > end and begun >= _READERS:
                return
            yield day

    for day, result in map_readable(read, in_time(), threads=_READERS):
        cursor.left.remove(day)
        if isinstance(result, LedgerDamaged):
            cursor.left.append(day)
        yield day, result


def pending_recordings(calendar: Calendar, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Start a run for each date that has due pending recordings and no unfinished run."""

    @dg.sensor(
        name="pending_recordings",
        job=ARCHIVE_DAY,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run for each date that has recordings due for another attempt and no unfinished run.",
    )
    def tick(
        context: dg.SensorEvaluationContext, environment: EnvironmentParam, ledger: LedgerStore
    ) -> dg.SensorResult:
        now, rows = environment.clock(), ledger.open()
        cursor = Cursor.model_validate_json(context.cursor or "{}")
        due, requests, skip = cursor.due, [], None

        @cache
        def pulled() -> set[date]:
            return {day for report in REPORTS for day in rows.days("report_pulls", report)}

        try:
            for day, earliest in changed_dates(rows, cursor, now, lambda day: _earliest(rows, partitions, day, pulled)):
                due.pop(day.isoformat(), None)
                # The standing check names the dates that cannot be read.
                if earliest and not isinstance(earliest, LedgerDamaged):
                    due[day.isoformat()] = earliest
        except LedgerError as error:  # what was read before it counts, and is kept
            skip = str(error)
        else:
            # A run that ended without a trace leaves the same due time: it is tried again, but once an hour.
            wanted = {key: f"{key}:{at}:{now:%Y-%m-%dT%H}" for key, at in _due_now(due, now).items()}
            requests = RunRequests(context.instance, calendar, partitions, now).for_idle_dates(wanted, AFTER_LINKS)
            pending = len({partition for of_day in due.values() for partition in of_day})
            skip = f"{number(pending, 'date has', 'dates have')} pending recordings; no new run is needed now."
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(skip),
            cursor=cursor.model_dump_json(),
        )

    return tick


def _earliest(
    ledger: Ledger, partitions: dg.DailyPartitionsDefinition, day: date, pulled: Callable[[], Collection[date]]
) -> dict[str, str]:
    """Return the partitions whose runs fetch the pending recordings of `day`, each with its earliest due time.

    A recording of a date that was never `pulled` is fetched by a run of the date that found it: a run of its own date
    would materialize that date, and a backfill of missing dates would leave it out.
    """
    earliest: dict[str, str] = {}
    for state in ledger.pending(day):
        due = (state.next_attempt_at or state.written_at).isoformat()
        # A date outside the partitions (a defect of the row) is fetched by the run of the date that found it, too.
        keys = [day.isoformat(), state.found_on.isoformat()]
        if state.found_on != day and day not in pulled():
            keys.reverse()
        if partition := next(filter(partitions.has_partition_key, keys), None):
            earliest[partition] = min(due, earliest.get(partition, due))
    return earliest


def _due_now(due: Mapping[str, Mapping[str, str]], now: datetime) -> dict[str, str]:
    """Return partition -> the earliest due time, for partitions that are due; the newest first."""
    due_now = {(key, at) for of_day in due.values() for key, at in of_day.items() if datetime.fromisoformat(at) <= now}
    return dict(sorted(due_now, reverse=True))  # latest first, so that `dict` keeps each partition's earliest time


def archive_despite_failed_report(calendar: Calendar, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Archive the recordings that a date's rows link to, although one of its reports failed."""

    @dg.run_failure_sensor(
        name="archive_despite_failed_report",
        request_job=ARCHIVE_DAY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="After a run whose report failed: fetches the recordings that the date's other rows link to.",
    )
    def tick(context: dg.RunFailureSensorContext) -> dg.RunRequest | dg.SkipReason:
        run = context.dagster_run
        partition = run.tags.get(PARTITION_TAG, "")
        failed = {event.step_key for event in context.get_step_failure_events()}
        if failed.isdisjoint(REPORTS) or not partitions.has_partition_key(partition):
            return dg.SkipReason("No report of a date failed in that run.")
        requests = RunRequests(context.instance, calendar, partitions, utc_now())
        return requests.request(partition, f"despite:{run.run_id}", AFTER_REPORTS)

    return tick


def continue_stopped_runs(calendar: Calendar, partitions: dg.DailyPartitionsDefinition) -> dg.SensorDefinition:
    """Run a date again if its run was stopped together with the UI."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.CANCELED,
        name="continue_stopped_runs",
        request_job=ARCHIVE_DAY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="After the UI has started again: runs the dates whose runs were stopped together with the UI.",
    )
    def tick(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
        run = context.dagster_run
        partition = run.tags.get(PARTITION_TAG, "")
        if run.tags.get(STOPPED_TAG) != run.run_id or not partitions.has_partition_key(partition):
            return dg.SkipReason("That run was not stopped together with the UI.")
        requests = RunRequests(context.instance, calendar, partitions, utc_now())
        request = requests.request(partition, f"after:{run.run_id}", list(run.asset_selection or ()))
        checks = run.asset_check_selection  # None: those of its assets
        return request.with_replaced_attrs(
            run_config=run.run_config, asset_check_keys=None if checks is None else list(checks)
        )

    return tick
