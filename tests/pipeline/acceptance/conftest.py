"""A ledger and a bucket with lost recordings, and every way to accept them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from pipelines.archive.bucket import Bucket
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status, archived, final
from pipelines.ledger.store import Ledger
from pipelines.orchestration.environment import Environment
from pipelines.settings import PlanSettings
from pipelines.steps.check.verdict import DateVerdict, judge_date
from pipelines.steps.seal.acceptance import Decision, DecisionResult, decide
from pipelines.steps.seal.seal_day import seal_day
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Sampling
from pipelines.steps.verify.report import DayResult, Discrepancy
from tests import states
from tests.commands import run
from tests.memory_s3 import MemoryS3

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = date(2026, 11, 18)
NEXT = DAY + timedelta(days=1)
REPORTS = ("agent_segment_metadata", "global_call_type_detail")


def pending(name: str = "a", day: date = DAY, found_on: date = DAY, reason: str | None = None) -> RecordingState:
    changed: dict[str, Any] = {"found_on": found_on, "reason": reason, "next_attempt_at": NOW + timedelta(hours=1)}
    return states.pending(f"1/{name}", day, NOW - timedelta(hours=9), **changed)


def lost(name: str = "a", status: Status = Status.missing, reason: str = "not_found", **where: date) -> RecordingState:
    return final(pending(name, **where), status, reason, NOW - timedelta(hours=8), "r")


class Stores:
    def __init__(self, client: Any, folder: Path, clock: Callable[[], datetime]) -> None:
        name = f"archive-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        self.client, self.folder, files = client, folder, LocalFiles(folder)
        self.bucket = Bucket(client, name, "")
        self.ledger = Ledger(files, clock=clock)
        self.settings = PlanSettings(
            archive_bucket=name,
            ledger_url=str(folder),
            ringcx_account_ids=("1",),
            archive_start_date=DAY - timedelta(days=9),
        )
        self.now = NOW

    def pulled(self, *days: date) -> None:
        for day in days:
            start, end = day_bounds(day, self.settings.zone)
            for report in REPORTS:
                self.ledger.append_pull(
                    PullRecord(
                        report=report,
                        day=day,
                        account_id="1",
                        period_start=start,
                        period_end=end,
                        pulled_at=NOW,
                        run_id="r",
                        size=1,
                        sha256="s",
                        **dict.fromkeys(("rows", "new", "changed", "unchanged", "vanished", "with_link"), 0),
                    )
                )

    def held(self, name: str, day: date = DAY) -> RecordingState:
        key = f"recordings/date={day}/account_id=1/layout=mono/{name}"
        self.client.put_object(Bucket=self.bucket.name, Key=key, Body=b"RIFF")
        facts = {
            "size": 4,
            "sha256": hashlib.sha256(b"RIFF").hexdigest(),
            "duration_s": 1.0,
            "etag": None,
            "version_id": None,
            "warnings": (),
        }
        return archived(pending(name, day), key=key, now=NOW - timedelta(hours=8), run_id="r", **facts)

    def over_midnight(self, name: str) -> RecordingState:
        """A lost recording of the next day that a row of the day links to."""
        row = {
            "row_key": name,
            "row_hash": name,
            "uii": "u",
            "recording_url": f"https://x.vacd.biz/a?file={name}",
            "call_start_dts": f"{NEXT}T00:10:00.000+0000",
        }
        table = pa.table({column: [text] for column, text in row.items()})
        self.ledger.append_rows(REPORTS[1], DAY, table, account_id="1", pulled_at=NOW, run_id="r")
        return lost(name, day=NEXT)

    def decide(self, *ids: str, **changed: Any) -> DecisionResult:
        decision = Decision(recording_ids=ids, **{"why": "TICKET-1", "accepted_by": "compliance", **changed})
        self.now += timedelta(minutes=1)
        return decide(self.archive(), decision, now=self.now, run_id="command")

    def verdict(self, day: date = DAY) -> DateVerdict:
        return judge_date(self.ledger, self.bucket, day, self.settings, now=self.now)

    def seal(self, day: date = DAY) -> None:
        self.now += timedelta(minutes=1)
        seal_day(self.archive(), day, now=self.now, run_id="seal")

    def manifest(self, day: date = DAY) -> dict[str, Any]:
        found = latest_manifest(self.bucket, day)
        assert found is not None
        return dict(found.document)

    def archive(self) -> Archive:
        return Archive(self.bucket, self.ledger, self.settings, None, lambda: self.now + timedelta(hours=1))

    def verify(self, day: date = DAY) -> tuple[DayResult, set[tuple[str, str]]]:
        found: list[Discrepancy] = []
        (result,) = verify_days(self.archive(), day, day, Sampling(), add=found.append)
        return result, {(discrepancy.kind, discrepancy.subject) for discrepancy in found}

    def command(self, *arguments: str, why: str = "TICKET-1") -> int:
        self.now += timedelta(minutes=1)
        by = [] if "--by" in arguments else ["--by", "compliance"]
        return run("accept", [*arguments, "--why", why, *by], self.client, clock=lambda: self.now)

    def job(self, **config: Any) -> ExecuteInProcessResult:
        self.now += timedelta(minutes=1)
        environment = Environment(clock=lambda: self.now, s3_client=self.client)
        config = {"why": "TICKET-1", "accepted_by": "compliance", **config}
        with DagsterInstance.ephemeral() as instance:
            return (
                build_defs(environment=environment)
                .resolve_job_def("accept_losses")
                .execute_in_process(
                    run_config={"ops": {"decide_on_losses": {"config": config}}},
                    instance=instance,
                    raise_on_error=False,
                )
            )

    def part(self, day: date = DAY) -> Path:
        (part,) = (self.folder / "accepted_losses" / f"date={day}").iterdir()
        return part


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    made = Stores(MemoryS3(), tmp_path / "ledger", lambda: made.now)
    variables = {
        "ARCHIVE_BUCKET": made.bucket.name,
        "ARCHIVE_START_DATE": str(made.settings.archive_start_date),
        "LEDGER_URL": str(made.folder),
        "RINGCX_ACCOUNT_IDS": "1",
        "RINGCX_API_TOKEN": "token",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return made
