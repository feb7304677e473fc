"""The Dagster side of alerts: the steps and checks that failed in ended runs, and those that succeed again.

This is a plain sensor and not a `run_failure_sensor`, which is called for each run, so that a backfill that fails
thirty dates would send thirty messages, and which moves on when the call raises, so that an undelivered message would
be lost. The state is stored next to the daemon's cursors and not in the sensor's, which is lost when a tick fails.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from urllib.parse import quote, urlencode

import dagster as dg

from pipelines.calendar import utc_now
from pipelines.orchestration.alert_messages import AlertState, Destinations, Message, Problem, problem_key
from pipelines.orchestration.partitions import PARTITION_TAG
from pipelines.orchestration.run_requests import STOPPED_TAG
from pipelines.settings import AlertSettings, load
from pipelines.steps.check.result import Level
from pipelines.wording import number

WILL_RETRY_TAG = "dagster/will_retry"
# Dagster gives a tick 60 s and keeps nothing of one that took longer; a run takes 43 ms.
FIRST_PAGE, PAGE = 100, 500
TICK_SECONDS = 20.0
STEP, RUN, CHECK = "step ", "run ", "check "
RUN_TODO = "fix the cause named above, then start the run again; recordings already archived are not fetched twice."
DEFECT_TODO = "keep the run's log and report it as a defect of RingCX Archive; other dates are not affected."
STEP_TODO = {
    "decide_on_losses": "correct the config and start the job again; what it accepted is not accepted twice.",
    "prove_sample": (
        "open the run: if it found discrepancies, its metadata names the first ones and what to do; otherwise fix the"
        " cause named above and run the job restore_drill again."
    ),
}
_ENDS = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
_RESULTS = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}
_STATE = "ringcx_archive/alerts"
_OLD_RUNS, _OLD_CHECKS = "ringcx_archive/alert_run_failures", "ringcx_archive/alert_failing_checks"


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
        stored = storage.get_cursor_values({_STATE, _OLD_RUNS, _OLD_CHECKS})
        state = AlertState.model_validate_json(stored[_STATE]) if _STATE in stored else _from_0_1_0(stored)

        def keep() -> None:
            storage.set_cursor_values({_STATE: state.model_dump_json()})

        # Kept before anything is sent: a tick that dies in between sends a message twice, and never none.
        composed = state.update(_news(context.instance, state, settings.alert_ui_url), clock())
        keep()
        delivered = destinations.deliver(state, keep)
        waiting = f", {len(state.outbox)} waiting" if state.outbox else ""
        return dg.SkipReason(
            f"{number(composed, 'message')} composed, {delivered} delivered{waiting}; "
            f"{number(len(state.open_problems), 'problem')} open."
        )

    return tick


def _from_0_1_0(stored: Mapping[str, str]) -> AlertState:
    """Return the state that the two sensors of version 0.1.0 stored; `position` is that of the failed runs."""
    state = AlertState()
    for name in (_OLD_RUNS, _OLD_CHECKS):
        old = json.loads(stored.get(name, "{}").replace("nothing_is_overdue", "no_overdue_recordings"))
        state.open_problems |= {
            key: Problem(**problem, alerted_at=problem["at"]) for key, problem in old.get("told", {}).items()
        }
        state.outbox += [
            Message(title=message["title"], body=message["body"], severity=message["severity"])
            for message in old.get("outbox", [])
        ]
        if name == _OLD_RUNS:
            state.position = old.get("position")
    return state


def _news(instance: dg.DagsterInstance, state: AlertState, ui_url: str | None) -> dict[str, Problem | None]:
    """Return the last result of each step and check in the runs that ended since the last tick; the first tick looks
    only at the checks of the newest runs. A tick that takes too long stops, and the next one continues.
    """
    stop, first = time.monotonic() + TICK_SECONDS, state.position is None
    ended: dict[int, str] = {}
    last = math.inf
    for end in _ENDS:
        after = dg.RunStatusChangeRecordsFilter(end, after_storage_id=state.position)  # type: ignore[arg-type]  # a Literal
        limit = FIRST_PAGE if first else PAGE
        page = instance.fetch_run_status_changes(after, limit=limit, ascending=not first).records
        ended |= {record.storage_id: record.run_id for record in page}
        # Read to the end of the shortest full page, in the order in which runs ended: the next tick goes on from there.
        if len(page) == PAGE:
            last = min(last, page[-1].storage_id)
    state.position = state.position or 0
    found: dict[str, Problem | None] = {}
    for storage_id, run_id in sorted(ended.items()):
        if storage_id > last or time.monotonic() > stop:
            break
        state.position = storage_id
        if run := instance.get_run_by_id(run_id):
            results = _results(instance, run, ui_url)
            found |= {key: problem for key, problem in results if not first or key.startswith(CHECK)}
    return found


def _results(
    instance: dg.DagsterInstance, run: dg.DagsterRun, ui_url: str | None
) -> Iterator[tuple[str, Problem | None]]:
    """Yield key and problem (None for success) of each step and check, and of a run that no step explains."""
    date = run.tags.get(PARTITION_TAG, "")
    where = _where(run.run_id, ui_url, has_checks=bool(date))
    stopped = run.status is dg.DagsterRunStatus.CANCELED and run.tags.get(STOPPED_TAG) == run.run_id
    will_retry = stopped or run.tags.get(WILL_RETRY_TAG) == "true"
    of_run = f"{RUN}{run.job_name}"
    failed = False
    problem_of = partial(Problem, date=date, severity=Level.error, where=where)
    for record in instance.get_records_for_run(run.run_id, of_type=_RESULTS).records:
        event = record.event_log_entry.get_dagster_event()
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            check = _of_check(evaluation, run.run_id, ui_url)
            yield check.key, None if evaluation.passed or _waits(evaluation) else check
        elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            yield problem_key(f"{STEP}{event.step_key}", date), None
        else:
            failed = True
            if not will_retry:
                sentence, todo = _sentences(event)
                problem = problem_of(subject=f"{STEP}{event.step_key}", sentence=sentence, todo=todo)
                yield problem.key, problem
    if run.status is dg.DagsterRunStatus.SUCCESS:
        yield problem_key(of_run, date), None
    elif run.status is dg.DagsterRunStatus.FAILURE and not failed and not will_retry:
        problem = problem_of(
            subject=of_run,
            sentence="The run ended before any step reported a reason: its process was killed, or could not start.",
            todo="check the host's memory and disk, then start the run again.",
        )
        yield problem.key, problem


def _where(run_id: str, ui_url: str | None, *, has_checks: bool) -> str:
    if not ui_url:
        return f"run {run_id} in the Dagster UI"
    checks = f"; the checks: {ui_url}/assets/recordings?view=checks" if has_checks else ""
    return f"{ui_url}/runs/{run_id}{checks}"


def _waits(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Return whether a check warns of a date that waits, or is not over: that is nobody's problem."""
    return "verdict" in evaluation.metadata and evaluation.severity is dg.AssetCheckSeverity.WARN


