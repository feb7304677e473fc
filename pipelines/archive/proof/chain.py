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


class ChainProblem(NamedTuple):
    """A problem with a manifest or signature: a code, the key concerned, and a sentence."""

    kind: str
    subject: str
    sentence: str


@dataclass(slots=True)
class Chain:
    """A day's manifests: all stored `numbers`, and by number the `heads` of those that are not damaged."""

    numbers: list[int]
    heads: dict[int, ManifestHead] = field(default_factory=dict)
    problems: list[ChainProblem] = field(default_factory=list)

    def add(self, kind: str, subject: str, sentence: str) -> None:
        """Add a problem."""
        self.problems.append(ChainProblem(kind, subject, sentence))

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
    chain = Chain(manifest_numbers(bucket, day))
    _check_numbers(chain, bucket, day)
    for number in chain.numbers:
        take = entry if number == chain.numbers[-1] else None
        try:
            chain.heads[number] = read_manifest(bucket, day, number, take or (lambda _: None))
        except (StoreDamaged, KeyMissing) as error:
            chain.add("manifest_altered", manifest_key(bucket.prefix, day, number), str(error))
    _check_hashes(chain)
    if verifier is not None:
        is_signed = False
        for number, head in chain.heads.items():
            is_required = is_signed or number == chain.numbers[-1]
            is_signed |= _check_signature(chain, bucket, verifier, head, is_required=is_required)
    return chain


def _check_numbers(chain: Chain, bucket: Bucket, day: date) -> None:
    removed = sorted(set(range(1, max(chain.numbers, default=0))) - set(chain.numbers))
    if removed:
        names = ", ".join(f"manifest-{number}" for number in removed[:10])
        chain.add(
            "manifest_removed",
            manifest_key(bucket.prefix, day, removed[0]),
            f"The manifests of {day.isoformat()} are not numbered 1 to {chain.numbers[-1]} without a gap; restore "
            f"what was removed ({names}) from an earlier version of the bucket",
        )


def _check_hashes(chain: Chain) -> None:
    for number, head in chain.heads.items():
        before = chain.heads.get(number - 1)
        expected = None if before is None else before.sha256
        if head.document["previous_sha256"] != expected and (number == 1 or before is not None):
            key = (before or head).key
            chain.add(
                "manifest_altered",
                key,
                f"{key} breaks the chain of its day's manifests: it was altered, replaced or renumbered; restore its "
                "first version",
            )


def _check_signature(
    chain: Chain, bucket: Bucket, verifier: Verifier, head: ManifestHead, *, is_required: bool
) -> bool:
    signature = signature_key(head.key)
    try:
        sentence = verifier.problem(bucket, head)
    except KeyMissing:
        if is_required:
            sentence = (
                f"The signature {signature} is not there: run the date again if it was never made, or restore it from "
                "an earlier version of the bucket"
            )
            chain.add("signature_missing", signature, sentence)
        return False
    if sentence is not None:
        chain.add("signature_wrong", signature, sentence)
    return True
