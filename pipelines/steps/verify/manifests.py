"""Verify a date's manifests against attestations, catalog, the next day's manifests and the ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import catalog_key, manifest_key, signature_key
from pipelines.archive.proof.attestation import ObservedObject, read_attestations
from pipelines.archive.proof.chain import Chain
from pipelines.archive.proof.manifest import ManifestEntry, ManifestHead, entry_document
from pipelines.ledger.schema import values
from pipelines.ledger.states import Status
from pipelines.steps.check.verdict import DateVerdict
from pipelines.steps.pull.coverage import Pulls
from pipelines.steps.seal.seal_day import MANIFESTS, accepted_on, entries_of, rows_pulled
from pipelines.steps.verify.arriving import Arriving, sealed_at
from pipelines.steps.verify.report import Flag
from pipelines.wording import number


@dataclass(slots=True)
class Evidence:
    """The facts about a date's recordings in manifest, ledger and bucket, by recording id: about 1.5 kB a recording.
    `changed_at` is the time of the ledger's line, even of an id that is now another recording's name.
    """

    sealed: Mapping[str, ManifestEntry] | None
    """The sealed content; None without a good manifest."""
    arriving: Arriving
    ledger: dict[str, ManifestEntry] = field(default_factory=dict)
    etags: dict[str, str | None] = field(default_factory=dict)
    changed_at: dict[str, datetime] = field(default_factory=dict)
    objects: dict[str, Listed] = field(default_factory=dict)
    pulls: Pulls | None = None
    """The newest pull of each report and account; None if the ledger could not be read."""
    verdict: DateVerdict | None = None
    """The verdict of the date; None if ledger or bucket could not be read."""
    awaited: set[str] = field(default_factory=set)
    """The keys under which a run may still store recordings; filled if an object is unexplained."""

    def add_ledger(self, lines: pa.Table) -> None:
        """Add the ledger's current states of the date (STATE_SCHEMA)."""
        self.changed_at = dict(zip(values(lines["recording_id"]), values(lines["written_at"]), strict=True))
        lines = lines.filter(lines["same_as"].is_null())
        sealed_entries = self.sealed or {}
        for row, etag in zip(entries_of(lines), values(lines["etag"]), strict=True):
            entry = ManifestEntry(**entry_document(row))
            sealed = sealed_entries.get(row.recording_id)
            # The manifest's own object if both agree: entries take most of the memory.
            self.ledger[row.recording_id] = sealed if sealed == entry and sealed is not None else entry
            self.etags[row.recording_id] = etag

    @property
    def expected(self) -> Mapping[str, ManifestEntry]:
        """What should be in the bucket: by the manifest or, without a good manifest, by the ledger."""
        return self.ledger if self.sealed is None else self.sealed

    def held(self) -> list[ManifestEntry]:
        """Return the recordings that should be held, by id."""
        return sorted(entry for entry in self.expected.values() if entry.status == Status.archived)

    def unexplained(self) -> list[str]:
        """Return the keys of the objects that belong to no expected recording, sorted."""
        return sorted(self.objects.keys() - {entry.key for entry in self.held()})

    def totals(self) -> dict[str, int]:
        """Return the sums of the expected recordings, named like a manifest's totals."""
        entries = self.expected.values()
        counts = dict.fromkeys(map(str, Status), 0) | Counter(entry.status for entry in entries)
        return {"found": len(entries), "bytes": sum(entry.size or 0 for entry in entries), **counts}


def check_manifests(arriving: Arriving, flag: Flag) -> None:
    """Verify the chain of the date's manifests, and compare each with its attestations."""
    bucket, day, chain = arriving.bucket, arriving.day, arriving.chain
    unsigned = signature_key(chain.latest.key) if chain.latest and arriving.sealed_just_now else None
    for problem in chain.problems:
        is_arriving = problem.kind == "signature_missing" and problem.subject == unsigned
        flag(problem.kind, problem.subject, problem.sentence, arriving=is_arriving)
    attested = attestations(bucket, MANIFESTS, day, flag)
    numbers = {manifest_key(bucket.prefix, day, number): number for number in chain.numbers}
    for name, seen in attested.items():
        key = f"{bucket.prefix}{name}"
        head = chain.heads.get(numbers.get(key, 0))
        if key not in numbers:
            if bucket.head(key) is None:  # else it was sealed since the manifests were read
                flag("manifest_removed", key, f"{key} was sealed and is gone; restore it from an earlier version")
        elif head is not None and {head.sha256} != {thing.sha256 for thing in seen}:
            sentence = f"{key} differs from its attestation: it was altered; restore its first version"
            flag("manifest_altered", key, sentence)
    for head in chain.heads.values():
        if head.key.removeprefix(bucket.prefix) not in attested:
            flag(
                "unwitnessed",
                head.key,
                f"No attestation names {head.key}: the attestation was removed, the manifest was put there by hand, or "
                "the run that sealed it was killed; run the date again and find out who wrote it",
                arriving=head is chain.latest and arriving.sealed_just_now,
            )


def attestations(bucket: Bucket, kind: str, day: date, flag: Flag) -> Mapping[str, frozenset[ObservedObject]]:
    """Return the attested objects by name; report the damaged attestations."""
    attested, damaged = read_attestations(bucket, kind, day)
    for sentence in damaged:
        flag("witness_altered", sentence.partition(" ")[0], sentence)  # it begins with the key
    return attested


