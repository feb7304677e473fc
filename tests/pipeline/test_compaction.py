"""The ledger's compaction through Dagster: what it merges, what the verification says of it, what starts it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from dagster import DagsterInstance, SensorResult, build_sensor_context

from pipelines import verify
from pipelines.archive.client import make_s3_client
from pipelines.definitions import build_defs
from pipelines.ledger.merged import is_merged
from pipelines.resources import Services, services_resource
from pipelines.run_requests import RUN_KEY_TAG
from pipelines.settings import Settings, load
from pipelines.steps.seal import seal_day
from sandbox.config import Limits, SandboxConfig
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox

DAY = datetime.now(UTC).date() - timedelta(days=3)
REPORT = "global_call_type_detail"
WEEK = timedelta(days=8)
Copies = tuple[dict[str, str], Any, Iterator[str]]
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

    def compact(self, day: date | None = None, client: Any = None, run_key: str = "by hand") -> dict[str, Any]:
        """Through Dagster; returns the asset's metadata."""
        resource = services_resource(clock=lambda: self.now, s3_client=client or self.s3)
        result = (
            build_defs(services=resource)
            .resolve_job_def("compact_day")
            .execute_in_process(partition_key=str(day or self.day), instance=self.instance, tags={RUN_KEY_TAG: run_key})
        )
        (event,) = result.asset_materializations_for_node("ledger_compaction")
        return {name: value.value for name, value in event.metadata.items()}

    def services(self) -> Services:
        return Services(lambda: load(Settings), clock=lambda: self.now, s3_client=self.s3)

    def keys(self, under: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def parts(self) -> list[str]:
        return [one for one in self.keys("ledger/") if f"date={self.day}/" in one]

    def doubts(self) -> set[tuple[str, str]]:
        report = Path("verify.json")
        code = verify.main(["--from", str(self.day), "--to", str(self.day), "--json", str(report)], self.s3)
        self.capsys.readouterr()
        found = json.loads(report.read_text())["doubts"]
        assert code == (1 if found else 0)
        return {(one["kind"], one["subject"]) for one in found}

    def lines(self) -> tuple[Any, ...]:
        ledger = self.services().ledger
        states = ledger.states([self.day])
        reports = ("agent_segment_metadata", "global_call_type_detail")
        rows = [sorted(map(str, ledger.all_rows(one, self.day).to_pylist())) for one in reports]
        pulls = [ledger.pulls(one, self.day) for one in reports]
        histories = [ledger.state_history(self.day, one) for one in states]
        return states, histories, rows, pulls, ledger.event_reads(self.day)

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)

    def tick(self, cursor: str | None = None) -> SensorResult:
        repository = build_defs().get_repository_def()
        resources = {"services": services_resource(clock=lambda: self.now, s3_client=self.s3)}
        instance: DagsterInstance = self.instance
        with build_sensor_context(instance, cursor, repository_def=repository, resources=resources) as context:
            return repository.get_sensor_def("ledger_grows").evaluate_tick(context)


