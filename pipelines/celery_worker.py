"""The Celery application of a run worker: `celery --app pipelines.celery_worker worker`.

docs/scaling.md says how a lost run comes back, and why Dagster alone would leave it "started".
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from celery import Celery, Task
from dagster import DagsterInstance, DagsterRunStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pipelines.orchestration.dagster_private import ExecuteRunArgs, JobFailureData, RunFailureReason, unpack_value

WORKER_LOST = "The machine or process that ran this date is gone; another worker got its task. The date is run again."
END_UNRECORDED = "The run could not record how it ended, since the database was unavailable. The date is run again."
_PATIENCE_S = 3600.0
_PAUSE_S = 5.0


class RunTask(Task):  # type: ignore[misc]  # Celery has no types
    """The task of one run of one date, which survives its worker and an outage of the database."""

    acks_late = True
    reject_on_worker_lost = True

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG002
        """End the run of a lost worker; the task then does nothing, because the run has ended."""
        if self.request.delivery_info.get("redelivered"):
            _end(kwargs, {DagsterRunStatus.STARTED}, WORKER_LOST, RunFailureReason.RUN_WORKER_RESTART)

    def after_return(self, *returned: Any) -> None:  # noqa: ANN401  # Celery's: status, value, id, args, kwargs, ...
        """End a run that is over but not recorded as ended: Dagster would take its task for a success."""
        unfinished = {DagsterRunStatus.STARTING, DagsterRunStatus.STARTED}
        _end(returned[4], unfinished, END_UNRECORDED, RunFailureReason.UNEXPECTED_TERMINATION)


def _end(kwargs: Mapping[str, Any], statuses: set[DagsterRunStatus], why: str, reason: RunFailureReason) -> None:
    """Fail the task's run if its status is one of `statuses`, once the database answers."""
    run_id = unpack_value(kwargs["execute_job_args_packed"], as_type=ExecuteRunArgs).run_id
    for attempt in Retrying(
        retry=retry_if_exception_type((OperationalError, DagsterPostgresException)),
        wait=wait_fixed(_PAUSE_S),
        stop=stop_after_delay(_PATIENCE_S),
        reraise=True,
    ):
        with attempt, DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
            if run is not None and run.status in statuses:
                instance.report_run_failed(run, why, JobFailureData(error=None, failure_reason=reason))


def make_worker(instance: DagsterInstance) -> Celery:
    """Return the application that runs what the launcher of `instance` sends, configured as that launcher is."""
    launcher = instance.run_launcher
    if not isinstance(launcher, CeleryRunLauncher):
        raise ValueError(  # noqa: TRY004 - a setting is wrong, not a type
            "dagster.yaml in DAGSTER_HOME does not name the CeleryRunLauncher; take deploy/celery/dagster.yaml"
        )
    app: Celery = make_app(launcher.app_args())  # type: ignore[no-untyped-call]  # dagster_celery's own
    create_execute_job_task(app, base=RunTask)  # type: ignore[arg-type]  # annotated as one of its values
    return app


@cache
def __getattr__(name: str) -> Celery:
    """Make `app` when Celery asks for it: the import alone opens no instance."""
    if name != "app":
        raise AttributeError(name)
    with DagsterInstance.get() as instance:
        return make_worker(instance)
