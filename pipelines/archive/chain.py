"""A day's manifests read again: each against its own hashes, its number, the one before it and its signature.

A manifest is read in blocks and its entries are handed on one by one, so memory does not grow with them. Not for
comparing entries with what lies in the bucket or the ledger: `steps/verification` does that.
"""

import codecs
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pipelines.archive.bucket import Bucket, ObjectReader
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.archive.keys import manifest_key, signature_key
from pipelines.archive.manifest import FORMAT, canonical_json, manifest_numbers, not_the_sealed_one
from pipelines.archive.signature import Verifier

Entry = Mapping[str, Any]

_BLOCK = 1 << 20
_LARGEST_PART = 8 << 20  # of one entry, or of all that is not entries
_MARK = '"entries":['
_decoder = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """A manifest that is what it says, without its entries: `document` has an empty list in their place. `sha256` is of
    its bytes.
    """

    key: str
    number: int
    size: int
    sha256: str
    document: Mapping[str, Any]


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

    @property
    def latest(self) -> ManifestHead | None:
        """The manifest that counts: the highest number; None when that is damaged, or the day was never sealed."""
        return self.heads.get(self.numbers[-1]) if self.numbers else None


def read_chain(
    bucket: Bucket, day: date, *, verifier: Verifier | None = None, entry: Callable[[Entry], None] | None = None
) -> Chain:
    """Read all manifests of a day and prove numbering, hashes and, with a `verifier`, signatures.

    Args:
        bucket: where they lie.
        day: the local day.
        verifier: proves the signatures. The latest must have one, and each that follows a signed one; its chain
            vouches for the others.
        entry: gets each entry of the highest number, in order. A damaged manifest may have given some before it is
            found out: they do not count when `latest` is None.
    """
    chain = Chain(manifest_numbers(bucket, day))
    numbers = chain.numbers
    if numbers != list(range(1, len(numbers) + 1)):
        gone = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        names = ", ".join(f"manifest-{number}" for number in gone[:10])
        chain.problems.append(
            Problem(
                "manifest_removed",
                manifest_key(bucket.prefix, day, gone[0]),
                f"The manifests of {day.isoformat()} are not numbered 1 to {max(numbers)} without a gap: {names} "
                "was removed; restore it from an earlier version of the bucket",
            )
        )
    for number in numbers:
        try:
            chain.heads[number] = read_manifest(bucket, day, number, entry if number == numbers[-1] else None)
        except (StoreDamaged, KeyMissing) as error:
            key = manifest_key(bucket.prefix, day, number)
            chain.problems.append(Problem("manifest_altered", key, str(error)))
    for number, manifest in chain.heads.items():
        _link(chain, manifest, chain.heads.get(number - 1))
    if verifier is not None:
        _signatures(bucket, chain, verifier)
    return chain


def read_manifest(bucket: Bucket, day: date, number: int, entry: Callable[[Entry], None] | None = None) -> ManifestHead:
    """Read one manifest in blocks and prove it against its name and its own content hash.

    Raises:
        KeyMissing: there is none of that number.
        StoreDamaged: it is not a manifest of that day and number, or not what it was when it was sealed.
    """
    key = manifest_key(bucket.prefix, day, number)
    with bucket.open(key) as reader:
        text = _Text(reader)
        try:
            document = _parse(text, entry)
            whole = (
                document["format"] == FORMAT
                and document["date"] == day.isoformat()
                and document["number"] == number
                and "previous_sha256" in document
                and "previous_day" in document
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
    if not whole:
        raise not_the_sealed_one(bucket, key)
    return ManifestHead(key, number, text.size, text.digest.hexdigest(), document)


class _Text:
    """The object's text as far as it was read, without what was taken from its front."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self.digest = hashlib.sha256()
        self.size = 0
        self.buffer = ""
        self.ended = False

    def more(self) -> None:
        if self.ended or len(self.buffer) > _LARGEST_PART:
            raise ValueError("cut off, or with a part that is too large")
        block = self._reader.read(_BLOCK)
        self.digest.update(block)
        self.size += len(block)
        self.ended = not block
        self.buffer += self._decode(block, final=self.ended)

    def drop(self, length: int) -> None:
        self.buffer = self.buffer[length:]


def _parse(text: _Text, entry: Callable[[Entry], None] | None) -> dict[str, Any]:
    """The document with an empty list of entries, each part compared with its canonical form."""
    while _MARK not in text.buffer:
        text.more()
    head, mark, _ = text.buffer.partition(_MARK)
    text.drop(len(head) + len(mark))
    content = hashlib.sha256()
    content.update(b'{"date":' + canonical_json({"d": _date(head)})[5:-2] + b',"entries":[')
    last_id = _entries(text, entry, content)
    while not text.ended:
        text.more()
    whole = f"{head}{mark}{text.buffer}"
    document: dict[str, Any] = json.loads(whole)
    if canonical_json(document) != whole.encode() or document["entries"] != []:
        raise ValueError(f"not canonical after {last_id}")
    content.update(b'],"totals":' + canonical_json({"t": document["totals"]})[5:-2] + b"}\n")
    if content.hexdigest() != document["content_sha256"]:
        raise ValueError("not the content that was sealed")
    return document


def _entries(text: _Text, entry: Callable[[Entry], None] | None, content: "hashlib._Hash") -> str:
    """Hand on the entries up to the list's end, which stays in the buffer."""
    last_id, place, first = "", 0, True
    while True:
        if place >= len(text.buffer):
            text.drop(place)
            place = 0
            text.more()
            continue
        if text.buffer[place] == "]":
            text.drop(place)
            return last_id
        try:
            start = place if first else place + 1
            one, end = _decoder.raw_decode(text.buffer, start)
        except ValueError:
            # Cut at a block's end, unless nothing follows: `more` raises then.
            text.drop(place)
            place = 0
            text.more()
            continue
        shown = canonical_json(one)[:-1]
        if (not first and text.buffer[place] != ",") or shown != text.buffer[start:end].encode():
            raise ValueError("an entry is not canonical")
        if one["recording_id"] <= last_id and not first:
            raise ValueError("entries are not in order")
        content.update(shown if first else b"," + shown)
        last_id, place, first = one["recording_id"], end, False
        if entry is not None:
            entry(one)


def _date(head: str) -> str:
    day: str = json.loads(f"{head.rstrip(',')}}}")["date"]
    return day


def _link(chain: Chain, manifest: ManifestHead, before: ManifestHead | None) -> None:
    named = manifest.document["previous_sha256"]
    if manifest.number == 1 and named is not None:
        chain.problems.append(
            Problem(
                "manifest_altered",
                manifest.key,
                f"{manifest.key} is the first of its day and yet names one before it: it was altered or renumbered; "
                "restore its first version",
            )
        )
    if before is not None and named != before.sha256:
        chain.problems.append(
            Problem(
                "manifest_altered",
                before.key,
                f"{before.key} is not the one that {manifest.key} was sealed upon: it was altered or replaced; "
                "restore its first version",
            )
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
                chain.problems.append(Problem("signature_missing", where, f"The signature {where} {what}"))
            continue
        signed_before = True
        if sentence is not None:
            chain.problems.append(Problem("signature_wrong", signature_key(manifest.key), sentence))
