"""The status of dates: what each holds and lacks, as `ringcx-archive status` and `metrics` show it."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from pipelines.archive.bucket import Bucket
from pipelines.calendar import dates_between, local_day
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import judge_date
from pipelines.steps.parallel import map_in_order

_READERS = 4  # dates at once: each holds its recordings in memory


def kept_dates(settings: VerifySettings, today: date) -> tuple[date, date]:
    """Return the first and the last date that RingCX still keeps, up to yesterday."""
    kept = today - timedelta(days=settings.ringcx_retention_days - 1)
    yesterday = today - timedelta(days=1)
    return min(max(settings.archive_start_date, kept), yesterday), yesterday


def status(
    ledger: Ledger, bucket: Bucket, settings: VerifySettings, first: date, last: date, *, now: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the status of each date, as in the JSON document; a damaged date is unknown, and does not stop others."""
    today = local_day(now, settings.zone)

    def of_date(day: date) -> dict[str, Any]:
        found = judge_date(ledger, bucket, day, settings, now=now)
        counted = {
            "held": found.held,
            "held_bytes": found.held_bytes,
            "waiting": found.counts["waiting"],
            "next_at": found.next_at and found.next_at.isoformat(),
            "late": found.counts["overdue"] + found.counts["stuck"],
        }
        if found.damage:
            counted = dict.fromkeys(counted)
        return {
            "date": str(day),
            "verdict": found.verdict,
            "expected": found.expected,
            **counted,
            "lost": found.lost,
            "accepted_losses": None if found.damage else len(found.accepted),
            "not_pulled": [str(gap) for gap in found.not_pulled],
            "sentence": found.sentence,
            "days_left": max(settings.ringcx_retention_days - (today - day).days, 0),
        }

    for _, row in map_in_order(of_date, dates_between(first, last), threads=_READERS):
        yield row
