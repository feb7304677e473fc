"""The restore drill: some of the archive's dates and recordings, chosen at random, verified with their bytes.

A small sample every day reaches everything in time, and finds a fault of many recordings on the first day.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.keys import verification_key
from pipelines.steps.seal.seal_day import MANIFESTS
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Reading, date_of
from pipelines.steps.verify.report import DayResult, Discrepancy

_DATES = 20  # the recordings of a drill come from so many dates, or from more where these have too few
_MOST_DATES = 100


def sealed_dates(bucket: Bucket) -> list[date]:
    """Return all dates that were ever sealed: a date whose manifests were removed still has attestations."""
    folders = (f"{bucket.prefix}manifests/", f"{bucket.prefix}witnesses/{MANIFESTS}/")
    return sorted({day for folder in folders for name in bucket.list_folders(folder) if (day := date_of(name))})


def drill(archive: Archive, days: Sequence[date], seed: str, add: Callable[[Discrepancy], None]) -> Iterator[DayResult]:
    """Verify some of `days`, reading ARCHIVE_DRILL_RECORDINGS recordings in all, or ARCHIVE_DRILL_SHARE of all of them.

    A share is drawn from the dates and from each date's recordings alike: 0.01 is a tenth of a tenth.
    """
    share, left = archive.settings.archive_drill_share, archive.settings.archive_drill_recordings
    order = sorted(days)
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample, printed with its seed
    if share is not None:
        root = math.sqrt(share)
        for day in sorted(order[: max(1, round(root * len(order)))]):
            yield from verify_days(archive, day, day, Reading(root, None, seed), add=add)
        return
    for number, day in enumerate(order[:_MOST_DATES]):
        if left <= 0:
            return
        limit = math.ceil(left / max(1, min(_DATES, len(order)) - number))
        for result in verify_days(archive, day, day, Reading(1.0, limit, seed), add=add):
            left -= result.read
            yield result


def store_result(bucket: Bucket, day: date, document: str, now: datetime) -> str:
    """Store a drill's result, create-only, and return its key; `day` is the local day of `now`."""
    key = verification_key(bucket.prefix, day, str(ULID.from_datetime(now)))
    bucket.put_new(key, document.encode(), content_type="application/json")
    return key
