"""The checks that show, per date and over all dates, whether the archive is complete. What they judge is in the steps.

None of them blocks or fails a run: a gap is shown, and what can still be archived is archived.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    DailyPartitionsDefinition,
    PreviewWarning,
    ResourceParam,
    asset_check,
)

from assets.presentation import table
from pipelines.orchestration.failures import EXPECTED
from pipelines.orchestration.jobs import STANDING_CHECK
from pipelines.orchestration.resources import Services
from pipelines.orchestration.run_requests import unfinished_dates
from pipelines.ringcx.reports.columns import LEGACY, ReportName
from pipelines.steps.check.audio import audio_is_true
from pipelines.steps.check.event_delivery import every_event_arrived
from pipelines.steps.check.overdue import no_overdue_recordings
from pipelines.steps.check.report_agreement import mono_and_stereo_agree
from pipelines.steps.check.result import CheckResult, Level
from pipelines.steps.check.row_counts import report_is_plausible
from pipelines.steps.check.verdict import every_recording_is_accounted_for, judge_date
from pipelines.steps.link.rows import EVENTS

RECORDINGS = AssetKey("recordings")
VERDICT = "verdict"
# After everything else that a run could do instead: no recording waits for a check.
LAST = {"dagster/priority": "-1"}

_DESCRIPTIONS = {
    "report_is_plausible": (
        "The report looks like its whole day: compared with the same weekday of the last weeks, earlier pulls of the "
        "date, rows that vanished, and the calls that the other report has."
    ),
    "every_recording_is_accounted_for": (
        "Every recording that the date's reports name is archived, or the reason is known: found = archived + "
        "explained. Fails for lost, late and unknown recordings, for objects that are gone from the bucket, and for a "
        "date whose reports were not pulled: that one is never complete."
    ),
    "mono_and_stereo_agree": (
        "Each connected call has a mono recording and each agent leg a stereo one, where the account has those "
        "recordings; and both reports have the same calls."
    ),
    "audio_is_true": "The audio is what the report says: its length agrees, it is not empty, no channel is silent.",
    "every_event_arrived": (
        "Calls with a recording in Global Call Type Detail have an End Call Event, and the reverse. A lost event costs "
        "time and no recording: the report names it too."
    ),
    STANDING_CHECK: (
        "Over all dates: what is missing now, and which pending recordings the source will purge soon "
        "(`RINGCX_RETENTION_DAYS`). Fails when recordings are late, about to be purged, or lost while the source "
        "should still have them."
    ),
}

Check = Callable[[AssetCheckExecutionContext, Services], CheckResult]


def completeness_checks(
    partitions: DailyPartitionsDefinition, reports: Sequence[ReportName], *, events: bool = False
) -> list[AssetChecksDefinition]:
    """Define all checks, given which reports there are.

    Those of a date are partitioned as their asset is; `no_overdue_recordings` reads all dates.
    """
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this pinned Dagster: known, measured, and no news to a user.
        warnings.simplefilter("ignore", PreviewWarning)
        of_date = [_define(*check, partitions) for check in _checks_of_a_date(reports, events=events)]
        return [*of_date, _define(RECORDINGS, STANDING_CHECK, _no_overdue_recordings)]


def _checks_of_a_date(reports: Sequence[ReportName], *, events: bool) -> Iterator[tuple[AssetKey, str, Check]]:
    for report in reports:
        yield AssetKey(report), "report_is_plausible", partial(_of_rows, partial(report_is_plausible, report=report))
    yield RECORDINGS, "every_recording_is_accounted_for", _every_recording_is_accounted_for
    yield RECORDINGS, "audio_is_true", lambda context, services: audio_is_true(services.ledger, _day(context))
    if set(LEGACY) <= set(reports):
        yield RECORDINGS, "mono_and_stereo_agree", partial(_of_rows, mono_and_stereo_agree)
    if events:
        yield AssetKey(EVENTS), "every_event_arrived", partial(_of_rows, every_event_arrived)


def _day(context: AssetCheckExecutionContext) -> date:
    return date.fromisoformat(context.partition_key)


def _of_rows(check: Callable[..., CheckResult], context: AssetCheckExecutionContext, services: Services) -> CheckResult:
    return check(services.ledger, day=_day(context), settings=services.settings, now=services.clock())


def _every_recording_is_accounted_for(context: AssetCheckExecutionContext, services: Services) -> CheckResult:
    stores = services.ledger, services.bucket
    return every_recording_is_accounted_for(
        judge_date(*stores, _day(context), services.settings, now=services.clock(), run_id=context.run.run_id)
    )


def _no_overdue_recordings(context: AssetCheckExecutionContext, services: Services) -> CheckResult:
    busy = {date.fromisoformat(day) for day in unfinished_dates(context.instance)}
    parts = services.ledger, services.ledger_parts, services.settings
    return no_overdue_recordings(*parts, busy=busy, now=services.clock())


def _define(
    asset: AssetKey, name: str, check: Check, partitions: DailyPartitionsDefinition | None = None
) -> AssetChecksDefinition:
    """Define a check. One that cannot judge does not pass, and does not fail the run, which archives what it can."""

    @asset_check(asset=asset, name=name, partitions_def=partitions, description=_DESCRIPTIONS[name], op_tags=LAST)
    def define(context: AssetCheckExecutionContext, services: ResourceParam[Services]) -> AssetCheckResult:
        try:
            result = check(context, services)
        except EXPECTED as error:
            return AssetCheckResult(
                passed=False, severity=AssetCheckSeverity.ERROR, description=f"This could not be checked: {error}"
            )
        return AssetCheckResult(
            passed=result.level is Level.ok,
            severity=AssetCheckSeverity.ERROR if result.level is Level.error else AssetCheckSeverity.WARN,
            description=result.sentence,
            metadata={
                **({VERDICT: str(result.verdict)} if result.verdict else {}),
                **result.counts,
                **{
                    name: table(list(rows.columns), rows.astype(object).to_numpy().tolist())
                    for name, rows in result.tables.items()
                    if len(rows)
                },
            },
        )

    return define
