"""Verify a date's manifests against attestations, catalog, the next day's manifests and the ledger."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.keys import catalog_key, manifest_key, signature_key
from pipelines.archive.proof.attestation import MANIFESTS, ObservedObject, read_attestations
from pipelines.archive.proof.chain import Chain
from pipelines.archive.proof.manifest import ManifestEntry, ManifestHead, entry_document, manifest_numbers
from pipelines.ledger.schema import values
from pipelines.ledger.states import Status
from pipelines.steps.check.verdict import DateVerdict
from pipelines.steps.pull.coverage import Pulls
from pipelines.steps.seal.seal_day import accepted_on, entries_of, rows_pulled
from pipelines.steps.verify.arriving import Arriving
from pipelines.steps.verify.report import Flag
from pipelines.wording import number


@dataclass(slots=True)
class DateFacts:
    """The facts about a date's recordings in manifest, ledger and bucket, by recording id: about 1.5 kB a recording.
    `sealed`: the sealed content; None without a good manifest. `pulls`: the newest pull of each report and account;
    None if the ledger could not be read. `verdict`: the verdict of the date; None if the ledger or the bucket could not
    be read. `changed_at`: the time of the ledger's line, even of an id that is now another recording's name. `awaited`:
    the keys under which a run may still store recordings; filled only if an object is unexplained.
    """

    sealed: Mapping[str, ManifestEntry] | None
    arriving: Arriving
    ledger: dict[str, ManifestEntry] = field(default_factory=dict)
    etags: dict[str, str | None] = field(default_factory=dict)
    changed_at: dict[str, datetime] = field(default_factory=dict)
    objects: dict[str, Listed] = field(default_factory=dict)
    pulls: Pulls | None = None
    verdict: DateVerdict | None = None
    awaited: set[str] = field(default_factory=set)

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


def check_manifests(arriving: Arriving, flag: Flag) -> None:
    """Verify the chain of the date's manifests, and compare each with its attestations."""
    bucket, day, chain = arriving.bucket, arriving.day, arriving.chain
    unsigned = signature_key(chain.latest.key) if chain.latest and arriving.sealed_just_now else None
    for problem in chain.problems:
        is_arriving = problem.kind == "signature_missing" and problem.subject == unsigned
        flag(problem.kind, problem.subject, problem.sentence, arriving=is_arriving)
    attested = attestations(bucket, MANIFESTS, day, flag)
    there = {head.key.removeprefix(bucket.prefix): head.sha256 for head in chain.heads.values()}
    if attested.keys() - there.keys():
        # A damaged manifest is a problem of the chain; another may have been sealed since the chain was read.
        stored = {manifest_key("", day, number) for number in manifest_numbers(bucket, day)}
        attested = {name: seen for name, seen in attested.items() if name in there or name not in stored}
    compare_attested(attested, there, "manifest", day, flag, prefix=bucket.prefix)
    for head in chain.heads.values():
        if head.key.removeprefix(bucket.prefix) not in attested:
            flag(
                "unattested",
                head.key,
                f"No attestation names {head.key}: the attestation was removed, the manifest was put there by hand, or "
                "the run that sealed it was killed; run the date again and find out who wrote it",
                arriving=head is chain.latest and arriving.sealed_just_now,
            )


def attestations(bucket: Bucket, kind: str, day: date, flag: Flag) -> dict[str, frozenset[ObservedObject]]:
    """Return the attested objects by name; report the damaged attestations."""
    attested, damaged = read_attestations(bucket, kind, day)
    for sentence in damaged:
        flag("attestation_altered", sentence.partition(" ")[0], sentence)  # it begins with the key
    return dict(attested)


def compare_attested(
    attested: Mapping[str, frozenset[ObservedObject]],
    there: Mapping[str, str],
    what: str,
    day: date,
    flag: Flag,
    *,
    prefix: str = "",
) -> None:
    """Report each attested object that was removed or altered. `there`: the SHA-256 of those that are stored."""
    for name, seen in sorted(attested.items()):
        key = f"{prefix}{name}"
        if name not in there:
            what_happened = f"{key} was there when {day} was sealed and is gone"
            flag(f"{what}_removed", key, f"{what_happened}; restore it from a backup or an earlier version")
        elif {there[name]} != {thing.sha256 for thing in seen}:
            flag(f"{what}_altered", key, f"{key} was altered since {day} was sealed; restore its first version")


