"""A run of one date in its own process, recorded like one launched in the UI.

The run starts at once, without a daemon, unless an older run of the date has not ended; the daemon then starts no other
one. It gets a code location, since the sensors for alerts and for failed reports ignore a run without one.
"""

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import IO
from uuid import uuid4

import dagster as dg

from pipelines.errors import ExpectedError
from pipelines.ledger.states import Status
from pipelines.orchestration.dagster_private import (
    ExecuteRunArgs,
    ReconstructableRepository,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
    serialize_value,
)
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.jobs import ARCHIVE_DAY
from pipelines.orchestration.run_requests import PARTITION_TAG, UNFINISHED
from pipelines.settings import environment_for_dagster

# As in workspace.yaml.
_REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ringcx_archive"), "__repository__")
_MODULE = "pipelines.definitions"
_CANCELED = {dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_CANCELED}
_STOP_SECONDS = 30.0
# The folder for locks, next to the logs; each lock has the name of its run, a UUID.
_LOCKS, _LOCK = "runs", ".lock"
_ANY_LOCK = f"{'-'.join('[0-9a-f]' * digits for digits in (8, 4, 4, 4, 12))}{_LOCK}"


class AnotherRun(ExpectedError):  # noqa: N818 - says what happened
    """An older run of the date has not ended."""


@dataclass(frozen=True, slots=True)
class DateRun:
    """A run and its process."""

    instance: dg.DagsterInstance
    run: dg.DagsterRun
    process: subprocess.Popen[bytes]

    def events(self) -> Iterator[dg.EventLogEntry]:
        """Yield the run's entries in Dagster's event log until it has ended; terminate it when the UI asks."""
        cursor, ended = None, False
        while not ended:
            ended = self.process.poll() is not None
            found = self.instance.get_records_for_run(self.run.run_id, cursor)
            cursor = found.cursor
            for record in found.records:
                event = record.event_log_entry.dagster_event
                if event is not None and event.event_type in _CANCELED:
                    self.process.send_signal(signal.SIGINT)
                yield record.event_log_entry
            time.sleep(0.2)

    @property
    def status(self) -> dg.DagsterRunStatus:
        """The run's current status."""
        run = self.instance.get_run_by_id(self.run.run_id)
        return run.status if run else dg.DagsterRunStatus.FAILURE


@contextmanager
def running(instance: dg.DagsterInstance, day: date, log: Path) -> Iterator[DateRun]:
    """Start the run of a date; its process prints to `log`. Cancel the run if the block ends first.

    Raise AnotherRun or, if the log or the process fails, ExpectedError; then no unfinished run is left.
    """
    run_id = str(uuid4())
    path = log.parent / _LOCKS / f"{run_id}{_LOCK}"
    with _locked(path, day, log) as lock, _started(instance, day, log, run_id, lock) as run:
        yield run


@contextmanager
def _locked(path: Path, day: date, log: Path) -> Iterator[int]:
    """Hold a lock while this process lives, or the run's, which inherits the descriptor: see `end_dead_runs`."""
    try:
        path.parent.mkdir(exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise _not_started(day, log, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file.fileno()
        finally:
            path.unlink(missing_ok=True)


def end_dead_runs(instance: dg.DagsterInstance, logs: Path) -> None:
    """Record an end for each run that `running` started with a log in this folder if both its processes are gone, as
    after a power cut: otherwise the run would block its date.
    """
    for path in (logs / _LOCKS).glob(_ANY_LOCK):
        with suppress(OSError), path.open("r+") as file:  # the lock of a run that goes on is taken
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if run := instance.get_run_by_id(path.stem):
                require_end(instance, run)
            path.unlink(missing_ok=True)


@contextmanager
def _started(instance: dg.DagsterInstance, day: date, log: Path, run_id: str, lock: int) -> Iterator[DateRun]:
    job = ReconstructableRepository.for_module(_MODULE, "defs").get_reconstructable_job(ARCHIVE_DAY.name)
    definition, origin = job.get_definition(), job.get_python_origin()
    run = None
    try:
        with log.open("a") as output:  # until `_require_first` succeeds, the log may belong to another run
            run = instance.create_run_for_job(
                definition,
                run_id=run_id,
                tags={**definition.tags, PARTITION_TAG: str(day)},
                remote_job_origin=RemoteJobOrigin(_REPOSITORY, definition.name),
                job_code_origin=origin,
            )
            _require_first(instance, run, day)
            output.truncate(0)
            # As if launched: the daemon counts a run from here on, not one that is merely recorded.
            starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
            instance.report_dagster_event(starting, run.run_id)
            process = _spawn(ExecuteRunArgs(origin, run.run_id, None), output, lock)
    except OSError as error:
        failure = _not_started(day, log, error)
        if run:
            instance.report_run_failed(run, str(failure))
        raise failure from error
    except BaseException:  # Ctrl-C: otherwise the run would never end and would block its date
        if left := instance.get_run_by_id(run_id):
            instance.report_run_canceled(left, "The run was stopped before it began.")
        raise
    started = DateRun(instance, run, process)
    try:
        yield started
    finally:
        _stop(started)


def _spawn(arguments: ExecuteRunArgs, output: IO[str], lock: int) -> subprocess.Popen[bytes]:
    """Execute the run in a process that inherits the lock's descriptor."""
    # A session of its own: Ctrl-C must reach it from here, when the run is marked, or it counts as a failure.
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "api", "execute_run"],
        env={**environment_for_dagster(), "DAGSTER_EXECUTE_RUN_ARGS": serialize_value(arguments)},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(lock,),
    )


def _stop(started: DateRun) -> None:
    """Cancel the run if it has not ended, kill its process if that takes too long, and record an end."""
    process = started.process
    if process.poll() is None:
        started.instance.report_run_canceling(started.run)
        process.send_signal(signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
        require_end(started.instance, started.run)


def _not_started(day: date, log: Path, error: OSError) -> ExpectedError:
    reason = error.strerror or type(error).__name__
    return ExpectedError(f"The run of {day}, which logs to {log}, could not be started ({reason})")


def stored_by(environment: Environment, run_id: str, day: date) -> int | None:
    """Return how many recordings a run of `day` has stored; None if the ledger cannot be read."""
    try:
        # A call over midnight is stored under the next date.
        states = environment.stores.ledger.states([day, day + timedelta(days=1)]).values()
    except ExpectedError:  # perhaps the run stopped because the ledger is unavailable
        return None
    return sum(state.run_id == run_id and state.status is Status.archived for state in states)


def _require_first(instance: dg.DagsterInstance, run: dg.DagsterRun, day: date) -> None:
    """Delete the run and raise AnotherRun unless it is the oldest of its date: of two, the second sees the first."""
    unfinished = dg.RunsFilter(statuses=list(UNFINISHED), tags={PARTITION_TAG: str(day)})
    oldest, *_ = instance.get_run_records(unfinished, ascending=True)
    if oldest.dagster_run.run_id != run.run_id:
        instance.delete_run(run.run_id)
        raise AnotherRun(f"Another run of {day} is in progress")


def require_end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Record an end for a run whose process died without one: it would stay unfinished and block its date."""
    now = instance.get_run_by_id(run.run_id)
    if now is None:
        return
    if now.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, "The run was stopped; the next run continues from there.")
    elif now.status in {dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}:
        instance.report_run_failed(now, "The run's process ended too early; run the date again.")
