"""The checks that show, per date and over all dates, whether the archive is complete. What they judge is in the steps.

None of them blocks or fails a run: a gap is shown, and what can still be archived is archived.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date

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
from pipelines.failures import EXPECTED
from pipelines.jobs import STANDING_CHECK
from pipelines.resources import Services
from pipelines.ringcx.columns import LEGACY, ReportName
from pipelines.run_requests import unfinished_dates
from pipelines.steps.agreement import mono_and_stereo_agree
from pipelines.steps.arrivals import every_event_arrived
from pipelines.steps.audio import audio_is_true
from pipelines.steps.completeness import every_link_is_held
from pipelines.steps.findings import Finding, Level
from pipelines.steps.overdue import Standing, nothing_is_overdue
from pipelines.steps.plausibility import report_is_plausible
from pipelines.steps.rows import EVENTS

RECORDINGS = AssetKey("recordings")
# After everything else that a run could do instead: no recording waits for a check.
LAST = {"dagster/priority": "-1"}

Judge = Callable[[AssetCheckExecutionContext, Services, date], Finding]


def completeness_checks(
    partitions: DailyPartitionsDefinition, reports: Sequence[ReportName], *, events: bool = False
) -> list[AssetChecksDefinition]:
    """All checks, given which reports there are.

    Those of a date are partitioned as their asset is; `nothing_is_overdue` looks at all dates.
    """
    with _partitioned_checks_are_meant():
        of_a_date = [
            *(_of_report(report, partitions) for report in reports),
            _of_date(
                RECORDINGS,
                "every_link_is_held",
                _every_link_is_held,
                partitions,
                "Every recording that the date's reports name is held, or it is said why not: found = archived + "
                "explained. Fails for lost, late and unknown recordings, for objects that are gone from the bucket, "
                "and for a date whose reports were not pulled: that one is never complete.",
            ),
            *([_agreement(partitions)] if set(LEGACY) <= set(reports) else []),
            _of_date(
                RECORDINGS,
                "audio_is_true",
                _audio_is_true,
                partitions,
                "The audio is what the report says: its length agrees, it is not empty, no channel is silent.",
            ),
            *(
                [
                    _of_date(
                        AssetKey(EVENTS),
                        "every_event_arrived",
                        _every_event_arrived,
                        partitions,
                        "Calls with a recording in Global Call Type Detail have an End Call Event, and the reverse. A "
                        "lost event costs time and no recording: the report names it too.",
                    )
                ]
                if events
                else []
            ),
        ]
    return [*of_a_date, _standing()]


def _agreement(partitions: DailyPartitionsDefinition) -> AssetChecksDefinition:
    return _of_date(
        RECORDINGS,
        "mono_and_stereo_agree",
        _mono_and_stereo_agree,
        partitions,
        "Each connected call has a mono recording and each agent leg a stereo one, where the account has those "
        "recordings; and both reports know the same calls.",
    )


@contextmanager
def _partitioned_checks_are_meant() -> Iterator[None]:
    """Partitioned checks are a preview in this pinned Dagster: known, measured, and no news to a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreviewWarning)
        yield


def _of_report(report: ReportName, partitions: DailyPartitionsDefinition) -> AssetChecksDefinition:
    def judge(_: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
        return report_is_plausible(
            services.ledger,
            report,
            day,
            accounts=services.settings.ringcx_account_ids,
            zone=services.settings.zone,
            now=services.clock(),
        )

    return _of_date(
        AssetKey(report),
        "report_is_plausible",
        judge,
        partitions,
        "The report looks like its whole day: against the same weekday of the last weeks, earlier pulls of the date, "
        "rows that vanished, and the calls that the other report knows.",
    )


def _of_date(
    asset: AssetKey, name: str, judge: Judge, partitions: DailyPartitionsDefinition, description: str
) -> AssetChecksDefinition:
    @asset_check(asset=asset, name=name, partitions_def=partitions, description=description, op_tags=LAST)
    def check(context: AssetCheckExecutionContext, services: ResourceParam[Services]) -> AssetCheckResult:
        return _told(lambda: judge(context, services, date.fromisoformat(context.partition_key)))

    return check


def _standing() -> AssetChecksDefinition:
    @asset_check(
        asset=RECORDINGS,
        name=STANDING_CHECK,
        description=(
            "Over all dates: what is missing now, and which pending recordings the source will purge soon "
            "(`RINGCX_RETENTION_DAYS`). Fails when recordings are late, about to be purged, or lost while the source "
            "should still have them."
        ),
        op_tags=LAST,
    )
    def check(context: AssetCheckExecutionContext, services: ResourceParam[Services]) -> AssetCheckResult:
        busy = {date.fromisoformat(one) for one in unfinished_dates(context.instance)}
        return _told(lambda: _nothing_is_overdue(services, busy))

    return check


def _nothing_is_overdue(services: Services, busy: set[date]) -> Finding:
    known = services.settings
    standing = Standing(
        memory=known.data_dir / "nothing_is_overdue.json",
        ledger_url=known.ledger,
        accounts=known.ringcx_account_ids,
        reports=known.reports,
        zone=known.zone,
        start=known.archive_start_date,
        rules=services.rules,
        retention_days=known.ringcx_retention_days,
        margin_days=known.ringcx_retention_margin_days,
    )
    return nothing_is_overdue(services.ledger, services.ledger_parts, standing, busy=busy, now=services.clock())


def _every_link_is_held(context: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    return every_link_is_held(
        services.ledger,
        services.bucket,
        day,
        accounts=services.settings.ringcx_account_ids,
        reports=services.settings.reports,
        zone=services.settings.zone,
        first=services.settings.archive_start_date,
        rules=services.rules,
        now=services.clock(),
        run_id=context.run.run_id,
    )


def _mono_and_stereo_agree(_: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    known = services.settings
    return mono_and_stereo_agree(
        services.ledger, day, accounts=known.ringcx_account_ids, zone=known.zone, now=services.clock()
    )


def _audio_is_true(_: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    return audio_is_true(services.ledger, day)


def _every_event_arrived(_: AssetCheckExecutionContext, services: Services, day: date) -> Finding:
    known = services.settings
    return every_event_arrived(
        services.ledger, day, accounts=known.ringcx_account_ids, zone=known.zone, now=services.clock()
    )


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
