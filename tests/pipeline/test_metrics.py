"""`ringcx-archive metrics`: the numbers of `status`, as Prometheus reads them."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipelines.cli import metrics as metrics_command
from pipelines.cli.metrics import metrics
from pipelines.events.app import Receiver
from pipelines.events.files import LocalEvents
from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.settings import ReceiverSettings
from pipelines.steps.check.status import status
from tests.commands import ROOT, run
from tests.pipeline.conftest import MakeWorld

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROW = {
    "verdict": "complete",
    "expected": 5,
    "held": 5,
    "held_bytes": 5_000,
    "waiting": 0,
    "late": 0,
    "lost": {},
    "accepted_losses": 0,
    "days_left": 40,
}
GAPS = ROW | {"verdict": "gaps", "held": 2, "late": 1, "lost": {"not_found": 2}, "days_left": 12}
UNKNOWN = ROW | {"verdict": "unknown", "expected": None, "held": 1, "held_bytes": 1, "days_left": 30}


def read(text: str) -> dict[str, float]:
    """Each sample by its name and labels, such as `dates{verdict=gaps}`, without the prefix that all share."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            name = sample.name.removeprefix("ringcx_archive_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def test_dates_and_recordings_are_counted_over_all_dates() -> None:
    found = read(metrics([ROW, GAPS, UNKNOWN], [("reports", "15300002", 3)], NOW))
    assert found == {
        "dates{verdict=complete}": 1,
        "dates{verdict=gaps}": 1,
        "dates{verdict=unknown}": 1,
        "dates{verdict=waiting}": 0,
        "recordings_expected": 10,
        "recordings_held": 8,
        "held_bytes": 10_001,
        "recordings_waiting": 0,
        "recordings_overdue": 1,
        "recordings_accepted_as_lost": 0,
        "recordings_lost{reason=not_found}": 2,
        "days_left": 12,
        "permits_waiting{account=15300002,limit=reports}": 3,
        "asked_timestamp_seconds": NOW.timestamp(),
    }


def test_every_sum_over_dates_says_that_a_recording_of_two_dates_counts_for_both() -> None:
    families = text_string_to_metric_families(metrics([GAPS], [], NOW))
    counts_twice = {family.name for family in families if "counts for both" in family.documentation}
    sums = (
        "recordings_expected",
        "recordings_held",
        "held_bytes",
        "recordings_waiting",
        "recordings_overdue",
        "recordings_accepted_as_lost",
        "recordings_lost",
    )
    assert counts_twice == {f"ringcx_archive_{name}" for name in sums}


def test_days_are_left_only_while_a_date_is_not_complete() -> None:
    assert "days_left" not in read(metrics([ROW, ROW], [], NOW))


def test_the_command_says_what_status_says_and_its_file_is_for_every_user(
    make_world: MakeWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make_world(sandbox={"calls_per_day": (3, 3)}, LEDGER_URL="ledger")
    day = datetime.now(UTC).date() - timedelta(days=2)
    assert world.run(day).success
    monkeypatch.setenv("ARCHIVE_START_DATE", str(day))
    rows: list[dict[str, Any]] = []

    def remember_status(*arguments: Any, **named: Any) -> list[dict[str, Any]]:
        rows.extend(status(*arguments, **named))
        return rows

    monkeypatch.setattr(metrics_command, "status", remember_status)
    file = tmp_path / "ringcx_archive.prom"
    assert run("metrics", ["--file", str(file)], world.s3) == 0
    assert capsys.readouterr().err == f"{file} was written.\n"
    found = read(file.read_text())
    assert [row["date"] for row in rows] == [str(day), str(day + timedelta(days=1))]
    assert found["recordings_held"] == sum(row["held"] for row in rows) > 0
    # What this date found and stored under the next counts for both, as in `status`.
    this, other = (
        sum(state.size or 0 for state in world.states(of_day).values()) for of_day in (day, day + timedelta(days=1))
    )
    assert found["held_bytes"] == this + 2 * other > 0
    assert found["dates{verdict=unknown}"] == 1
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_requests_that_wait_for_a_permit_are_counted_and_those_that_left_are_not(tmp_path: Path) -> None:
    stop = threading.Event()
    limiter = RateLimiter(tmp_path / "limits.sqlite")
    rates = [Rate(1, 3600)]
    limiter.acquire("reports", "15300002", rates)

    def wait() -> None:
        with pytest.raises(Stopped):
            limiter.acquire("reports", "15300002", rates, stop=stop)

    waiter = threading.Thread(target=wait)
    waiter.start()
    other = RateLimiter(tmp_path / "limits.sqlite")
    until = time.monotonic() + 20
    while other.waiting() != [("reports", "15300002", 1)]:
        assert time.monotonic() < until
        time.sleep(0.02)
    stop.set()
    waiter.join(20)
    assert [count for _, _, count in other.waiting()] == [0]
    limiter.close()
    other.close()


def test_each_rule_of_the_example_is_about_a_number_that_exists(tmp_path: Path) -> None:
    settings = ReceiverSettings(events_url=str(tmp_path), events_allow_anyone=True)
    families = [family.name for family in Receiver(LocalEvents(tmp_path), settings).collect()]
    text = metrics([ROW, GAPS], [], NOW)
    exist = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | set(families)
    (group,) = yaml.safe_load((ROOT / "deploy" / "metrics" / "rules.yaml").read_text())["groups"]
    used = {name for rule in group["rules"] for name in re.findall(r"ringcx_archive_\w+", rule["expr"])}
    assert used
    assert used <= exist
