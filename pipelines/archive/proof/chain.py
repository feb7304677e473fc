"""Proof of a day's manifests: each against its own hashes, its number, the manifest before it and its signature.

Not for comparing entries with the bucket or the ledger: `steps/verify` does that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import manifest_key, signature_key
from pipelines.archive.proof.manifest import Entry, ManifestHead, manifest_numbers, read_manifest
from pipelines.archive.proof.signature import Verifier


class Problem(NamedTuple):
    """A problem with a manifest or signature: a code, the key concerned, and a sentence."""

    kind: str
    subject: str
    sentence: str


@dataclass(slots=True)
class Chain:
    """A day's manifests: all stored `numbers`, and by number the `heads` of those that are not damaged."""

    numbers: list[int]
    heads: dict[int, ManifestHead] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def latest(self) -> ManifestHead | None:
        """The manifest that counts: the one with the highest number; None if it is damaged or there is none."""
        return self.heads.get(self.numbers[-1]) if self.numbers else None


def read_chain(
    bucket: Bucket, day: date, *, verifier: Verifier | None = None, entry: Callable[[Entry], None] | None = None
) -> Chain:
    """Read all manifests of a local day and prove their numbers, hashes and, with a `verifier`, signatures.

    The latest manifest must be signed, and so must each one after a signed one; the chain vouches for the others.
    `entry` is called with each entry of the manifest with the highest number, in order, perhaps before the manifest is
    found to be damaged: the entries do not count if `latest` is None.
    """
    numbers = manifest_numbers(bucket, day)
    chain = Chain(numbers)

    def add(kind: str, subject: str, sentence: str) -> None:
        chain.problems.append(Problem(kind, subject, sentence))

    if removed := sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
        names = ", ".join(f"manifest-{number}" for number in removed[:10])
        add(
            "manifest_removed",
            manifest_key(bucket.prefix, day, removed[0]),
            f"The manifests of {day.isoformat()} are not numbered 1 to {numbers[-1]} without a gap: {names} "
            "was removed; restore it from an earlier version of the bucket",
        )
    for number in numbers:
        is_latest = number == numbers[-1]
        try:
            take = entry if entry is not None and is_latest else lambda _: None
            chain.heads[number] = read_manifest(bucket, day, number, take)
        except (StoreDamaged, KeyMissing) as error:
            add("manifest_altered", manifest_key(bucket.prefix, day, number), str(error))
    is_signed = False
    for number, head in chain.heads.items():
        named, before = head.document["previous_sha256"], chain.heads.get(number - 1)
        if number == 1 and named is not None:
            add(
                "manifest_altered",
                head.key,
                f"{head.key} is the first manifest of its day but names an earlier one: it was altered or renumbered; "
                "restore its first version",
            )
        if before is not None and named != before.sha256:
            add(
                "manifest_altered",
                before.key,
                f"{before.key} is not the manifest that {head.key} followed when it was sealed: it was altered "
                "or replaced; restore its first version",
            )
        if verifier is None:
            continue
        signature = signature_key(head.key)
        try:
            sentence = verifier.problem(bucket, head)
        except KeyMissing:
            what = "was removed; restore it from an earlier version of the bucket"
            if not is_signed:
                what = "is not there; run the date again to have its manifest signed, or find out who removed it"
            if is_signed or number == numbers[-1]:
                add("signature_missing", signature, f"The signature {signature} {what}")
        else:
            is_signed = True
            if sentence is not None:
                add("signature_wrong", signature, sentence)
    return chain
