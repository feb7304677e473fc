"""What a date holds, written down: its sealed manifest and its part of the catalog.

Totals say for each report whether the date was pulled at all: a date nobody asked about must not look like a quiet one.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from pipelines.archive.bucket import Bucket
from pipelines.archive.keys import manifest_key
from pipelines.archive.manifest import ManifestEntry, Sealed, manifest_numbers, seal, write_catalog
from pipelines.archive.signature import Signer, sign_manifest
from pipelines.archive.witness import Seen, read_witnesses, write_witness
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import REPORTS, ReportName

MANIFESTS = "manifests"
"""The kind of witness that lists manifests; the other kinds are the ledger's folders."""

# A run of the day before may append to this date while it is sealed: then what was read is old, and is read again.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class SealedDay:
    """A date's manifest, the key of its part of the catalog, and the states they were made from.

    `witnessed`: how many manifests and ledger parts were written down for the first time.
    """

    manifest: Sealed
    catalog: str
    states: tuple[RecordingState, ...]
    witnessed: int


def seal_day(
    ledger: Ledger,
    parts: LedgerParts,
    bucket: Bucket,
    day: date,
    *,
    now: datetime,
    run_id: str,
    signer: Signer | None = None,
) -> SealedDay:
    """Seal what the ledger knows of the recordings dated `day`; the same content again makes no new manifest.

    With a `signer` the manifest is signed, also one that an earlier run left unsigned. Manifests and ledger parts that
    no witness names yet get one.
    """
    names = parts.names(day)
    for _ in range(_TRIES):
        known = ledger.names([day])
        states = tuple(one for one in known.values() if one.same_as is None)
        entries = [entry_of(state) for state in states]
        totals = _totals(states) | rows_pulled(pulls_of(ledger, day))
        manifest = seal(bucket, day, entries, totals, run_id=run_id, sealed_at=now)
        catalog = write_catalog(bucket, day, entries, _other_names(known.values()))
        before, names = names, parts.names(day)
        if names == before:
            break
    if signer is not None:
        sign_manifest(bucket, signer, manifest)
    return SealedDay(manifest, catalog, states, _witness(parts, bucket, day, names, now=now))


def seal_neighbours(
    ledger: Ledger,
    parts: LedgerParts,
    bucket: Bucket,
    days: Iterable[date],
    *,
    now: datetime,
    run_id: str,
    signer: Signer | None = None,
) -> list[date]:
    """Seal the other dates that a run appended to, where they were sealed before.

    A call over midnight is found by one day's pull and stored under the next: without this the next day's manifest
    would be out of date until its own next run. A date never sealed waits for its own first run.

    Returns: the dates that got a new manifest.
    """
    changed = []
    for day in sorted(days):
        if manifest_numbers(bucket, day):
            sealed = seal_day(ledger, parts, bucket, day, now=now, run_id=run_id, signer=signer)
            if not sealed.manifest.unchanged:
                changed.append(day)
    return changed


def _other_names(known: Iterable[RecordingState]) -> dict[str, list[str]]:
    """Recording id -> the ids that the other source knows it by."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for one in known:
        if one.same_as is not None:
            names[one.same_as].append(one.recording_id)
    return dict(names)


def entry_of(state: RecordingState) -> ManifestEntry:
    """What a manifest says of a recording in this state."""
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


def pulls_of(ledger: Ledger, day: date) -> dict[ReportName, list[PullRecord]]:
    """The pulls of each report for a date, in the order of pulling; empty where there was none."""
    return {report: ledger.pulls(report, day) for report in REPORTS}


def rows_pulled(pulls: Mapping[ReportName, Sequence[PullRecord]]) -> dict[str, int]:
    """For each report that was pulled, the rows of the newest pull of every account."""
    rows: dict[str, int] = {}
    for report, of_report in pulls.items():
        newest = {pull.account_id: pull.rows for pull in of_report}
        if newest:
            rows[f"rows_{report}"] = sum(newest.values())
    return rows


def _totals(states: Iterable[RecordingState]) -> dict[str, int]:
    by_status = Counter(state.status for state in states)
    size = sum(state.size or 0 for state in states)
    return {"found": by_status.total(), "bytes": size, **{str(status): by_status[status] for status in Status}}


def _witness(parts: LedgerParts, bucket: Bucket, day: date, names: dict[str, list[str]], *, now: datetime) -> int:
    """Write down what no witness names yet. Manifests last: they are what this run itself has made."""
    written = 0
    manifests = [manifest_key(bucket.prefix, day, number) for number in manifest_numbers(bucket, day)]
    for kind, found in (*names.items(), (MANIFESTS, manifests)):
        known, _ = read_witnesses(bucket, kind, day)
        fresh = []
        for name in found:
            shown = name.removeprefix(bucket.prefix) if kind == MANIFESTS else name
            if shown not in known:
                body = bucket.get_bytes(name) if kind == MANIFESTS else parts.read(name)
                fresh.append(Seen(shown, len(body), hashlib.sha256(body).hexdigest()))
        write_witness(bucket, kind, day, fresh, now=now)
        written += len(fresh)
    return written
