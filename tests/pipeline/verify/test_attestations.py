"""`ringcx-archive verify` names changes to attestations, and to the access log that they attest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.proof.attestation import ACCESS, ObservedObject, read_attestations, write_attestation
from pipelines.compliance.access_log import Access, AccessLog
from pipelines.settings import VerifySettings
from pipelines.steps.seal import seal_day as seal
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, FIRST, LAST, MIDDLE, Copy


def test_an_entry_of_the_access_log_that_is_altered_or_removed_after_sealing_is_named(copy: Copy) -> None:
    bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
    log, at = AccessLog(bucket), datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    entry = Access(at=at, user="ava", address="203.0.113.9", action="search")
    kept, altered, removed = (log.record(entry) for _ in range(3))
    assert copy.doubts() == set()
    settings = VerifySettings(archive_bucket=copy.bucket, archive_prefix=ARCHIVE_PREFIX)
    now = datetime.now(UTC)
    seal.seal_day(seal.Stores(bucket, copy.ledger(), settings), FIRST, now=now, run_id="again")
    later = log.record(entry)
    assert copy.doubts() == set()
    copy.put(altered, copy.get(altered).replace(b"ava", b"eve"))
    copy.delete(removed)
    copy.delete(later)
    assert copy.doubts() == {
        (str(FIRST), "access_entry_altered", altered),
        (str(FIRST), "access_entry_removed", removed),
    }
    assert copy.get(kept)


def test_any_sealing_attests_the_access_log_of_the_last_three_utc_days(copy: Copy) -> None:
    bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
    now = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC) + timedelta(days=40)
    entry = {"user": "ava", "address": "203.0.113.9", "action": "search"}
    times = [now - timedelta(days=before) for before in range(5)]
    for at in times:
        AccessLog(bucket).record(Access(at=at, **entry))
    settings = VerifySettings(archive_bucket=copy.bucket, archive_prefix=ARCHIVE_PREFIX)
    seal.seal_day(seal.Stores(bucket, copy.ledger(), settings), FIRST, now=now, run_id="again")
    attested = [len(read_attestations(bucket, ACCESS, at.date())[0]) for at in times]
    assert attested == [0, 1, 1, 1, 0]


def test_a_manifest_removed_with_its_attestation_is_still_named_by_the_next_day(copy: Copy) -> None:
    for key in (*copy.manifests(FIRST), *copy.keys(f"witnesses/manifests/date={FIRST}/")):
        copy.delete(key)
    named = json.loads(copy.get(copy.manifests(MIDDLE)[-1]))["previous_day"]["number"]
    key = f"{ARCHIVE_PREFIX}manifests/date={FIRST}/manifest-{named}.json"
    assert (str(FIRST), "manifest_removed", key) in copy.doubts()
    # From outside the range too: the day after the last one asked for has its say.
    assert copy.verify(first=FIRST, last=FIRST) == 1
    assert key in {doubt["subject"] for doubt in copy.result["doubts"]}


def test_removed_and_edited_attestations_are_named(copy: Copy) -> None:
    gone = copy.keys(f"witnesses/recording_states/date={FIRST}/")
    for key in gone:
        copy.delete(key)
    bad = copy.keys(f"witnesses/manifests/date={LAST}/")[0]
    copy.put(bad, b"{}")
    found = copy.doubts()
    assert {(day, kind) for day, kind, _ in found} >= {(str(FIRST), "unattested"), (str(LAST), "attestation_altered")}
    assert (str(LAST), "attestation_altered", bad) in found


@pytest.mark.parametrize(("kind", "sentence"), [("access", "access_entry_removed"), ("manifests", "manifest_removed")])
def test_a_forged_attestation_of_a_name_that_no_key_can_be_is_named_and_never_requested(
    copy: Copy, kind: str, sentence: str
) -> None:
    forged = [ObservedObject(name, 1, "0" * 64) for name in ("\ud800", "x" * 1100)]
    bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
    write_attestation(bucket, kind, FIRST, forged, now=datetime.now(UTC))
    names = {f"{ARCHIVE_PREFIX}\\ud800", f"{ARCHIVE_PREFIX}{'x' * 1100}"}
    assert copy.doubts(s3=Strict(copy.client)) == {(str(FIRST), sentence, name) for name in names}


class Strict:
    """A client that refuses keys as botocore and Amazon do."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def checked(*args: Any, **fields: Any) -> Any:
            assert len(fields.get("Key", "").encode()) <= 1024
            return call(*args, **fields)

        return checked if callable(call) else call
