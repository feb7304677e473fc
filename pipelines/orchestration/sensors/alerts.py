"""The Dagster side of alerts: which steps and checks failed in the runs that ended, and what is in order again.

A plain sensor and not `run_failure_sensor`: that one is called for each run by itself, so a backfill that fails thirty
dates would be thirty messages, and it moves on when the call raises, so a message that could not be delivered would be
lost. What is remembered is stored next to the daemon's cursors and not in the sensor's, which is not kept when a tick
fails.
"""

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from urllib.parse import quote, urlencode

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunStatusChangeRecordsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from pipelines.calendar import utc_now
from pipelines.orchestration.alerts import Destinations, Memory, Problem, Severity, problem_key
from pipelines.orchestration.priority import PARTITION_TAG
from pipelines.settings import AlertSettings, SettingsError, load

WILL_RETRY_TAG = "dagster/will_retry"
PAGE = 500
STEP, RUN, CHECK = "step ", "run ", "check "
RUN_TODO = "put right what the sentence names, then start the run again; what is held is not fetched twice."
DEFECT_TODO = "keep the run's log and report it as a defect of RingCX Archive; other dates are not touched by it."
STEP_TODO = {
    "prove_sample": (
        "open the run: if it found doubts, its metadata names the first ones with what to do; otherwise put right what"
        " the sentence says and run the job restore_drill again."
    )
}
CHECK_TODO = {
    "every_link_is_held": (
        "open the check of the date: it counts the reasons and names up to twenty recordings. Run the date again; final"
        " states are tried again with `retry_final: true` on the asset recordings."
    ),
    "report_is_plausible": "compare the report with the RingCX administration; if rows are missing, run it again.",
    "mono_and_stereo_agree": "see that the account has both kinds of recording switched on, then run the date again.",
    "audio_is_true": "listen to the recordings that the check names; the source may have recorded silence.",
    "no_overdue_recordings": "run the dates that the check names, those with the fewest days left first.",
}
OTHER_CHECK_TODO = "open the check; its description says what it compares and its tables what it found."
_ENDS = (DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED)
_TELLING = {
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.ASSET_CHECK_EVALUATION,
}
_MEMORY = "ringcx_archive/alerts"

Told = Iterator[tuple[str, Problem | None]]


def alerts(clock: Callable[[], datetime] = utc_now) -> SensorDefinition:
    """Tells people about failed runs and failing checks."""

    @sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells the people of ALERT_URLS about failed runs and failing checks.",
    )
    def tick(context: SensorEvaluationContext) -> SkipReason:
        settings = load(AlertSettings)
        try:
            destinations = Destinations(settings.alert_urls)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        if not destinations:
            return SkipReason("Nobody is told: ALERT_URLS is not set (see .env.example).")
        kept = context.instance.daemon_cursor_storage
        memory = Memory.model_validate_json(kept.get_cursor_values({_MEMORY}).get(_MEMORY, "{}"))

        def keep() -> None:
            kept.set_cursor_values({_MEMORY: memory.model_dump_json()})

        # Kept before anything is sent: a tick that dies in between sends a message twice, and never none.
        composed = memory.take(_news(context.instance, memory, settings.alert_ui_url), clock())
        keep()
        delivered = destinations.deliver(memory, keep)
        waiting = f", {len(memory.outbox)} waiting" if memory.outbox else ""
        return SkipReason(
            f"{composed} messages composed, {delivered} delivered{waiting}; {len(memory.told)} problems open."
        )

    return tick


