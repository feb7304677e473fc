"""The ledger's compaction through Dagster: what it merges, what the verification says of it, what starts it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from dagster import DagsterInstance, SensorResult, build_sensor_context

from pipelines import verify
from pipelines.definitions import build_defs
from pipelines.ledger.merged import is_merged
from pipelines.resources import services_resource

WEEK = timedelta(days=8)
KINDS = {"recording_states", "report_pulls", "report_rows"}


class Old:
    """An archived date beyond the look-back, in a world of its own, with a clock that can be set."""

    def __init__(self, it: Any, day: date, capsys: pytest.CaptureFixture[str]) -> None:
        self.it, self.day, self.capsys = it, day, capsys
        self.now = datetime.now(UTC)

    def compact(self, day: date | None = None, client: Any = None) -> dict[str, Any]:
        resource = services_resource(clock=lambda: self.now, s3_client=client or self.it.s3)
        result = (
            build_defs(services=resource)
            .resolve_job_def("compact_day")
            .execute_in_process(partition_key=str(day or self.day), instance=self.it.instance)
        )
        assert result.success
        return dict(self.it.metadata(result, "ledger_compaction"))

    def parts(self) -> list[str]:
        return [one for one in self.it.objects("ledger/") if f"date={self.day}/" in one]

    def doubts(self) -> set[tuple[str, str]]:
        report = Path("verify.json")
        code = verify.main(["--from", str(self.day), "--to", str(self.day), "--json", str(report)], self.it.s3)
        self.capsys.readouterr()
        found = json.loads(report.read_text())["doubts"]
        assert code == (1 if found else 0)
        return {(one["kind"], one["subject"]) for one in found}

    def lines(self) -> tuple[Any, ...]:
        ledger = self.it.services().ledger
        states = ledger.states([self.day])
        reports = ("agent_segment_metadata", "global_call_type_detail")
        rows = [sorted(map(str, ledger.all_rows(one, self.day).to_pylist())) for one in reports]
        pulls = [ledger.pulls(one, self.day) for one in reports]
        return states, [ledger.state_history(self.day, one) for one in states], rows, pulls

    def delete(self, key: str) -> None:
        self.it.s3.delete_object(Bucket=self.it.bucket, Key=key)

    def tick(self, cursor: str | None = None) -> SensorResult:
        repository = build_defs().get_repository_def()
        resources = {"services": services_resource(clock=lambda: self.now, s3_client=self.it.s3)}
        instance: DagsterInstance = self.it.instance
        with build_sensor_context(instance, cursor, repository_def=repository, resources=resources) as context:
            return repository.get_sensor_def("ledger_grows").evaluate_tick(context)


@pytest.fixture
def old(world: Callable[..., Any], recent: list[date], capsys: pytest.CaptureFixture[str]) -> Old:
    it = world(ARCHIVE_LOOK_BACK_DAYS="0")
    day = recent[0] - timedelta(days=2)
    for _ in range(3):
        assert it.run(day).success
    return Old(it, day, capsys)


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
    assert old.it.run(old.day).success
    assert old.doubts() == set()


def test_a_part_that_is_removed_or_altered_is_named_before_and_after_the_merge(old: Old) -> None:
    old.compact()
    old.now += WEEK
    old.compact()
    states = next(one for one in old.parts() if "recording_states" in one and is_merged(one))
    body = old.it.s3.get_object(Bucket=old.it.bucket, Key=states)["Body"].read()
    old.delete(states)
    name = states.removeprefix("ledger/")
    gone = {subject for kind, subject in old.doubts() if kind == "ledger_part_removed"}
    assert name in gone
    assert len(gone) > 1, "what only the removed part stood for is gone with it"
    old.it.s3.put_object(Bucket=old.it.bucket, Key=states, Body=body[:-1] + bytes([body[-1] ^ 1]))
    assert ("ledger_part_altered", name) in old.doubts()


def test_a_merged_part_made_by_hand_that_lacks_a_line_is_named(old: Old, tmp_path: Path) -> None:
    originals = [one for one in old.parts() if "recording_states" in one]
    old.compact()
    name = next(one for one in old.parts() if "recording_states" in one and is_merged(one))
    body = old.it.s3.get_object(Bucket=old.it.bucket, Key=name)["Body"].read()
    (tmp_path / "m.parquet").write_bytes(body)
    with pq.ParquetFile(tmp_path / "m.parquet") as file:
        table, metadata = file.read(), file.metadata.metadata
    twice = table.slice(0, 1)
    forged = __import__("pyarrow").concat_tables([twice, twice, table.slice(2)]).replace_schema_metadata(metadata)
    pq.write_table(forged, tmp_path / "f.parquet")
    # Under another name, with no witness of its own; the originals are removed as if their grace were over.
    other = re.sub(r"[0-9a-f]{16}\.parquet", "0123456789abcdef.parquet", name)
    old.it.s3.put_object(Bucket=old.it.bucket, Key=other, Body=(tmp_path / "f.parquet").read_bytes())
    old.delete(name)
    kinds = {kind for kind, subject in old.doubts() if subject == other.removeprefix("ledger/")}
    assert kinds >= {"ledger_part_altered", "unwitnessed"}
    old.compact()  # gives a forged one no witness
    for one in originals:
        old.delete(one)
    removed = {subject for kind, subject in old.doubts() if kind == "ledger_part_removed"}
    assert {one.removeprefix("ledger/") for one in originals} <= removed


def test_one_killed_before_its_witness_leaves_no_doubt_and_the_next_run_writes_it(old: Old) -> None:
    services = old.it.services()
    names = services.ledger_parts.names(old.day)["recording_states"]
    made = services.compaction.merge(names, lambda *_: True)
    assert made is not None
    assert old.doubts() == set()
    old.compact()
    witnesses = "".join(
        old.it.s3.get_object(Bucket=old.it.bucket, Key=one)["Body"].read().decode()
        for one in old.it.objects("witnesses/recording_states/")
    )
    assert made.name in witnesses
    assert old.doubts() == set()


def test_parts_that_came_after_the_seal_wait_for_it(old: Old) -> None:
    ledger = old.it.services().ledger
    (state, *_) = ledger.states([old.day]).values()
    ledger.append_states([state])
    told = old.compact()
    assert told["parts_unwitnessed"] == 1
    assert "run the date" in told["said"]
    assert {kind for kind, _ in old.doubts()} == {"unwitnessed"}


def test_a_date_within_the_look_back_is_left_alone(old: Old, recent: list[date]) -> None:
    day = old.now.date() - timedelta(days=1)
    assert "within the look-back" in old.compact(day)["said"]


def test_where_nothing_may_be_removed_the_parts_stay_unread_and_the_asset_says_so(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = old.lines()
    old.compact()
    old.now += WEEK
    before = old.parts()

    class NoDelete:
        def __getattr__(self, name: str) -> Any:
            return getattr(old.it.s3, name)

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
    for one in asked:
        old.compact(date.fromisoformat(one))
    second = old.tick(first.cursor)
    assert not second.run_requests
    old.now += WEEK
    third = old.tick(second.cursor)
    assert {one.partition_key for one in third.run_requests} == asked
    assert old.compact()["parts_removed"] > 0
    assert not old.tick(third.cursor).run_requests


def test_a_merge_is_no_news_to_the_sensor_of_pending_recordings(old: Old) -> None:
    before = old.it.services().ledger.state_days()
    old.compact()
    assert old.it.services().ledger.state_days() == before
    old.now += WEEK
    old.compact()
    assert old.it.services().ledger.state_days() == before
