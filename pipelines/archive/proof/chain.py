"""A day's manifests proved: each against its own hashes, its number, the one before it and its signature.

Not for comparing entries with the bucket or the ledger: `steps/verify` does that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import manifest_key, signature_key
from pipelines.archive.proof.manifest import Entry, ManifestHead, manifest_numbers, read_manifest
from pipelines.archive.proof.signature import Verifier


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: a code, the key it is about, and a sentence."""

    kind: str
    subject: str
    sentence: str


@dataclass(slots=True)
class Chain:
    """A day's manifests: all `numbers` that are there, and by number the `heads` of those that are not damaged."""

    numbers: list[int]
    heads: dict[int, ManifestHead] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, subject: str, sentence: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, subject, sentence))

    @property
    def latest(self) -> ManifestHead | None:
        """The manifest that counts: the highest number; None when that is damaged, or the day was never sealed."""
        return self.heads.get(self.numbers[-1]) if self.numbers else None


def read_chain(
    bucket: Bucket, day: date, *, verifier: Verifier | None = None, entry: Callable[[Entry], None] | None = None
) -> Chain:
    """Read all manifests of a day and prove numbering, hashes and, with a `verifier`, signatures.

    Args:
        bucket: where they are stored.
        day: the local day.
        verifier: proves the signatures. The latest must have one, and each that follows a signed one; its chain
            vouches for the others.
        entry: gets each entry of the highest number, in order. A damaged manifest may give some before it is found
            out: they do not count when `latest` is None.
    """
    chain = Chain(manifest_numbers(bucket, day))
    numbers = chain.numbers
    if numbers != list(range(1, len(numbers) + 1)):
        gone = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        names = ", ".join(f"manifest-{number}" for number in gone[:10])
        chain.add(
            "manifest_removed",
            manifest_key(bucket.prefix, day, gone[0]),
            f"The manifests of {day.isoformat()} are not numbered 1 to {max(numbers)} without a gap: {names} "
            "was removed; restore it from an earlier version of the bucket",
        )
    for number in numbers:
        try:
            take = entry if entry is not None and number == numbers[-1] else _pass_over
            chain.heads[number] = read_manifest(bucket, day, number, take)
        except (StoreDamaged, KeyMissing) as error:
            key = manifest_key(bucket.prefix, day, number)
            chain.add("manifest_altered", key, str(error))
    for number, manifest in chain.heads.items():
        _link(chain, manifest, chain.heads.get(number - 1))
    if verifier is not None:
        _signatures(bucket, chain, verifier)
    return chain


def _pass_over(_: Entry) -> None:
    """Take an entry that is read for its proof alone."""


def _link(chain: Chain, manifest: ManifestHead, before: ManifestHead | None) -> None:
    named = manifest.document["previous_sha256"]
    if manifest.number == 1 and named is not None:
        chain.add(
            "manifest_altered",
            manifest.key,
            f"{manifest.key} is the first of its day and yet names one before it: it was altered or renumbered; "
            "restore its first version",
        )
    if before is not None and named != before.sha256:
        chain.add(
            "manifest_altered",
            before.key,
            f"{before.key} is not the one that {manifest.key} was sealed upon: it was altered or replaced; "
            "restore its first version",
        )


def _signatures(bucket: Bucket, chain: Chain, verifier: Verifier) -> None:
    signed_before = False
    for number, manifest in sorted(chain.heads.items()):
        try:
            sentence = verifier.problem(bucket, manifest.key, manifest.sha256)
        except KeyMissing:
            if signed_before or number == chain.numbers[-1]:
                where = signature_key(manifest.key)
                what = (
                    "was removed; restore it from an earlier version of the bucket"
                    if signed_before
                    else "is not there; run the date again to have its manifest signed, or find out who removed it"
                )
                chain.add("signature_missing", where, f"The signature {where} {what}")
            continue
        signed_before = True
        if sentence is not None:
            chain.add("signature_wrong", signature_key(manifest.key), sentence)
