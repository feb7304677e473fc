"""A ledger as runs write it, and the plan made from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.calendar import day_bounds
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status, archived
from pipelines.ledger.store import Ledger
from pipelines.settings import PlanSettings, load
from tests.commands import run
from tests.pulls import NO_ROWS

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY = NOW.date()
REPORTS = ("agent_segment_metadata", "global_call_type_detail")
INTERACTIONS = "interaction_metadata"
ONE_DAY = timedelta(days=1)


def back(days: int) -> date:
    return TODAY - timedelta(days=days)


@dataclass
class Chronicle:
    """A ledger in a folder, written as runs write it, and the command over it."""

    capsys: pytest.CaptureFixture[str]
    variables: dict[str, str]
    out: str = ""
    err: str = ""

    @property
    def ledger(self) -> Ledger:
        return Ledger(LocalFiles(Path("ledger")), clock=lambda: datetime.now(UTC))

    def pulled(
        self,
        day: date,
        *,
        names: Iterable[str] = REPORTS,
        accounts: Iterable[str] = ("15300002",),
        part: tuple[float, float] = (0, 1),
    ) -> None:
        """A pull of each report; `part` of the day."""
        start, end = day_bounds(day, load(PlanSettings).zone)
        length = end - start
        for name in names:
            for account in accounts:
                self.ledger.append_pull(
                    PullRecord(
                        report=name,
                        day=day,
                        account_id=account,
                        period_start=start + length * part[0],
                        period_end=start + length * part[1],
                        pulled_at=NOW,
                        run_id="test",
                        sha256="",
                        **NO_ROWS,
                    )
                )

    def recordings(
        self,
        day: date,
        *,
        held: int = 0,
        pending: int = 0,
        size: int = 1_000_000,
        account: str = "15300002",
        source: str = "global_call_type_detail",
    ) -> None:
        lines = []
        for number in range(held + pending):
            state = RecordingState(
                recording_id=f"{account}/{source}/{day}-{number}.WAV",
                account_id=account,
                uii="1",
                layout="mono",
                source=source,
                date=day,
                status=Status.pending,
                next_attempt_at=NOW,
                run_id="test",
                written_at=NOW,
                link="https://c02-recordings.virtualacd.biz/x",
                found_on=day,
                first_seen_at=NOW,
            )
            if number < held:
                state = archived(
                    replace(state, written_at=NOW + ONE_DAY),
                    key=f"recordings/{day}-{number}.WAV",
                    size=size,
                    sha256="0" * 64,
                    duration_s=1.0,
                    etag=None,
                    version_id=None,
                    warnings=(),
                    now=NOW + ONE_DAY,
                    run_id="test",
                )
            lines.append(state)
        self.ledger.append_states(lines)

    def plan(self, first: date, last: date) -> dict[str, Any]:
        code = run("plan", ["--from", str(first), "--to", str(last), "--json", "plan.json"], clock=lambda: NOW)
        self.out, self.err = self.capsys.readouterr()
        assert code == 0, self.err
        found: dict[str, Any] = json.loads(Path("plan.json").read_text())
        return found

    def refused(self, *arguments: str) -> str:
        assert run("plan", list(arguments), clock=lambda: NOW) == 2
        self.out, self.err = self.capsys.readouterr()
        assert self.out == ""
        return self.err


@pytest.fixture
def make_chronicle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Chronicle]:
    """Without any log-in to RingCX, and with an S3 that nobody can reach: neither is needed."""

    def make(**variables: str) -> Chronicle:
        environment = {
            "RINGCX_ACCOUNT_IDS": "15300002",
            "ARCHIVE_BUCKET": "archive",
            "LEDGER_URL": "ledger",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
            **variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Chronicle(capsys, environment)

    return make


def limit(found: dict[str, Any], name: str) -> dict[str, Any]:
    (limit,) = [limit for limit in found["limits"] if limit["name"] == name]
    return limit


def row_of(found: dict[str, Any], day: date) -> dict[str, Any]:
    (row,) = [row for row in found["dates"] if row["date"] == str(day)]
    return row
