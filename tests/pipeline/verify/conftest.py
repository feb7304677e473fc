"""One archive is made by real runs and copied for each test, which then tampers with its copy through S3."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dagster import AssetKey, DagsterInstance, JobDefinition

from pipelines.archive.proof.manifest import canonical_json
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash
from pipelines.definitions import build_defs
from pipelines.ledger.files import S3Files
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults, Where
from tests.commands import an_hour_later, run
from tests.copies import Copies, copies_of_an_archive

ARCHIVE_PREFIX = "vault/"
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=back) for back in (4, 3, 2)]
FIRST, MIDDLE, LAST = DAYS


@dataclass
class Copy:
    """One test's own copy."""

    client: Any
    bucket: str
    folder: Path
    capsys: pytest.CaptureFixture[str]
    result: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    err: str = ""

    def keys(self, under: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=ARCHIVE_PREFIX + under)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def ledger(self) -> Ledger:
        return Ledger(S3Files(self.client, self.bucket, f"{ARCHIVE_PREFIX}ledger"), clock=lambda: datetime.now(UTC))

    def held(self, day: date) -> list[RecordingState]:
        states = self.ledger().states([day]).values()
        return [state for state in states if state.status is Status.archived]

    def manifests(self, day: date) -> list[str]:
        found = [key for key in self.keys(f"manifests/date={day}/") if key.endswith(".json")]
        return sorted(found, key=lambda key: int(re.findall(r"\d+", key)[-1]))

    def verify(
        self,
        *options: str,
        first: date = FIRST,
        last: date = LAST,
        s3: Any = None,
        clock: Callable[[], datetime] = an_hour_later,
    ) -> int:
        report = self.folder / "verify.json"
        arguments = ["--from", str(first), "--to", str(last), "--json", str(report), *options]
        code = run("verify", arguments, self.client if s3 is None else s3, clock=clock)
        self.out, self.err = self.capsys.readouterr()
        self.result = json.loads(report.read_text()) if report.exists() else {}
        return code

    def everything_under(self, prefix: str) -> list[str]:
        return sorted(key for key, _ in self.everything() if key.startswith(prefix))

    def everything(self) -> set[tuple[str, str]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {(item["Key"], item["ETag"]) for page in pages for item in page.get("Contents", [])}

    def doubts(self, *options: str, day: date | None = None, s3: Any = None) -> set[tuple[str, str, str]]:
        """(date, kind, subject) of each doubt, each with a sentence that is on the screen as well.

        Of all dates, or of one.
        """
        code = self.verify(*options, first=day or FIRST, last=day or LAST, s3=s3)
        assert code == (1 if self.result["doubts"] else 0)
        for doubt in self.result["doubts"]:
            assert f"  {doubt['date'] or 'no date   '}  {doubt['kind']}: {doubt['sentence']}\n" in self.out
        return {(doubt["date"], doubt["kind"], doubt["subject"]) for doubt in self.result["doubts"]}

    def sentences(self, subject: str) -> str:
        return " ".join(doubt["sentence"] for doubt in self.result["doubts"] if doubt["subject"] == subject)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """A run of each date and one more, since late links make a second manifest; some recordings cannot be fetched."""
    faults = Faults(
        seed=5, late_links=Where(share=0.2, first=1), forbidden=Where(share=0.06), not_found=Where(share=0.06)
    )
    config = SandboxConfig(
        same_around=TODAY,
        calls_per_day=(6, 8),
        talk_seconds=(1, 2),
        limits=Limits(reports="none", exchange="none"),
        faults=faults,
    )

    def archive(job: JobDefinition, instance: DagsterInstance) -> None:
        for day in (*DAYS, MIDDLE):
            assert job.execute_in_process(partition_key=str(day), instance=instance).success

    settings = {"ARCHIVE_PREFIX": ARCHIVE_PREFIX, "ARCHIVE_RETRY_MINUTES": "0"}
    with copies_of_an_archive(tmp_path_factory, config, archive, **settings) as copies:
        yield copies


@pytest.fixture
def copy(sample: Copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Copy:
    return Copy(sample.client, sample.take(monkeypatch), tmp_path, capsys)


def edited(body: bytes, change: Callable[[dict[str, Any]], None], *, hashed: bool) -> bytes:
    document = json.loads(body)
    change(document)
    if hashed:
        content = {name: document[name] for name in ("date", "entries", "totals")}
        document["content_sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
        leaves = [leaf_hash(canonical_json(entry).rstrip(b"\n")) for entry in document["entries"]]
        document["merkle_root"] = MerkleTree(leaves).root
    return canonical_json(document)


def pem(key: Ed25519PrivateKey) -> tuple[bytes, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sealed_again(instance: DagsterInstance, *days: date) -> bool:
    job = build_defs().resolve_job_def("archive_day")
    return all(
        job.execute_in_process(
            partition_key=str(day),
            instance=instance,
            asset_selection=[AssetKey("daily_manifest")],
            raise_on_error=False,
        ).success
        for day in days
    )
