"""The checks that show, per date and over all dates, whether the archive is complete. None blocks a run or fails it."""

from collections.abc import Callable
from datetime import date
from functools import partial

import dagster as dg

from assets.presentation import calls_page, listing, table
from pipelines.errors import ExpectedError
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore
from pipelines.orchestration.run_requests import unfinished_dates
from pipelines.ringcx.reports.columns import AGENT, EVENTS, GLOBAL, INTERACTIONS, ReportName
from pipelines.steps.check import all_dates, audio, event_delivery, report_agreement, row_counts, verdict
from pipelines.steps.check.result import CheckResult, Level

RECORDINGS = dg.AssetKey("recordings")
# The lowest priority, so that no recording waits for a check.
LAST = {"dagster/priority": "-1"}
_ACCOUNTED_FOR = "every_recording_is_accounted_for"
_TO_DO = {
    _ACCOUNTED_FOR: (
        "open the check of the date: it counts the reasons and lists the recordings. Run the date again; final states "
        "are tried again with `retry_final: true` on the asset recordings. A permanent loss can be accepted with the "
        "job accept_losses."
    ),
    "report_is_plausible": "compare the report with the RingCX admin console; run the date again if rows are missing.",
    "mono_and_stereo_agree": "check that the account has mono and stereo recording enabled, then run the date again.",
    "audio_is_true": "listen to the recordings that the check names; the source may have recorded silence.",
    "every_event_arrived": "if many events are lost, check the receiver; if the report lacks calls, run the date.",
    "no_overdue_recordings": "run the dates that the check names, the oldest first.",
}


def _of_a_date(asset: str, name: str, step: Callable[..., CheckResult], description: str) -> dg.AssetChecksDefinition:
    """Return a check of a date that runs `step`, which reads the ledger."""

    @dg.asset_check(asset=dg.AssetKey(asset), name=name, description=description, op_tags=LAST)
    def check(
        context: dg.AssetCheckExecutionContext, environment: EnvironmentParam, ledger: LedgerStore
    ) -> dg.AssetCheckResult:
        day = date.fromisoformat(context.partition_key)
        now, run_id = environment.clock(), context.run.run_id
        return _result(name, run_id, lambda: step(ledger.open(), day, environment.settings, now=now))

    return check


def _is_plausible(report: ReportName) -> dg.AssetChecksDefinition:
    return _of_a_date(
        report,
        "report_is_plausible",
        partial(row_counts.report_is_plausible, report=report),
        "The report seems to cover its whole day. Compares row counts with the same weekday in recent weeks and with "
        "earlier pulls of the date.",
    )


agent_segment_metadata_is_plausible = _is_plausible(AGENT)
global_call_type_detail_is_plausible = _is_plausible(GLOBAL)
interaction_metadata_is_plausible = _is_plausible(INTERACTIONS)
mono_and_stereo_agree = _of_a_date(
    "recordings",
    "mono_and_stereo_agree",
    report_agreement.mono_and_stereo_agree,
    "Each connected call has a mono recording and each agent leg a stereo one, if the account has such recordings; "
    "and both reports have the same calls.",
)
audio_is_true = _of_a_date(
    "recordings",
    "audio_is_true",
    lambda ledger, day, *_, **__: audio.audio_is_true(ledger, day),
    "The audio has the reported length, is not empty, has no silent channel, and is not the audio of another call.",
)
every_event_arrived = _of_a_date(
    EVENTS,
    "every_event_arrived",
    event_delivery.every_event_arrived,
    "Every call with a recording in Global Call Type Detail has an End Call Event, and every event has a call in the "
    "report. A lost event delays a recording, but the recording is not lost, because the report names it too.",
)


@dg.asset_check(asset=RECORDINGS, op_tags=LAST)
def every_recording_is_accounted_for(
    context: dg.AssetCheckExecutionContext, environment: EnvironmentParam, ledger: LedgerStore, archive: ArchiveStore
) -> dg.AssetCheckResult:
    """Every recording that the date's reports name is archived, or its loss was accepted.

    Recordings that are not due yet cause a warning. Fails for recordings that are lost, late or without a state, for
    objects that are gone from the bucket or changed there, and for a date whose reports were not pulled for the whole
    day, or came empty although other sources name calls.
    """
    day, run_id = date.fromisoformat(context.partition_key), context.run.run_id

    def check() -> CheckResult:
        settings, now = environment.settings, environment.clock()
        return verdict.every_recording_is_accounted_for(
            verdict.judge_date(ledger.open(), archive.open(), day, settings, now=now, run_id=run_id)
        )

    return _result(_ACCOUNTED_FOR, run_id, check, lambda: calls_page(environment.settings, day))


@dg.asset_check(asset=RECORDINGS, op_tags=LAST)
def no_overdue_recordings(
    context: dg.AssetCheckExecutionContext, environment: EnvironmentParam, ledger: LedgerStore
) -> dg.AssetCheckResult:
    """Over all dates, no recording is late, about to be purged by the source (`RINGCX_RETENTION_DAYS`), or lost while
    the source should still have it. Warns about recordings lost for good and dates never pulled for the whole day.
    """
    busy = {date.fromisoformat(day) for day in unfinished_dates(context.instance)}

    def check() -> CheckResult:
        now = environment.clock()
        return all_dates.no_overdue_recordings(ledger.open(), environment.settings, busy=busy, now=now)

    return _result("no_overdue_recordings", context.run.run_id, check)


OF_A_DATE = (
    *(agent_segment_metadata_is_plausible, global_call_type_detail_is_plausible, interaction_metadata_is_plausible),
    *(every_recording_is_accounted_for, audio_is_true, mono_and_stereo_agree, every_event_arrived),
)


def evaluation(of_date: verdict.DateVerdict, run_id: str) -> dg.AssetCheckEvaluation:
    """Return what `every_recording_is_accounted_for` would report, for a job that changed the verdict."""
    result = _result(_ACCOUNTED_FOR, run_id, lambda: verdict.every_recording_is_accounted_for(of_date))
    return dg.AssetCheckEvaluation(
        RECORDINGS,
        _ACCOUNTED_FOR,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        partition=of_date.date.isoformat(),
    )


def _result(
    name: str, run_id: str, check: Callable[[], CheckResult], links: Callable[[], dict[str, dg.MetadataValue]] = dict
) -> dg.AssetCheckResult:
    """Return the result as the UI shows it. A check that cannot run does not pass, but does not fail the run."""
    try:
        result, metadata = check(), {**links()}
    except ExpectedError as error:
        sentence = f"This could not be checked: {error}"
        result, metadata = CheckResult(level=Level.error, sentence=sentence, counts={}), {}
    if result.verdict:
        metadata["verdict"] = dg.MetadataValue.text(str(result.verdict))
    if result.level is not Level.ok:
        metadata["to_do"] = dg.MetadataValue.text(_TO_DO[name])
    metadata |= {count: dg.MetadataValue.int(number) for count, number in result.counts.items() if number}
    metadata |= {name: dg.MetadataValue.float(float(total)) for name, total in result.totals.items()}  # to plot
    for title, rows in result.tables.items():
        if len(rows):
            metadata[title] = table(list(rows.columns), rows.to_numpy(object).tolist())
    for title, rows in result.lists.items():
        if len(rows):
            metadata[title] = listing(rows)
    return dg.AssetCheckResult(
        passed=result.level is Level.ok,
        severity=dg.AssetCheckSeverity.ERROR if result.level is Level.error else dg.AssetCheckSeverity.WARN,
        description=result.sentence,
        metadata={**metadata, "run": dg.MetadataValue.dagster_run(run_id)},
    )
