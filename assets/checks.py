"""The checks that show, per date and over all dates, whether the archive is complete. What they judge is in the steps.

None of them blocks or fails a run: a gap is shown, and what can still be archived is archived.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    DailyPartitionsDefinition,
    MetadataValue,
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
from pipelines.steps.check.completeness import every_link_is_held
from pipelines.steps.check.event_delivery import every_event_arrived
from pipelines.steps.check.findings import Finding, Level
from pipelines.steps.check.overdue import Standing, no_overdue_recordings
from pipelines.steps.check.report_agreement import mono_and_stereo_agree
from pipelines.steps.check.row_counts import report_is_plausible
from pipelines.steps.link.rows import EVENTS

RECORDINGS = AssetKey("recordings")
# After everything else that a run could do instead: no recording waits for a check.
LAST = {"dagster/priority": "-1"}

_DESCRIPTIONS = {
    "report_is_plausible": (
        "The report looks like its whole day: against the same weekday of the last weeks, earlier pulls of the date, "
        "rows that vanished, and the calls that the other report knows."
    ),
    "every_link_is_held": (
        "Every recording that the date's reports name is held, or it is said why not: found = archived + explained. "
        "Fails for lost, late and unknown recordings, for objects that are gone from the bucket, and for a date whose "
        "reports were not pulled: that one is never complete."
    ),
    "mono_and_stereo_agree": (
        "Each connected call has a mono recording and each agent leg a stereo one, where the account has those "
        "recordings; and both reports know the same calls."
    ),
    "audio_is_true": ("The audio is what the report says: its length agrees, it is not empty, no channel is silent."),
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

Judge = Callable[[AssetCheckExecutionContext, Services, date], Finding]


def completeness_checks(
    partitions: DailyPartitionsDefinition, reports: Sequence[ReportName], *, events: bool = False
) -> list[AssetChecksDefinition]:
    """All checks, given which reports there are.

    Those of a date are partitioned as their asset is; `no_overdue_recordings` looks at all dates.
    """
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this pinned Dagster: known, measured, and no news to a user.
        warnings.simplefilter("ignore", PreviewWarning)
        return [*(_of_date(*one, partitions) for one in _checks_of_a_date(reports, events=events)), _standing()]


def _checks_of_a_date(reports: Sequence[ReportName], *, events: bool) -> Iterator[tuple[AssetKey, str, Judge]]:
    for report in reports:
        yield AssetKey(report), "report_is_plausible", partial(_of_calls, partial(report_is_plausible, report=report))
    yield RECORDINGS, "every_link_is_held", _every_link_is_held
    yield RECORDINGS, "audio_is_true", lambda _, services, day: audio_is_true(services.ledger, day)
    if set(LEGACY) <= set(reports):
        yield RECORDINGS, "mono_and_stereo_agree", partial(_of_calls, mono_and_stereo_agree)
    if events:
        yield AssetKey(EVENTS), "every_event_arrived", partial(_of_calls, every_event_arrived)


def _of_date(asset: AssetKey, name: str, judge: Judge, partitions: DailyPartitionsDefinition) -> AssetChecksDefinition:
    @asset_check(asset=asset, name=name, partitions_def=partitions, description=_DESCRIPTIONS[name], op_tags=LAST)
    def check(context: AssetCheckExecutionContext, services: ResourceParam[Services]) -> AssetCheckResult:
        return _told(lambda: judge(context, services, date.fromisoformat(context.partition_key)))

    return check


def _standing() -> AssetChecksDefinition:
    @asset_check(asset=RECORDINGS, name=STANDING_CHECK, description=_DESCRIPTIONS[STANDING_CHECK], op_tags=LAST)
    def check(context: AssetCheckExecutionContext, services: ResourceParam[Services]) -> AssetCheckResult:
        busy = {date.fromisoformat(one) for one in unfinished_dates(context.instance)}
        return _told(lambda: _no_overdue_recordings(services, busy))

    return check


def _of_accounts(services: Services) -> dict[str, Any]:
    known = services.settings
    return {"accounts": known.ringcx_account_ids, "zone": known.zone, "now": services.clock()}


def _of_calls(judge: Callable[..., Finding], _: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    return judge(services.ledger, day=day, **_of_accounts(services))


def _every_link_is_held(context: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    return every_link_is_held(
        services.ledger,
        services.bucket,
        day,
        **_of_accounts(services),
        reports=services.settings.reports,
        first=services.settings.archive_start_date,
        rules=services.rules,
        run_id=context.run.run_id,
    )


def _no_overdue_recordings(services: Services, busy: set[date]) -> Finding:
    known = services.settings
    standing = Standing(
        accounts=known.ringcx_account_ids,
        reports=known.reports,
        zone=known.zone,
        start=known.archive_start_date,
        rules=services.rules,
        retention_days=known.ringcx_retention_days,
        margin_days=known.ringcx_retention_margin_days,
    )
    return no_overdue_recordings(services.ledger, services.ledger_parts, standing, busy=busy, now=services.clock())


def _told(judge: Callable[[], Finding]) -> AssetCheckResult:
    """The finding as the UI shows it; `doubtful` is a warning, `bad` an error.

    A check that cannot judge is not passed either, and leaves the run alone, which has archived what it could.
    """
    try:
        finding = judge()
    except EXPECTED as error:
        return AssetCheckResult(passed=False, severity=AssetCheckSeverity.ERROR, description=f"Not judged: {error}")
    return AssetCheckResult(
        passed=finding.level is Level.good,
        severity=AssetCheckSeverity.ERROR if finding.level is Level.bad else AssetCheckSeverity.WARN,
        description=finding.sentence,
        metadata={
            **{name: MetadataValue.int(count) for name, count in finding.counts.items()},
            **{name: table(one.columns, one.rows) for name, one in finding.tables.items()},
        },
    )
