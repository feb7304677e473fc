"""A date whose parts version 0.1.0 merged: it is read and proved like every other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, JobDefinition

from pipelines.archive.proof.attestation import ObservedObject, write_attestation
from pipelines.orchestration.environment import Environment
from pipelines.steps.seal.seal_day import Stores, seal_day
from sandbox.config import Limits, SandboxConfig
from tests.commands import an_hour_later, run
from tests.copies import Copies, copies_of_an_archive
from tests.merging import merged_part
from tests.services import Services

DAY = datetime.now(UTC).date() - timedelta(days=3)
REPORT = "global_call_type_detail"
KINDS = {"event_reads", "recording_states", "report_pulls", "report_rows"}


@dataclass
class Old:
    """A test's own copy of an archived date beyond the look-back, with a clock that can be set."""

    s3: Any
    bucket: str
    capsys: pytest.CaptureFixture[str]
    instance: DagsterInstance
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    day: date = DAY

    def merge(self, kinds: Iterable[str] = KINDS, *, attest: bool = True) -> list[str]:
        """Merge the date's parts of these kinds as 0.1.0 did, with an attestation; returns the keys of those."""
        replaced = []
        for kind in kinds:
            parts = [part for part in self.parts() if f"/{kind}/" in part]
            for folder in sorted({part.rpartition("/")[0] for part in parts}):
                keys = [part for part in parts if part.startswith(f"{folder}/")]
                name, body = merged_part({key.removeprefix("ledger/"): self.get(key) for key in keys})
                self.s3.put_object(Bucket=self.bucket, Key=f"ledger/{name}", Body=body)
                if attest:
                    seen = ObservedObject(name, len(body), hashlib.sha256(body).hexdigest())
                    write_attestation(self.services().bucket, kind, self.day, [seen], now=self.now)
                replaced += keys
        return replaced

    def services(self) -> Services:
        return Services(Environment(clock=lambda: self.now, s3_client=self.s3))

    def keys(self, under: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def parts(self) -> list[str]:
        return [key for key in self.keys("ledger/") if f"date={self.day}/" in key]

    def doubts(self) -> set[tuple[str, str]]:
        report = Path("verify.json")
        code = run(
            "verify",
            ["--from", str(self.day), "--to", str(self.day), "--json", str(report)],
            self.s3,
            clock=an_hour_later,
        )
        self.capsys.readouterr()
        found = json.loads(report.read_text())["doubts"]
        assert code == (1 if found else 0)
        return {(discrepancy["kind"], discrepancy["subject"]) for discrepancy in found}

    def lines(self) -> tuple[Any, ...]:
        ledger = self.services().ledger
        states = ledger.states([self.day])
        reports = ("agent_segment_metadata", "global_call_type_detail")
        rows = [set(map(str, ledger.all_rows(report, self.day).to_pylist())) for report in reports]
        pulls = [ledger.pulls(report, self.day) for report in reports]
        return states, rows, pulls, ledger.event_reads(self.day)

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """One date archived for real and run again twice, as a bucket for each test."""
    limits = Limits(reports="none", exchange="none")
    config = SandboxConfig(same_around=DAY, calls_per_day=(4, 5), talk_seconds=(1, 2), limits=limits)

    def archive(job: JobDefinition, instance: DagsterInstance) -> None:
        steps = ["agent_segment_metadata", "global_call_type_detail", "recording_links", "recordings", "daily_manifest"]
        for number in range(3):
            assert job.execute_in_process(partition_key=str(DAY), instance=instance, op_selection=steps).success
            # What attempts leave behind: a line for each, here the same ones again, sealed with the rest by the next.
            ledger = Services(Environment()).ledger
            ledger.append_states(ledger.states([DAY]).values())
            rows = ledger.latest_rows(REPORT, DAY, columns=["row_key", "row_hash"])
            ledger.append_rows(REPORT, DAY, rows, account_id="1", pulled_at=datetime.now(UTC), run_id="again")
            ledger.append_event_reads(DAY, {f"{number}.events": 1}, run_id="again", read_at=datetime.now(UTC))
        assert job.execute_in_process(partition_key=str(DAY), instance=instance, op_selection=steps[-1:]).success

    settings = {"ARCHIVE_LOOK_BACK_DAYS": "0"}
    with copies_of_an_archive(tmp_path_factory, config, archive, **settings) as made:
        yield made


@pytest.fixture
def old(copies: Copies, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Old]:
    bucket = copies.take(monkeypatch)
    with DagsterInstance.ephemeral() as instance:
        yield Old(copies.client, bucket, capsys, instance)


@pytest.mark.parametrize("gone", ["none", "some", "all"])
def test_a_merged_date_is_read_and_proved_as_before_with_and_without_its_small_parts(old: Old, gone: str) -> None:
    lines = old.lines()
    assert len(old.parts()) > 8
    assert old.doubts() == set()
    replaced = old.merge()
    for key in {"none": [], "some": replaced[::2], "all": replaced}[gone]:
        old.delete(key)
    assert old.lines() == lines
    assert old.doubts() == set()
    services = old.services()
    stores = Stores(services.bucket, services.ledger, services.settings)
    sealed = seal_day(stores, old.day, now=old.now, run_id="again")
    assert sealed.manifest.unchanged


@pytest.mark.parametrize("kind", ["recording_states", "event_reads"])
def test_a_merged_part_that_is_removed_or_altered_is_named(old: Old, kind: str) -> None:
    for key in old.merge():
        old.delete(key)
    merged = next(part for part in old.parts() if kind in part and "-" in part.rpartition("/")[2])
    body = old.get(merged)
    old.delete(merged)
    name = merged.removeprefix("ledger/")
    gone = {subject for kind, subject in old.doubts() if kind == "ledger_part_removed"}
    assert name in gone
    assert len(gone) > 1, "what only the removed part stood for is gone with it"
    old.s3.put_object(Bucket=old.bucket, Key=merged, Body=body[:-1] + bytes([body[-1] ^ 1]))
    assert ("ledger_part_altered", name) in old.doubts()


def test_a_merged_part_without_an_attestation_accounts_for_nothing_until_the_date_is_sealed(old: Old) -> None:
    originals = old.merge(["recording_states"], attest=False)
    assert {kind for kind, _ in old.doubts()} == {"unattested"}
    old.delete(originals[0])
    gone = originals[0].removeprefix("ledger/")
    assert ("ledger_part_removed", gone) in old.doubts()
    services = old.services()
    stores = Stores(services.bucket, services.ledger, services.settings)
    seal_day(stores, old.day, now=old.now, run_id="again")
    assert old.doubts() == set()


def test_parts_that_came_after_the_seal_are_named(old: Old) -> None:
    ledger = old.services().ledger
    (state, *_) = ledger.states([old.day]).values()
    ledger.append_states([state])
    assert {kind for kind, _ in old.doubts()} == {"unattested"}
