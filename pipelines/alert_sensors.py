"""The Dagster side of alerts: which runs failed and which checks fail, read from Dagster's own event log.

Plain sensors and not `run_failure_sensor`: that one is called for each run by itself, so a backfill that fails thirty
dates would be thirty messages, and it moves on when the call raises, so a message that could not be delivered would be
lost. What is remembered lies beside the daemon's cursors and not in the sensor's, which is not kept when a tick fails.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunsFilter,
    RunStatusChangeRecordsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from pipelines.alerts import AlertsFailed, Destinations, Memory, Problem, Severity, problem_key
from pipelines.priority import PARTITION_TAG
from pipelines.settings import AlertSettings, SettingsError, load

if TYPE_CHECKING:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

Found = dict[str, Problem | None]

WILL_RETRY_TAG = "dagster/will_retry"
FIRST_PAGE, PAGE, PAGES = 20, 500, 40
LONGEST_RUN = timedelta(days=1)
STEP, RUN, CHECK = "step ", "run ", "check "
RUN_TODO = "put right what the sentence names, then run the date again; what is held is not fetched twice."
DEFECT_TODO = "keep the run's log and report it as a defect of RingCX Archive; other dates are not touched by it."
CHECK_TODO = {
    "every_link_is_held": (
        "open the check of the date: it counts the reasons and names up to twenty recordings. Run the date again; final"
        " states are tried again with `retry_final: true` on the asset recordings."
    ),
    "report_is_plausible": "compare the report with the RingCX administration; if rows are missing, run it again.",
    "mono_and_stereo_agree": "see that the account has both kinds of recording switched on, then run the date again.",
    "audio_is_true": "listen to the recordings that the check names; the source may have recorded silence.",
    "nothing_is_overdue": "run the dates that the check names, those with the fewest days left before the purge first.",
}
OTHER_CHECK_TODO = "open the check; its description says what it compares and its tables what it found."


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a tick looks at."""

    instance: DagsterInstance
    checks: Sequence[AssetCheckKey]
    ui_url: str | None
    now: datetime


Read = Callable[[_Seen, Memory], Found]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def alert_sensors(clock: Callable[[], datetime] = _utc_now) -> list[SensorDefinition]:
    """The sensors that tell people: one for failed runs, one for failing checks."""
    return [
        _alert_sensor("alert_run_failures", "Tells the people of ALERT_URLS about failed runs.", _failed_runs, clock),
        _alert_sensor("alert_failing_checks", "Tells the people of ALERT_URLS about failing checks.", _checks, clock),
    ]


def _alert_sensor(name: str, description: str, read: Read, clock: Callable[[], datetime]) -> SensorDefinition:
    @sensor(name=name, minimum_interval_seconds=60, default_status=DefaultSensorStatus.RUNNING, description=description)
    def tick(context: SensorEvaluationContext) -> SkipReason:
        settings = load(AlertSettings)
        try:
            destinations = Destinations(settings.alert_urls)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        if not destinations:
            return SkipReason("Nobody is told: ALERT_URLS is not set (see .env.example).")
        kept = context.instance.daemon_cursor_storage
        key = f"ringcx_archive/{name}"
        memory = Memory.of(kept.get_cursor_values({key}).get(key))

        def keep() -> None:
            kept.set_cursor_values({key: memory.text()})

        # Kept before anything is sent: a tick that dies in between sends a message twice, and never none.
        graph = context.repository_def.asset_graph if context.repository_def else None
        checks = sorted(graph.asset_check_keys) if graph else []
        seen = _Seen(context.instance, checks, settings.alert_ui_url, clock())
        composed = memory.take(read(seen, memory), seen.now)
        keep()
        try:
            delivered = destinations.deliver(memory, keep)
        except AlertsFailed as failed:
            raise AlertsFailed(str(failed)) from None
        waiting = f", {len(memory.outbox)} waiting" if memory.outbox else ""
        return SkipReason(
            f"{composed} messages composed, {delivered} delivered{waiting}; {len(memory.told)} problems open."
        )

    return tick