def _sentences(event: dg.DagsterEvent) -> tuple[str, str]:
    """Return why a step failed, and what to do about it."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description, STEP_TODO.get(event.step_key or "", RUN_TODO)
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what a step raises
    # Another error's own text may hold anything, a value of a report too: it stays in the run's log.
    return f"The step failed with an unexpected error ({error.cls_name if error else 'unknown'}).", DEFECT_TODO


def _of_check(evaluation: dg.AssetCheckEvaluation, run_id: str, ui_url: str | None) -> Problem:
    """Return a check's result as a problem, with its counts above zero. Its tables of examples stay in the UI."""
    asset, name = evaluation.asset_key.to_user_string(), evaluation.check_name
    if ui_url:
        query = urlencode({"view": "checks", "checkDetail": name})
        where = f"{ui_url}/assets/{quote(asset)}?{query} and {ui_url}/runs/{run_id}"
    else:
        where = f"asset {asset}, tab Checks, in the Dagster UI (run {run_id})"
    values = {name: value.value for name, value in evaluation.metadata.items()}
    counts = [f"{name} {value}" for name, value in sorted(values.items()) if type(value) is int and value]
    sentence = evaluation.description or "The check failed."
    return Problem(
        subject=f"{CHECK}{asset}/{name}",
        date=evaluation.partition or "",
        severity=Level.error if evaluation.severity is dg.AssetCheckSeverity.ERROR else Level.warning,
        sentence=f"{sentence} ({', '.join(counts)})" if counts else sentence,
        todo=str(values.get("to_do", "open the check: its description lists the findings.")),
        where=where,
    )