@pytest.fixture(scope="module")
def copies(s3: LocalS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """One date archived for real and run again twice, as a bucket for each test."""
    bucket = "compaction-sample"
    s3.make_bucket(bucket)
    limits = Limits(reports="none", exchange="none")
    config = SandboxConfig(same_around=DAY, calls_per_day=(4, 5), talk_seconds=(1, 2), limits=limits)
    with (
        RunningSandbox(config) as source,
        pytest.MonkeyPatch.context() as patch,
        DagsterInstance.ephemeral() as instance,
    ):
        variables = {
            **source.environment(),
            **s3.environment(),
            "ARCHIVE_BUCKET": bucket,
            "ARCHIVE_LOOK_BACK_DAYS": "0",
            "RINGCX_LIMIT_REPORTS": "none",
            "RINGCX_LIMIT_AUTH": "none",
            "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        job = build_defs().resolve_job_def("archive_day")
        steps = ["agent_segment_metadata", "global_call_type_detail", "recording_links", "recordings", "daily_manifest"]
        for number in range(3):
            assert job.execute_in_process(partition_key=str(DAY), instance=instance, op_selection=steps).success
            # What attempts leave behind: a line for each, here the same ones again, sealed with the rest by the next.
            ledger = Services(lambda: load(Settings)).ledger
            ledger.append_states(ledger.states([DAY]).values())
            rows = ledger.latest_rows(REPORT, DAY, columns=["row_key", "row_hash"])
            ledger.append_rows(REPORT, DAY, rows, account_id="1", pulled_at=datetime.now(UTC), run_id="again")
            ledger.append_event_reads(DAY, {f"{number}.events": 1}, run_id="again", read_at=datetime.now(UTC))
        assert job.execute_in_process(partition_key=str(DAY), instance=instance, op_selection=steps[-1:]).success
    folder = tmp_path_factory.mktemp("copies")
    names = [f"copy-{number:02}" for number in range(12)]
    for name in names:
        shutil.copytree(s3.folder / bucket, folder / name)
    with LocalS3(folder, bucket="unused") as served, pytest.MonkeyPatch.context() as patch:
        for name, value in served.environment().items():
            patch.setenv(name, value)
        yield variables | served.environment(), make_s3_client(max_connections=8), iter(names)


@pytest.fixture
def old(
    copies: Copies,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Old]:
    variables, client, names = copies
    bucket = next(names)
    for name, value in (variables | {"ARCHIVE_BUCKET": bucket}).items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.ephemeral() as instance:
        yield Old(client, bucket, capsys, instance)


def test_a_date_is_merged_proved_and_in_a_week_rid_of_its_small_parts(old: Old) -> None:
    before, lines = old.parts(), old.lines()
    assert len(before) > 8
    assert old.doubts() == set()
    told = old.compact()
    merged = [one for one in old.parts() if is_merged(one)]
    assert {one.split("/")[1] for one in merged} == KINDS
    assert set(before) < set(old.parts())
    assert told["parts_before"] == len(before)
    assert told["folders_merged"] == len(merged)
    assert told["parts_unwitnessed"] == 0
    assert old.lines() == lines
    assert old.doubts() == set()
    assert old.compact()["folders_merged"] == 0
    old.now += WEEK
    assert old.compact()["parts_removed"] == told["parts_kept"] > 0
    assert len(old.parts()) == told["parts_read"] < len(before)
    assert old.lines() == lines
    assert old.doubts() == set()
    services = old.services()
    stores = (services.ledger, services.ledger_parts, services.bucket)
    sealed = seal_day(*stores, old.day, now=old.now, run_id="again")
    assert sealed.manifest.unchanged
    assert sealed.witnessed == 0


@pytest.mark.parametrize("kind", ["recording_states", "event_reads"])
def test_a_part_that_is_removed_or_altered_is_named_before_and_after_the_merge(old: Old, kind: str) -> None:
    old.compact()
    old.now += WEEK
    old.compact()
    merged = next(one for one in old.parts() if kind in one and is_merged(one))
    body = old.get(merged)
    old.delete(merged)
    name = merged.removeprefix("ledger/")
    gone = {subject for kind, subject in old.doubts() if kind == "ledger_part_removed"}
    assert name in gone
    assert len(gone) > 1, "what only the removed part stood for is gone with it"
    old.s3.put_object(Bucket=old.bucket, Key=merged, Body=body[:-1] + bytes([body[-1] ^ 1]))
    assert ("ledger_part_altered", name) in old.doubts()


def test_a_merged_part_made_by_hand_that_lacks_a_line_is_named(old: Old, tmp_path: Path) -> None:
    originals = [one for one in old.parts() if "recording_states" in one]
    old.compact()
    name = next(one for one in old.parts() if "recording_states" in one and is_merged(one))
    (tmp_path / "m.parquet").write_bytes(old.get(name))
    with pq.ParquetFile(tmp_path / "m.parquet") as file:
        table, metadata = file.read(), file.metadata.metadata
    twice = table.slice(0, 1)
    forged = pa.concat_tables([twice, twice, table.slice(2)]).replace_schema_metadata(metadata)
    pq.write_table(forged, tmp_path / "f.parquet")
    # Under another name, with no witness of its own; the originals are removed as if their grace were over.
    other = re.sub(r"[0-9a-f]{16}\.parquet", "0123456789abcdef.parquet", name)
    old.s3.put_object(Bucket=old.bucket, Key=other, Body=(tmp_path / "f.parquet").read_bytes())
    old.delete(name)
    kinds = {kind for kind, subject in old.doubts() if subject == other.removeprefix("ledger/")}
    assert kinds >= {"ledger_part_altered", "unwitnessed"}
    old.compact()  # gives a forged one no witness
    for one in originals:
        old.delete(one)
    removed = {subject for kind, subject in old.doubts() if kind == "ledger_part_removed"}
    assert {one.removeprefix("ledger/") for one in originals} <= removed


def test_one_killed_before_its_witness_leaves_no_doubt_and_the_next_run_writes_it(old: Old) -> None:
    services = old.services()
    names = services.ledger_parts.names(old.day)["recording_states"]
    made = services.compaction.merge(names, lambda *_: True)
    assert made is not None
    assert old.doubts() == set()
    old.compact()
    witnesses = b"".join(old.get(one) for one in old.keys("witnesses/recording_states/")).decode()
    assert made.name in witnesses
    assert old.doubts() == set()


def test_parts_that_came_after_the_seal_wait_for_it(old: Old) -> None:
    ledger = old.services().ledger
    (state, *_) = ledger.states([old.day]).values()
    ledger.append_states([state])
    told = old.compact()
    assert told["parts_unwitnessed"] == 1
    assert "run the date" in told["said"]
    assert {kind for kind, _ in old.doubts()} == {"unwitnessed"}


def test_a_date_within_the_look_back_is_left_alone(old: Old) -> None:
    day = old.now.date() - timedelta(days=1)
    assert "within the look-back" in old.compact(day)["said"]


def test_where_nothing_may_be_removed_the_parts_stay_unread_and_the_asset_says_so(
    old: Old,
) -> None:
    lines = old.lines()
    old.compact()
    old.now += WEEK
    before = old.parts()

    class NoDelete:
        def __getattr__(self, name: str) -> Any:
            return getattr(old.s3, name)

        def delete_object(self, **_: Any) -> Any:
            answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "DeleteObject")  # type: ignore[arg-type]

    told = old.compact(client=NoDelete())
    assert told["parts_removed"] == 0
    assert "do not allow to remove" in told["said"]
    assert old.parts() == before
    assert old.lines() == lines
    assert old.doubts() == set()


def test_the_sensor_asks_for_each_old_date_once_and_once_more_when_the_grace_is_over(old: Old) -> None:
    first = old.tick()
    asked = {one.partition_key for one in first.run_requests}
    assert str(old.day) in asked
    assert all(date.fromisoformat(one) < old.now.date() - timedelta(days=1) for one in asked)
    for one in first.run_requests:
        old.compact(date.fromisoformat(one.partition_key), run_key=one.run_key)
    second = old.tick(first.cursor)
    assert not second.run_requests
    old.now += WEEK
    third = old.tick(second.cursor)
    assert {one.partition_key for one in third.run_requests} == asked
    for one in third.run_requests:
        told = old.compact(date.fromisoformat(one.partition_key), run_key=one.run_key)
        assert told["parts_removed"] > 0 or one.partition_key != str(old.day)
    assert not old.tick(third.cursor).run_requests


def test_a_merge_is_no_news_to_the_sensor_of_pending_recordings(old: Old) -> None:
    before = old.services().ledger.state_days()
    old.compact()
    assert old.services().ledger.state_days() == before
    old.now += WEEK
    old.compact()
    assert old.services().ledger.state_days() == before