def _failed_runs(seen: _Seen, memory: Memory) -> Found:
    """The failures since the last tick, and those told before that are over."""
    instance = seen.instance
    if memory.position is None:  # what failed before there was anybody to tell is in the UI
        newest = instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=1).records
        memory.position = newest[0].storage_id if newest else 0
    found: Found = {}
    for subject, date, at in memory.open_dates(STEP):
        asset = AssetKey(subject.removeprefix(STEP))
        wanted = AssetRecordsFilter(asset, asset_partitions=[date] if date else None, after_timestamp=at.timestamp())
        if instance.fetch_materializations(wanted, limit=1).records:
            found[problem_key(subject, date)] = None
    for subject, date, at in memory.open_dates(RUN):
        tags = {PARTITION_TAG: date} if date else {}
        succeeded = RunsFilter(
            statuses=[DagsterRunStatus.SUCCESS], job_name=subject.removeprefix(RUN), tags=tags, updated_after=at
        )
        if instance.get_run_records(succeeded, limit=1):
            found[problem_key(subject, date)] = None
    for _ in range(PAGES):
        wanted_runs = RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=memory.position)
        records = instance.fetch_run_status_changes(wanted_runs, limit=PAGE, ascending=True).records
        for record in records:
            memory.position = record.storage_id
            run = instance.get_run_by_id(record.run_id)
            if run is not None and run.tags.get(WILL_RETRY_TAG) != "true":
                found |= {problem.key: problem for problem in _of_run(instance, run, seen.ui_url)}
        if len(records) < PAGE:
            break
    return found


def _of_run(instance: DagsterInstance, run: DagsterRun, ui_url: str | None) -> Iterator[Problem]:
    """A problem for each step that failed; one for the run where none did."""
    date = run.tags.get(PARTITION_TAG, "")
    where = f"{ui_url}/runs/{run.run_id}" if ui_url else f"run {run.run_id} in the Dagster UI"
    steps = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.STEP_FAILURE).records
    for record in steps:
        event = record.event_log_entry.get_dagster_event()
        failure = event.step_failure_data
        told = failure.user_failure_data.description if failure.user_failure_data else None
        error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what a step raises
        yield Problem(
            subject=f"{STEP}{event.step_key}",
            date=date,
            severity=Severity.error,
            # Another error's own text may hold anything, a value of a report too: it stays in the run's log.
            sentence=told or f"It ended with an error that is not foreseen ({error.cls_name if error else 'unknown'}).",
            todo=RUN_TODO if told else DEFECT_TODO,
            where=where,
        )
    if not steps:
        yield Problem(
            subject=f"{RUN}{run.job_name}",
            date=date,
            severity=Severity.error,
            sentence="The run ended before any step said why: its process was killed, or could not start.",
            todo="look at the memory and the disk of the host, then run the date again.",
            where=where,
        )


def _checks(seen: _Seen, memory: Memory) -> Found:
    """The newest word of every check that was evaluated since the last tick; on the first one, of all.

    A record is made when its run begins and filled in when the check is evaluated: what is not filled in yet holds the
    position back, for a day. The event log itself cannot be read in its order: the default storage has a file a run.
    """
    found: Found = {}
    since = newest = memory.position or 0
    unfinished = []
    for key in seen.checks:
        for record in reversed(list(_history(seen.instance, key, since))):
            newest = max(newest, record.id)
            evaluation = record.event and record.event.get_dagster_event()
            if evaluation is not None and evaluation.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
                problem = _of_check(evaluation.asset_check_evaluation_data, record.run_id, seen.ui_url)
                found[problem.key] = None if evaluation.asset_check_evaluation_data.passed else problem
            elif record.create_timestamp > (seen.now - LONGEST_RUN).timestamp():
                unfinished.append(record.id)
    memory.position = min([newest, *(number - 1 for number in unfinished)])
    return found


def _history(instance: DagsterInstance, key: AssetCheckKey, since: int) -> Iterator["AssetCheckExecutionRecord"]:
    """The records of a check after `since`, the newest first."""
    cursor, limit = None, FIRST_PAGE
    for _ in range(PAGES):
        page = instance.event_log_storage.get_asset_check_execution_history(key, limit=limit, cursor=cursor)
        for record in page:
            if record.id <= since:
                return
            yield record
        if len(page) < limit:
            return
        cursor, limit = page[-1].id, PAGE


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
