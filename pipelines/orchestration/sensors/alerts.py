"""The Dagster side of alerts: the steps and checks that failed in ended runs, and those that succeed again.

This is a plain sensor and not a `run_failure_sensor`: that is called for each run, so a backfill that fails thirty
dates would send thirty messages; and it moves on when the call raises, so an undelivered message would be lost. The
state is stored next to the daemon's cursors and not in the sensor's own, which is lost when a tick fails.
"""

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from urllib.parse import quote, urlencode

import dagster as dg

from pipelines.calendar import utc_now
from pipelines.orchestration.alert_messages import AlertProblem, AlertState, Destinations
from pipelines.orchestration.run_requests import PARTITION_TAG, STOPPED_TAG
from pipelines.settings import AlertSettings, load
from pipelines.steps.check.result import Level
from pipelines.wording import number

WILL_RETRY_TAG = "dagster/will_retry"
# Of each kind of end. Dagster gives a tick 60 s and keeps nothing of one that took longer; a run takes 43 ms.
PAGE = 100
STEP, RUN, CHECK = "step ", "run ", "check "
RUN_TODO = "fix the cause named above, then start the run again; recordings already archived are not fetched again."
DEFECT_TODO = "keep the run's log and report the error as a defect in RingCX Archive; other dates are not affected."
_ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
_RESULTS = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}
_STATE = "ringcx_archive/alerts"


def alerts(clock: Callable[[], datetime] = utc_now) -> dg.SensorDefinition:
    """Return the sensor that sends alerts about failed runs and failing checks."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends alerts about failed runs and failing checks to ALERT_URLS.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings = load(AlertSettings)
        destinations = Destinations(settings.alert_urls)
        if not destinations:
            return dg.SkipReason("No alert was sent: ALERT_URLS is not set (see .env.example).")
        storage = context.instance.daemon_cursor_storage
        state = AlertState.model_validate_json(storage.get_cursor_values({_STATE}).get(_STATE, "{}"))

        def keep() -> None:
            storage.set_cursor_values({_STATE: state.model_dump_json()})

        # Kept before anything is sent: a tick that dies in between sends a message twice, and never none.
        ui = settings.alert_ui_url or "the Dagster UI, "
        composed = state.update(_news(context.instance, state, ui), clock())
        keep()
        delivered = destinations.deliver(state, keep)
        waiting = f", {len(state.outbox)} waiting" if state.outbox else ""
        return dg.SkipReason(
            f"{number(composed, 'message')} composed, {delivered} delivered{waiting}; "
            f"{number(len(state.open_problems), 'problem')} open."
        )

    return tick


def _news(instance: dg.DagsterInstance, state: AlertState, ui: str) -> dict[str, AlertProblem]:
    """Return the last results in runs that ended since the last tick; the first takes only the newest checks."""
    first = state.position is None
    ended: dict[int, str] = {}
    last = math.inf
    for end in _ENDS:
        after = dg.RunStatusChangeRecordsFilter(end, after_storage_id=state.position)  # type: ignore[arg-type]  # a Literal
        page = instance.fetch_run_status_changes(after, limit=PAGE, ascending=not first).records
        ended |= {record.storage_id: record.run_id for record in page}
        # Read to the end of the shortest full page, in the order in which runs ended: the next tick goes on from there.
        if len(page) == PAGE and not first:
            last = min(last, page[-1].storage_id)
    state.position = state.position or 0
    found: dict[str, AlertProblem] = {}
    for storage_id, run_id in sorted(ended.items()):
        if storage_id > last:
            break
        state.position = storage_id
        if run := instance.get_run_by_id(run_id):
            results = _results(instance, run, ui)
            found |= {result.key: result for result in results if not first or result.subject.startswith(CHECK)}
    return found


def _results(instance: dg.DagsterInstance, run: dg.DagsterRun, ui: str) -> Iterator[AlertProblem]:
    """Yield the result of each step and check, and of a run that no step explains."""
    date = run.tags.get(PARTITION_TAG, "")
    where = f"{ui}/runs/{run.run_id}" + (f"; the checks: {ui}/assets/recordings?view=checks" if date else "")
    stopped = run.status is dg.DagsterRunStatus.CANCELED and run.tags.get(STOPPED_TAG) == run.run_id
    will_retry = stopped or run.tags.get(WILL_RETRY_TAG) == "true"
    of_run = f"{RUN}{run.job_name}"
    failed = False
    result = partial(AlertProblem, date=date, where=where)
    for record in instance.get_records_for_run(run.run_id, of_type=_RESULTS).records:
        event = record.event_log_entry.get_dagster_event()
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            yield _of_check(event.asset_check_evaluation_data, run.run_id, ui)
        elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            yield result(subject=f"{STEP}{event.step_key}", severity=Level.ok)
        else:
            failed = True
            if not will_retry:
                sentence, todo = _sentences(event)
                yield result(subject=f"{STEP}{event.step_key}", severity=Level.error, sentence=sentence, todo=todo)
    if run.status is dg.DagsterRunStatus.SUCCESS:
        yield result(subject=of_run, severity=Level.ok)
    elif run.status is dg.DagsterRunStatus.FAILURE and not failed and not will_retry:
        yield result(
            subject=of_run,
            severity=Level.error,
            sentence="The run ended before any step reported a reason: its process was killed, or could not start.",
            todo="check the host's memory and disk, then start the run again.",
        )


def _sentences(event: dg.DagsterEvent) -> tuple[str, str]:
    """Return why a step failed, and what to do about it."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description, RUN_TODO
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what a step raises
    # Another error's own text may hold anything, a value of a report too: it stays in the run's log.
    return f"The step failed with an unexpected error ({error.cls_name if error else 'unknown'}).", DEFECT_TODO


def _of_check(evaluation: dg.AssetCheckEvaluation, run_id: str, ui: str) -> AlertProblem:
    """Return a check's result, with its counts above zero. Its tables of examples stay in the UI."""
    asset = evaluation.asset_key.to_user_string()
    query = urlencode({"view": "checks", "checkDetail": evaluation.check_name})
    values = {name: value.value for name, value in evaluation.metadata.items()}
    sentence = evaluation.description or "The check failed."
    counts = [f"{name} {value}" for name, value in sorted(values.items()) if type(value) is int and value]
    if counts:
        sentence += f" ({', '.join(counts)})"
    severity = Level.error if evaluation.severity is dg.AssetCheckSeverity.ERROR else Level.warning
    # A warning of a date that waits, or is not over, is nobody's problem.
    if evaluation.passed or (severity is Level.warning and "verdict" in evaluation.metadata):
        severity = Level.ok
    return AlertProblem(
        subject=f"{CHECK}{asset}/{evaluation.check_name}",
        date=evaluation.partition or "",
        severity=severity,
        sentence=sentence,
        todo=str(values.get("to_do", "open the check: its description lists the findings.")),
        where=f"{ui}/assets/{quote(asset)}?{query} and {ui}/runs/{run_id}",
    )
