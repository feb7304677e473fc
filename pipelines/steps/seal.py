"""What a date holds, written down: its sealed manifest and its part of the catalog.

Totals say for each report whether the date was pulled at all: a date nobody asked about must not look like a quiet one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from pipelines.archive.bucket import Bucket
from pipelines.archive.manifest import ManifestEntry, Sealed, seal, write_catalog
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.steps.links import REPORTS


@dataclass(frozen=True, slots=True)
class SealedDay:
    """A date's manifest, the key of its part of the catalog, and the states they were made from."""

    manifest: Sealed
    catalog: str
    states: tuple[RecordingState, ...]


def seal_day(ledger: Ledger, bucket: Bucket, day: date, *, now: datetime, run_id: str) -> SealedDay:
    """Seal what the ledger knows of the recordings dated `day`; the same content again makes no new manifest."""
    states = tuple(ledger.states([day]).values())
    entries = [_entry(state) for state in states]
    totals = _totals(states) | _rows(ledger, day)
    manifest = seal(bucket, day, entries, totals, run_id=run_id, sealed_at=now)
    return SealedDay(manifest, write_catalog(bucket, day, entries), states)


def _totals(states: Iterable[RecordingState]) -> dict[str, int]:
    by_status = Counter(state.status for state in states)
    size = sum(state.size or 0 for state in states)
    return {"found": by_status.total(), "bytes": size, **{str(status): by_status[status] for status in Status}}


def _rows(ledger: Ledger, day: date) -> dict[str, int]:
    """For each report that was pulled, the rows of the newest pull of every account."""
    rows: dict[str, int] = {}
    for report in REPORTS:
        newest = {pull.account_id: pull.rows for pull in ledger.pulls(report, day)}
        if newest:
            rows[f"rows_{report}"] = sum(newest.values())
    return rows


def _entry(state: RecordingState) -> ManifestEntry:
    return ManifestEntry(
        recording_id=state.recording_id,
        account_id=state.account_id,
        uii=state.uii,
        layout=state.layout,
        source=state.source,
        status=str(state.status),
        reason=state.reason,
        started_at=state.started_at,
        duration_s=state.duration_s,
        key=state.key,
        size=state.size,
        sha256=state.sha256,
        version_id=state.version_id,
        warnings=state.warnings,
    )