def check_catalog(arriving: Arriving, latest: ManifestHead, flag: Flag) -> None:
    """Compare the date's part of the catalog with its sealed hash, which the first manifests did not have."""
    bucket, day = arriving.bucket, arriving.day
    key, sealed = catalog_key(bucket.prefix, day), latest.document.get("catalog_sha256")
    found = bucket.sha256_of(key)
    if found is None or (sealed is not None and sealed != found):
        what = "is gone" if found is None else "is not the catalog that was sealed: it was altered or replaced"
        sentence = f"{key} {what}; run {day} again, which rebuilds it from the ledger"
        flag("catalog_stale", key, sentence, arriving=arriving.sealed_just_now or arriving.under_way)


def check_next_day(bucket: Bucket, day: date, chain: Chain, following: Chain, flag: Flag) -> None:
    """Verify that every manifest of `day` that the next day's manifests name exists unchanged."""
    named_before = False
    for _, head in sorted(following.heads.items()):
        named = head.document["previous_day"]
        if named is None and not named_before:
            continue
        named_before = True
        match named:
            case {"date": iso, "number": int(number), "sha256": str(sha256)} if iso == day.isoformat() and number > 0:
                key = manifest_key(bucket.prefix, day, number)
                if number not in chain.numbers:
                    if bucket.head(key) is None:  # else it was sealed since the manifests were read
                        flag("manifest_removed", key, f"{key}, on which {head.key} is based, is gone; restore it")
                elif number in chain.heads and chain.heads[number].sha256 != sha256:
                    what = f"{key} is not the one on which {head.key} is based"
                    flag("manifest_altered", key, f"{what}: it was altered; restore its first version")
            case _:
                what = f"{head.key} does not name a manifest of {day} in the proper form, or no longer names one"
                flag("manifest_altered", head.key, f"{what}; restore its first version")


def compare(facts: DateFacts, latest: ManifestHead, pulls: Pulls, flag: Flag) -> None:
    """Compare the latest manifest with its own totals, with the ledger's states and with the newest pulls."""
    key, day, totals = latest.key, facts.arriving.day, latest.document["totals"]
    accepted = latest.document.get("accepted_losses", [])
    entries = facts.expected.values()
    count = Counter(str(entry.status) for entry in entries)
    sums = {status: count[status] for status in map(str, Status)} | {"accepted_losses": len(accepted) or None}
    sums |= {"bytes": sum(entry.size or 0 for entry in entries)}
    sums |= {"found": None if totals.get("verdict") == "unknown" else len(entries)}
    if wrong := [name for name, total in sums.items() if totals.get(name) != total]:
        what = f"The totals of {key} are not the sums of its entries ({', '.join(wrong)})"
        flag("totals_wrong", key, f"{what}; restore its first version")
    changed = _compare_entries(facts, latest, flag)
    stale = [number(changed, "recording")] if changed else []
    if facts.verdict is not None and accepted != [loss.document() for loss in accepted_on(facts.verdict)]:
        stale.append("the accepted losses")
    if {name: count for name, count in totals.items() if name.startswith("rows_")} != rows_pulled(pulls):
        stale.append("the report rows of the newest pulls")
    if stale:
        flag(
            "stale",
            key,
            f"{key} is out of date: {', '.join(stale)} of {day} differ in the ledger; run the date again, or find out "
            "which part of the ledger was added or removed",
            arriving=facts.arriving.under_way,
        )


def _compare_entries(facts: DateFacts, latest: ManifestHead, flag: Flag) -> int:
    """Report each recording on which manifest and ledger differ; return how many changed after the sealing instead."""
    entries, arriving = facts.sealed or {}, facts.arriving
    changed = 0
    for recording_id in sorted(entries.keys() | facts.ledger.keys()):
        sealed = entries.get(recording_id)
        held = facts.ledger.get(recording_id)
        if sealed == held:
            continue
        changed_at = facts.changed_at.get(recording_id)
        # A run writes its states up to a minute after it found them, and another may have sealed in between.
        if changed_at and (changed_at > latest.sealed_at or (arriving.is_young(changed_at) and arriving.under_way)):
            changed += 1
            continue
        kind, difference = _difference(sealed, held, latest.key)
        flag(
            kind,
            recording_id,
            f"{recording_id} of {arriving.day} is {difference}: a manifest or a ledger part was altered or removed; "
            "find out which, and restore it",
        )
    return changed


def _difference(sealed: ManifestEntry | None, held: ManifestEntry | None, key: str) -> tuple[str, str]:
    """Return the kind of a difference between manifest and ledger, and the difference in words."""
    if sealed is None:
        return "manifest_lacks", f"absent in {key} and {held.status if held else 'absent'} in the ledger"
    if held is None:
        return "ledger_lacks", f"{sealed.status} in {key} and absent in the ledger"
    names = [name for name in ManifestEntry._fields if getattr(sealed, name) != getattr(held, name)]
    statuses = f"{sealed.status} in {key} and {held.status} in the ledger"
    return "ledger_differs", f"{statuses}, and they differ in {', '.join(names)}"
