"""The sealing of a date: its manifest and its part of the catalog."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.archive.bucket import Bucket
from pipelines.archive.keys import access_prefix, manifest_key
from pipelines.archive.proof.attestation import ACCESS, MANIFESTS, ObservedObject, read_attestations, write_attestation
from pipelines.archive.proof.manifest import AcceptedLoss, ManifestEntry, manifest_numbers
from pipelines.archive.proof.seal import Sealed, catalog_table, seal
from pipelines.archive.proof.signature import Signer, sign_manifest
from pipelines.ledger.schema import values
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import DateVerdict, Verdict, judge_date
from pipelines.steps.link.recordings_table import LedgerSnapshot, RecordingsTable
from pipelines.steps.pull.coverage import Pulls, newest_by_account, pulls_of

_ROUNDS = 5
_ACCESS_DAYS = 3
_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Stores:
    """The ledger that a date is sealed from, and the bucket that it is sealed in."""

    bucket: Bucket
    ledger: Ledger
    settings: VerifySettings


@dataclass(frozen=True, slots=True)
class SealedDay:
    """A date's manifest, and the recordings that it lists."""

    manifest: Sealed
    recordings: RecordingsTable
    verdict: DateVerdict


def seal_day(stores: Stores, day: date, *, now: datetime, run_id: str, signer: Signer | None = None) -> SealedDay:
    """Seal what the ledger knows about the recordings dated `day`; unchanged content makes no new manifest.

    A run of another date may append to this date and seal it too. Each run seals after it has appended, and seals again
    if it then finds new parts, so that the last run to seal has read what the others appended. If another run writes in
    every round, that run's own sealing has its last lines.

    With a `signer`, the manifest is signed, even if an earlier run left it unsigned. Manifests and ledger parts that no
    attestation names yet are attested.
    """
    bucket, ledger = stores.bucket, stores.ledger
    names = sealed_names = ledger.parts.names(day)
    for _ in range(_ROUNDS):
        sealed_names = names
        lines = ledger.current([day])
        recordings = RecordingsTable.of(lines)
        by_status = recordings.by_status()
        verdict = judge_date(ledger, bucket, day, stores.settings, now=now, run_id=run_id)
        totals: dict[str, Any] = {"verdict": verdict.sealed_verdict, "bytes": recordings.size()}
        if verdict.verdict is Verdict.unknown:  # an unpulled date must not look like a quiet one
            totals["not_pulled"] = sorted({gap.report for gap in verdict.not_pulled})
            if verdict.damage:
                totals["damage"] = verdict.damage
        else:
            totals["found"] = by_status.total()
        totals |= {str(status): by_status[status] for status in Status} | rows_pulled(pulls_of(ledger, day))
        if accepted := accepted_on(verdict):
            totals["accepted_losses"] = len(accepted)
        other_names: defaultdict[str, list[str]] = defaultdict(list)
        for name, recording_id in LedgerSnapshot(lines).names.items():
            other_names[recording_id].append(name)
        entry_lines = recordings.lines.select(ManifestEntry._fields).sort_by("recording_id")
        catalog, entries = catalog_table(entry_lines, other_names, totals["verdict"]), partial(entries_of, entry_lines)
        manifest = seal(bucket, day, entries, totals, catalog, accepted=accepted, run_id=run_id, sealed_at=now)
        names = ledger.parts.names(day)
        if names == sealed_names:
            break
    if signer is not None:
        sign_manifest(bucket, signer, manifest)
    _attest(ledger, bucket, day, sealed_names, now=now)
    return SealedDay(manifest, recordings, verdict)


def neighbours_to_seal(stores: Stores, days: Iterable[date]) -> list[date]:
    """Return the other dates that a run appended to and must seal too: those sealed before, and those before the
    `first` partition. One day's pull finds a call over midnight that is stored under the adjacent date, whose manifest
    would otherwise be out of date. Any other date waits for its own first run.
    """
    bucket, parts, first = stores.bucket, stores.ledger.parts, stores.settings.archive_start_date
    return [
        day for day in sorted(days) if manifest_numbers(bucket, day) or (day < first and any(parts.names(day).values()))
    ]


def entries_of(lines: pa.Table) -> Iterator[ManifestEntry]:
    """Yield a manifest's entry for each recording, given as lines of STATE_SCHEMA in the order of their ids."""
    for start in range(0, lines.num_rows, _BATCH):
        part = lines.slice(start, _BATCH)
        columns = {name: values(part[name]) for name in ManifestEntry._fields}
        columns["warnings"] = [tuple(warnings or ()) for warnings in columns["warnings"]]
        yield from map(ManifestEntry._make, zip(*columns.values(), strict=True))


def accepted_on(verdict: DateVerdict) -> list[AcceptedLoss]:
    """Return the accepted losses that the date's own manifest lists (of recordings dated that day), by id."""
    return [
        AcceptedLoss(*(getattr(found, name) for name in AcceptedLoss._fields))
        for found in verdict.accepted.values()
        if found.day == verdict.date
    ]


def rows_pulled(pulls: Pulls) -> dict[str, int]:
    """Return, for each report that was pulled, the number of rows in the newest pulls of all accounts."""
    newest = {report: newest_by_account(made) for report, made in pulls.items() if made}
    return {f"rows_{report}": sum(pull.rows for pull in of_accounts.values()) for report, of_accounts in newest.items()}


def _attest(ledger: Ledger, bucket: Bucket, day: date, names: dict[str, list[str]], *, now: datetime) -> None:
    """Attest parts and manifests that no attestation names yet; manifests last, since this run made them."""

    def hash_part(name: str) -> tuple[int, str]:
        body = ledger.parts.read(name)
        return len(body), hashlib.sha256(body).hexdigest()

    def hash_object(name: str) -> tuple[int, str]:
        return bucket.hash_object(f"{bucket.prefix}{name}")

    def attest(kind: str, of_day: date, found: Sequence[str], hashed: Callable[[str], tuple[int, str]]) -> None:
        known, _ = read_attestations(bucket, kind, of_day)
        fresh = [ObservedObject(name, *hashed(name)) for name in found if name not in known]
        write_attestation(bucket, kind, of_day, fresh, now=now)

    manifests = [manifest_key("", day, number) for number in manifest_numbers(bucket, day)]
    for kind, parts in names.items():
        attest(kind, day, parts, hash_part)
    # The access log uses UTC days: east of UTC they end after the date was sealed, so later sealings attest again.
    today = now.astimezone(UTC).date()
    for of_day in sorted({day, *(today - timedelta(days=before) for before in range(1, _ACCESS_DAYS + 1))}):
        if keys := [key for key, _ in bucket.list_keys(access_prefix(bucket.prefix, of_day))]:
            attest(ACCESS, of_day, [key.removeprefix(bucket.prefix) for key in keys], hash_object)
    attest(MANIFESTS, day, manifests, hash_object)
