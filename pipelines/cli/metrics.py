"""`ringcx-archive metrics`: what `status` reports, as text for Prometheus, without any recording, call or person."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipelines import storage
from pipelines.calendar import local_day
from pipelines.cli.options import Dependencies, file_option, subcommand, whole_file
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.status import kept_dates, status
from pipelines.steps.check.verdict import Verdict

_EXPORTER_READS = 0o644  # node_exporter is another user, and there is no secret in it
_COUNTED_TWICE = "a recording that is found by one date and stored under the next counts for both"
_SUMS = {
    "expected": ("recordings_expected", "Recordings that the dates should hold, where that is known"),
    "held": ("recordings_held", "Recordings archived and still as they were stored"),
    "held_bytes": ("held_bytes", "Bytes of the recordings held"),
    "waiting": ("recordings_waiting", "Recordings whose next attempt is not due yet"),
    "late": ("recordings_overdue", "Recordings whose next attempt is overdue, or that have been retried for too long"),
    "accepted_losses": ("recordings_accepted_as_lost", "Lost recordings whose loss was accepted"),
}


@subcommand("metrics", "metrics --file /var/lib/node_exporter/ringcx_archive.prom")
@file_option("the metrics", "--file", "file")
def command(dependencies: Dependencies, file: Path | None) -> int:
    """Write what `status` reports, for the dates that RingCX still keeps, as text for Prometheus.

    --file is for the textfile collector of node_exporter, which reads the file as another user. Exit code 0: the
    metrics were written, whatever they say.
    """
    settings, now = load(VerifySettings), dependencies.clock()
    bucket, ledger = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    first, last = kept_dates(settings, local_day(now, settings.zone))
    rows = list(status(ledger, bucket, settings, first, last, now=now))
    text = metrics(rows, _waiting(settings.rate_limit_store), now)
    if file is None:
        click.echo(text, nl=False)
    else:
        with whole_file(file) as into:
            os.fchmod(into.fileno(), _EXPORTER_READS)
            into.write(text)
    return 0


def metrics(rows: Iterable[Mapping[str, Any]], waiting: Iterable[tuple[str, str, int]], now: datetime) -> str:
    """Return text for Prometheus, from rows of `status` and from limit, account and number of waiting requests."""
    rows = list(rows)
    registry = CollectorRegistry(auto_describe=False)

    def gauge(name: str, says: str, values: Mapping[Any, float], labels: Sequence[str] = ()) -> None:
        family = Gauge(f"ringcx_archive_{name}", f"{says}.", labels, registry=registry)
        for label_values, value in sorted(values.items()):
            (family.labels(*label_values) if labels else family).set(value)

    verdicts = Counter(row["verdict"] for row in rows)
    gauge("dates", "Dates by verdict", {(verdict,): verdicts[verdict] for verdict in Verdict}, ["verdict"])
    for name, (metric, says) in _SUMS.items():
        gauge(metric, f"{says}; {_COUNTED_TWICE}", {(): sum(row[name] or 0 for row in rows)})
    lost: Counter[str] = Counter()
    for row in rows:
        lost.update(row["lost"])
    by_reason = {(reason,): count for reason, count in lost.items()}
    gauge("recordings_lost", f"Recordings lost, by reason; {_COUNTED_TWICE}", by_reason, ["reason"])
    left = [row["days_left"] for row in rows if row["verdict"] != Verdict.complete]
    if left:
        gauge("days_left", "Days until RingCX purges the oldest date that is not complete", {(): min(left)})
    requests = {(limit, account): count for limit, account, count in waiting}
    gauge("permits_waiting", "Requests that wait for a permit", requests, ["limit", "account"])
    gauge("asked_timestamp_seconds", "When these numbers were read", {(): now.timestamp()})
    return generate_latest(registry).decode()


def _waiting(store: Path | str) -> list[tuple[str, str, int]]:
    """Return limit, account and number of waiting requests; nothing if no request was ever sent."""
    if isinstance(store, Path) and not store.exists():
        return []
    with closing(RateLimiter(store)) as limiter:
        return limiter.waiting()
