"""Verify the access log of a date: each entry that was there when the date was sealed is there as it was."""

from __future__ import annotations

from datetime import date

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import access_prefix
from pipelines.archive.proof.attestation import read_attestations
from pipelines.steps.parallel import map_in_order
from pipelines.steps.seal.manifest import ACCESS
from pipelines.steps.verify.manifests import flag_damaged_attestations
from pipelines.steps.verify.report import Flag


def check_access_log(bucket: Bucket, day: date, threads: int, flag: Flag) -> None:
    """Read every attested entry of the UTC day and compare it. Entries that none names came after the last sealing."""
    attested, damaged = read_attestations(bucket, ACCESS, day)
    flag_damaged_attestations(damaged, flag)
    if not attested:
        return
    there = {key.removeprefix(bucket.prefix) for key, _ in bucket.list_keys(access_prefix(bucket.prefix, day))}

    def sha256(name: str) -> str | None:
        try:
            return bucket.hash_object(f"{bucket.prefix}{name}").sha256 if name in there else None
        except KeyMissing:
            return None

    for name, found in map_in_order(sha256, sorted(attested), threads=threads):
        key = f"{bucket.prefix}{name}"
        if found is None:
            sentence = f"{key}, an entry of the access log, was there when {day} was sealed and is gone; restore it"
            flag("access_entry_removed", key, sentence)
        elif {found} != {seen.sha256 for seen in attested[name]}:
            sentence = (
                f"{key}, an entry of the access log, was altered since {day} was sealed; restore its first version"
            )
            flag("access_entry_altered", key, sentence)