def _news(instance: DagsterInstance, memory: Memory, ui_url: str | None) -> dict[str, Problem | None]:
    """Return the last word of each step and check in the runs that ended since the last tick.

    The first tick looks at the newest runs, and only at their checks: what failed before there was anybody to tell is
    in the UI.
    """
    first = memory.position is None
    pages = []
    for end in _ENDS:
        since = RunStatusChangeRecordsFilter(end, after_storage_id=memory.position)  # type: ignore[arg-type]  # a Literal
        pages.append(instance.fetch_run_status_changes(since, limit=PAGE, ascending=not first).records)
    # Read to the end of the shortest full page, in the order in which runs ended: the next tick goes on from there.
    full = [page[-1].storage_id for page in pages if len(page) == PAGE and not first]
    ended = {
        one.storage_id: one.run_id for page in pages for one in page if one.storage_id <= min(full, default=math.inf)
    }
    memory.position = max(ended, default=memory.position or 0)
    found: dict[str, Problem | None] = {}
    for _, run_id in sorted(ended.items()):
        if run := instance.get_run_by_id(run_id):
            found |= {key: one for key, one in _of_run(instance, run, ui_url) if not first or key.startswith(CHECK)}
    return found


def _of_run(instance: DagsterInstance, run: DagsterRun, ui_url: str | None) -> Told:
    """Yield what each step and check of the run came to; for the run itself where no step says why it failed."""
    date = run.tags.get(PARTITION_TAG, "")
    where = f"{ui_url}/runs/{run.run_id}" if ui_url else f"run {run.run_id} in the Dagster UI"
    will_retry = run.tags.get(WILL_RETRY_TAG) == "true"
    of_run, failed = f"{RUN}{run.job_name}", False

    def told(subject: str, sentence: str, todo: str) -> tuple[str, Problem]:
        problem = Problem(
            subject=subject, date=date, severity=Severity.error, sentence=sentence, todo=todo, where=where
        )
        return problem.key, problem

    for record in instance.get_records_for_run(run.run_id, of_type=_TELLING).records:
        event = record.event_log_entry.get_dagster_event()
        if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            problem = _of_check(event.asset_check_evaluation_data, run.run_id, ui_url)
            yield problem.key, None if event.asset_check_evaluation_data.passed else problem
        elif event.event_type is DagsterEventType.STEP_SUCCESS:
            yield problem_key(f"{STEP}{event.step_key}", date), None
        else:
            failed = True
            if not will_retry:
                yield told(f"{STEP}{event.step_key}", *_words(event))
    if run.status is DagsterRunStatus.SUCCESS:
        yield problem_key(of_run, date), None
    elif run.status is DagsterRunStatus.FAILURE and not failed and not will_retry:
        yield told(
            of_run,
            "The run ended before any step said why: its process was killed, or could not start.",
            "look at the memory and the disk of the host, then start the run again.",
        )


def _words(event: DagsterEvent) -> tuple[str, str]:
    """Return what a failed step says, and what to do about it."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description, STEP_TODO.get(event.step_key or "", RUN_TODO)
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what a step raises
    # Another error's own text may hold anything, a value of a report too: it stays in the run's log.
    return f"The step failed with an unexpected error ({error.cls_name if error else 'unknown'}).", DEFECT_TODO


def _of_check(evaluation: AssetCheckEvaluation, run_id: str, ui_url: str | None) -> Problem:
    asset, name = evaluation.asset_key.to_user_string(), evaluation.check_name
    if ui_url:
        query = urlencode({"view": "checks", "checkDetail": name})
        where = f"{ui_url}/assets/{quote(asset)}?{query} and {ui_url}/runs/{run_id}"
    else:
        where = f"asset {asset}, tab Checks, in the Dagster UI (run {run_id})"
    return Problem(
        subject=f"{CHECK}{asset}/{name}",
        date=evaluation.partition or "",
        severity=Severity.error if evaluation.severity is AssetCheckSeverity.ERROR else Severity.warning,
        sentence=_with_counts(evaluation),
        todo=CHECK_TODO.get(name, OTHER_CHECK_TODO),
        where=where,
    )


def _with_counts(evaluation: AssetCheckEvaluation) -> str:
    """What the check says, and its figures that are not nothing. Its tables of examples stay in the UI."""
    values = {name: value.value for name, value in evaluation.metadata.items()}
    counts = [f"{name} {value}" for name, value in sorted(values.items()) if type(value) is int and value]
    sentence = evaluation.description or "The check failed."
    return f"{sentence} ({', '.join(counts)})" if counts else sentence