def check_catalog(arriving: Arriving, latest: ManifestHead, flag: Flag) -> None:
    """Compare the date's part of the catalog with its sealed hash, which the first manifests did not have."""
    bucket, day = arriving.bucket, arriving.day
    key, sealed = catalog_key(bucket.prefix, day), latest.document.get("catalog_sha256")
    what = ""
    try:
        if sealed is None and bucket.head(key) is None:
            what = "is gone"
        elif sealed is not None and bucket.hash_object(key).sha256 != sealed:
            what = "is not the catalog that was sealed: it was altered or replaced"
    except KeyMissing:
        what = "is gone"
    if what:
        sentence = f"{key} {what}; run {day} again, which rebuilds it from the ledger"
        flag("catalog_stale", key, sentence, arriving=arriving.sealed_just_now or arriving.under_way)


def check_next_day(bucket: Bucket, day: date, chain: Chain, following: Chain, flag: Flag) -> None:
    """Verify that every manifest of `day` that the next day's manifests name exists unchanged."""
    named_before = False
    for _, head in sorted(following.heads.items()):
        match head.document["previous_day"]:
            case None if named_before:
                sentence = f"{head.key} does not name a manifest of {day} although an earlier one does"
                flag("manifest_altered", head.key, sentence)
            case None:
                continue
            case {"date": of, "number": int(number), "sha256": str(sha256)} if of == day.isoformat() and number > 0:
                key = manifest_key(bucket.prefix, day, number)
                if number not in chain.numbers:
                    if bucket.head(key) is None:  # else it was sealed since the manifests were read
                        flag("manifest_removed", key, f"{key}, on which {head.key} is based, is gone; restore it")
                elif number in chain.heads and chain.heads[number].sha256 != sha256:
                    what = f"{key} is not the one on which {head.key} is based"
                    flag("manifest_altered", key, f"{what}: it was altered; restore its first version")
            case _:
                sentence = f"{head.key} does not name a manifest of the day before in the proper form"
                flag("manifest_altered", head.key, sentence)
        named_before = True


def compare(evidence: Evidence, latest: ManifestHead, pulls: Pulls, flag: Flag) -> None:
    """Compare the latest manifest with its own totals, with the ledger's states and with the newest pulls."""
    document, key, day = latest.document, latest.key, evidence.arriving.day
    accepted = document.get("accepted_losses", [])
    totals = document["totals"] if isinstance(document["totals"], dict) else {}
    wrong = _wrong_totals(evidence, totals, len(accepted))
    if wrong:
        flag("totals_wrong", key, f"The totals of {key} are not the sums of its entries ({', '.join(wrong)})")
    stale = {}
    changed = _compare_entries(evidence, latest, flag)
    if changed:
        what = f"{number(changed, 'recording')} of {day} changed after it was sealed"
        stale[key] = f"{key} is out of date: {what}; run the date again"
    if evidence.verdict is not None and accepted != [loss.document() for loss in accepted_on(evidence.verdict)]:
        stale[f"{key} accepted losses"] = (
            f"The accepted losses in {key} differ from those in the ledger for {day}; run the date again, or find out "
            "which part of accepted_losses was removed"
        )
    if {name: count for name, count in totals.items() if name.startswith("rows_")} != rows_pulled(pulls):
        stale[f"{key} rows"] = (
            f"The report rows counted in {key} differ from the newest pulls of {day} in the ledger; run the date "
            "again, or find out which pull was removed"
        )
    for subject, sentence in stale.items():
        flag("stale", subject, sentence, arriving=evidence.arriving.under_way)


def _wrong_totals(evidence: Evidence, totals: Mapping[str, object], accepted: int) -> list[str]:
    """Return the names of the sealed totals that are not the sums of the entries."""
    sums: dict[str, int | None] = {**evidence.totals(), "accepted_losses": accepted or None}
    if totals.get("verdict") == "unknown":
        sums["found"] = None  # an unknown date's totals omit it
    return sorted(name for name, count in sums.items() if totals.get(name) != count)


def _compare_entries(evidence: Evidence, latest: ManifestHead, flag: Flag) -> int:
    """Report each recording on which manifest and ledger differ; return how many changed after the sealing instead."""
    entries = evidence.sealed or {}
    at = sealed_at(latest.document.get("sealed_at"))
    changed = 0
    for recording_id in sorted(entries.keys() | evidence.ledger.keys()):
        sealed, held = entries.get(recording_id), evidence.ledger.get(recording_id)
        if sealed == held:
            continue
        if at is not None and _changed_since(evidence, recording_id, at):
            changed += 1
            continue
        name = f"{recording_id} of {evidence.arriving.day}"
        if sealed is not None and held is not None:
            kind, why = "ledger_differs", "a manifest or a ledger part was altered or removed"
            differing = [part for part in ManifestEntry._fields if getattr(sealed, part) != getattr(held, part)]
            found = (
                f"{name} is {sealed.status} in {latest.key} and {held.status} in the ledger, and they differ in "
                f"{', '.join(differing)}"
            )
        elif sealed is not None:
            kind, why = "ledger_lacks", "a ledger part was removed, or the entry was made by hand"
            found = f"{name} is {sealed.status} in {latest.key} and not in the ledger"
        elif held is not None:
            kind, why = "manifest_lacks", "its entry was removed, or a later manifest was"
            found = f"{name} is {held.status} in the ledger and not in {latest.key}"
        flag(kind, recording_id, f"{found}: {why}")
    return changed


def _changed_since(evidence: Evidence, recording_id: str, at: datetime) -> bool:
    changed_at = evidence.changed_at.get(recording_id)
    if changed_at is None:
        return False
    if changed_at > at:
        return True
    # A run writes its states up to a minute after it found them, and another may have sealed in between.
    return evidence.arriving.is_young(changed_at) and evidence.arriving.under_way
