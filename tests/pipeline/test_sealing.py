"""Which dates are sealed, and what a sealing says when it could not take everything."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.keys import catalog_key
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.archive.proof.seal import seal as seal_manifest
from pipelines.calendar import day_bounds
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import Verdict, judge_date
from pipelines.steps.seal import seal_day as seal
from pipelines.steps.seal.seal_day import neighbours_to_seal, seal_day
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Sampling
from pipelines.steps.verify.report import DayResult, Discrepancy
from tests import states
from tests.memory_s3 import MemoryS3
from tests.pulls import NO_ROWS

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
A_DAY = timedelta(days=1)
FIRST = date(2026, 1, 1)
BEFORE = date(2025, 12, 31)


def pending(day: date, name: str = "a") -> RecordingState:
    return states.pending(f"1/{day}/{name}", day, NOW, found_on=FIRST)


class Stores:
    def __init__(self, client: Any, folder: Path) -> None:
        name = f"archive-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        files = LocalFiles(folder)
        self.bucket = Bucket(client, name, "")
        self.ledger = Ledger(files, clock=lambda: NOW)
        self.settings = VerifySettings(
            archive_bucket=name, ringcx_account_ids=("1",), archive_start_date=FIRST, ringcx_retention_days=365
        )

    def all(self) -> seal.Stores:
        return seal.Stores(self.bucket, self.ledger, self.settings)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(MemoryS3(), tmp_path / "ledger")


def test_a_date_before_the_first_partition_is_sealed_by_the_run_that_wrote_to_it(stores: Stores) -> None:
    after, nothing = FIRST + timedelta(days=1), BEFORE - timedelta(days=1)
    stores.ledger.append_states([pending(day) for day in (BEFORE, after)])

    def neighbours() -> dict[date, bool]:
        days = neighbours_to_seal(stores.all(), [nothing, BEFORE, after])
        return {day: seal_day(stores.all(), day, now=NOW, run_id="r").manifest.unchanged for day in days}

    assert neighbours() == {BEFORE: False}  # the other waits for its own first run
    manifest = latest_manifest(stores.bucket, BEFORE)
    assert manifest is not None
    assert [entry["recording_id"] for entry in json.loads(stores.bucket.get_bytes(manifest.key))["entries"]] == [
        "1/2025-12-31/a"
    ]
    totals = manifest.document["totals"]
    assert (totals["verdict"], "found" in totals) == ("unknown", False)
    assert totals["not_pulled"] == ["agent_segment_metadata", "global_call_type_detail"]
    assert stores.bucket.head(f"catalog/date={BEFORE}/recordings.parquet") is not None
    assert neighbours() == {BEFORE: True}
    found: list[Discrepancy] = []
    archive = Archive(stores.bucket, stores.ledger, stores.settings, verifier=None, clock=lambda: datetime.now(UTC))
    (result,) = verify_days(archive, BEFORE, BEFORE, Sampling(), add=found.append)
    assert (result.discrepancies.total(), result.found, result.held, result.pending, found) == (0, None, 0, 1, [])
    seal_day(stores.all(), after, now=NOW, run_id="r")
    assert neighbours() == {BEFORE: True, after: True}


def pulled(stores: Stores, day: date) -> None:
    start, end = day_bounds(day, stores.settings.zone)
    for report in stores.settings.reports:
        stores.ledger.append_pull(
            PullRecord(
                report=report,
                day=day,
                account_id="1",
                period_start=start,
                period_end=end,
                pulled_at=NOW,
                run_id="r",
                sha256="s",
                **NO_ROWS,
            )
        )


def verified(stores: Stores, day: date) -> tuple[DayResult, list[Discrepancy]]:
    found: list[Discrepancy] = []
    archive = Archive(*(stores.bucket, stores.ledger, stores.settings), None, lambda: NOW + A_DAY)
    (result,) = verify_days(archive, day, day, Sampling(), add=found.append)
    return result, found


def test_the_catalog_has_the_verdict_of_its_date_and_the_clock_alone_changes_nothing(stores: Stores) -> None:
    stores.ledger.append_states([pending(FIRST)])
    sealed = [seal_day(stores.all(), FIRST, now=NOW, run_id="r")]
    pulled(stores, FIRST)
    sealed += [
        seal_day(stores.all(), FIRST, now=NOW + later, run_id="another")
        for later in (timedelta(0), A_DAY, 40 * A_DAY)  # waiting, overdue, stuck
    ]
    assert [seal.manifest.unchanged for seal in sealed] == [False, False, True, True]
    assert [seal.verdict.verdict for seal in sealed] == ["unknown", "waiting", "gaps", "gaps"]
    table: pa.Table = pq.read_table(pa.BufferReader(stores.bucket.get_bytes(catalog_key("", FIRST))))
    assert table["verdict"].to_pylist() == ["waiting"]
    result, found = verified(stores, FIRST)
    assert (result.verdict, found) == ("gaps", [])


def test_verify_names_a_sealed_verdict_that_is_not_that_of_the_ledger(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.ledger.append_states([pending(FIRST)])
    pulled(stores, FIRST)
    monkeypatch.setattr(
        seal, "judge_date", lambda *args, **more: replace(judge_date(*args, **more), verdict=Verdict.complete)
    )
    seal_day(stores.all(), FIRST, now=NOW, run_id="r")
    result, (difference,) = verified(stores, FIRST)
    assert (difference.kind, difference.arriving, result.verdict) == ("verdict_differs", False, "gaps")
    assert "is complete, but the ledger says waiting" in difference.sentence


def test_a_manifest_sealed_on_a_damaged_ledger_says_what_is_damaged(stores: Stores, tmp_path: Path) -> None:
    stores.ledger.append_states([pending(FIRST)])
    pulled(stores, FIRST)
    part = (
        tmp_path / f"ledger/report_rows/report=global_call_type_detail/date={FIRST}/01JC0000000000000000000000.parquet"
    )
    part.parent.mkdir(parents=True)
    part.write_bytes(b"PAR1")
    sealed = seal_day(stores.all(), FIRST, now=NOW, run_id="r")
    assert sealed.verdict.verdict == "unknown"
    manifest = latest_manifest(stores.bucket, FIRST)
    assert manifest is not None
    totals = manifest.document["totals"]
    assert (totals["verdict"], totals["not_pulled"]) == ("unknown", [])
    assert part.name in totals["damage"]


def test_a_sealing_that_another_run_overtakes_every_time_ends_and_the_next_one_seals_the_rest(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.ledger.append_states([pending(FIRST)])
    written = iter(range(100))

    def overtaken(*arguments: Any, **options: Any) -> Any:
        found = seal_manifest(*arguments, **options)
        stores.ledger.append_states([pending(FIRST, f"late-{next(written)}")])
        return found

    monkeypatch.setattr(seal, "seal", overtaken)
    seal_day(stores.all(), FIRST, now=NOW, run_id="r")
    monkeypatch.undo()
    seal_day(stores.all(), FIRST, now=NOW, run_id="r")
    latest = latest_manifest(stores.bucket, FIRST)
    assert latest is not None
    assert len(json.loads(stores.bucket.get_bytes(latest.key))["entries"]) == 1 + next(written)


@pytest.mark.parametrize("body", [b"", b"PAR1 half a file", "a list"], ids=["empty", "half", "wrong list"])
@pytest.mark.parametrize("kind", ["report_rows/report=global_call_type_detail", "event_reads", "accepted_losses"])
def test_a_damaged_part_that_was_sealed_as_it_is_is_named_and_stops_no_verification(
    stores: Stores, tmp_path: Path, kind: str, body: bytes | str
) -> None:
    stores.ledger.append_states([pending(FIRST)])
    part = tmp_path / "ledger" / kind / f"date={FIRST}" / f"{ULID.from_datetime(NOW)}.parquet"
    part.parent.mkdir(parents=True)
    if isinstance(body, str):
        merged = pa.schema([], {b"ringcx-archive/merged/1": b'["no record"]'}).empty_table()
        pq.write_table(merged, part)
    else:
        part.write_bytes(body)
    seal_day(stores.all(), FIRST, now=NOW, run_id="r")
    _, found = verified(stores, FIRST)
    assert str(part.relative_to(tmp_path / "ledger")) in {discrepancy.subject for discrepancy in found}
