"""`ringcx-archive plan` and the job `backfill_plan`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from pipelines.definitions import build_defs
from tests.commands import run
from tests.pipeline.conftest import MakeWorld, World
from tests.pipeline.plan.conftest import REPORTS, Chronicle, back

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "2026-11-20"), "Missing option '--to'"),
        (("--from", "2026-11-20", "--to", "2026-11-19"), "is after --to"),
        (("--from", "2026-11-20", "--to", "2026-11-25"), "is in the future"),
        (("--from", "2026-13-20", "--to", "2026-11-21"), "not a valid date"),
        (("--from", "yesterday", "--to", "2026-11-21"), "yesterday is not a valid date"),
        (("--from", "2019-12-31", "--to", "2026-11-21"), "before the first date of the archive, 2020-01-01"),
        (("--from", "2026-11-20", "--to", "2026-11-21", "--json", "nowhere/plan.json"), "there is no folder nowhere"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_sentence(
    make_chronicle: Callable[..., Chronicle], arguments: tuple[str, ...], sentence: str
) -> None:
    refusal = make_chronicle().refused(*arguments)
    assert sentence in refusal
    assert refusal.endswith(".\n")
    assert refusal.count("\n") == 1


def test_a_wrong_setting_ends_with_2_and_names_the_variable(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle(PLAN_PRICE_GB_MONTH="cheap")
    assert "PLAN_PRICE_GB_MONTH" in chronicle.refused("--from", "2026-11-20", "--to", "2026-11-21")


def test_a_damaged_ledger_is_no_history_but_an_error(make_chronicle: Callable[..., Chronicle]) -> None:
    chronicle = make_chronicle()
    chronicle.pulled(back(2))
    (part,) = Path(f"ledger/report_pulls/report={REPORTS[0]}/date={back(2)}").glob("*.parquet")
    part.write_bytes(b"PAR1 cut off")
    assert "cannot be read" in chronicle.refused("--from", str(back(3)), "--to", str(back(1)))


@pytest.mark.slow
def test_each_command_that_the_plan_ends_with_is_a_backfill_that_dagster_takes(
    make_chronicle: Callable[..., Chronicle], tmp_path: Path
) -> None:
    chronicle = make_chronicle(RINGCX_RETENTION_DAYS="12", RINGCX_RETENTION_MARGIN_DAYS="4")
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=ago) for ago in range(13, 9, -1)]
    chronicle.pulled(days[1])
    assert run("plan", ["--from", str(days[0]), "--to", str(days[-1])]) == 0
    printed = chronicle.capsys.readouterr().out
    commands = [line.strip() for line in printed.splitlines() if line.startswith("    .venv/bin/dagster ")]
    assert len(commands) == 2
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    basic = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    wanted = []
    for command in commands:
        words = shlex.split(command, comments=True)
        wanted.append((words[words.index("--from") + 1], words[words.index("--to") + 1]))
        words[0] = str(Path(sys.executable).parent / "dagster")
        result = subprocess.run(
            words,
            cwd=ROOT,
            env={**basic, **chronicle.variables, "ARCHIVE_START_DATE": "2020-01-01", "DAGSTER_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert result.returncode == 0, result.stderr
    with DagsterInstance.from_config(str(home)) as instance:
        launched = sorted(instance.get_backfills(), key=lambda backfill: backfill.backfill_timestamp)
        names = [list(backfill.partition_names or []) for backfill in launched]
    assert [(of_one[0], of_one[-1]) for of_one in names] == wanted
    assert sorted(name for of_one in names for name in of_one) == [str(day) for day in days if day != days[1]]


def planned_in_dagster(world: World, config: dict[str, str]) -> ExecuteInProcessResult:
    return (
        build_defs(environment=world.environment)
        .resolve_job_def("backfill_plan")
        .execute_in_process(
            instance=world.instance, run_config={"ops": {"plan_dates": {"config": config}}}, raise_on_error=False
        )
    )


def test_the_job_plans_what_its_config_asks_for(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    assert world.run(recent[0]).success
    asked = world.sandbox.counters()["requests"]
    result = planned_in_dagster(world, {"first_date": str(recent[0]), "last_date": str(recent[1])})
    (event,) = [event for event in result.events_for_node("plan_dates") if event.is_successful_output]
    metadata = {name: value.value for name, value in event.step_output_data.metadata.items()}
    assert (metadata["dates"], metadata["dates_to_run"]) == (2, 1)
    assert f"--from {recent[1]} --to {recent[1]} --noprompt" in metadata["plan"]
    assert world.sandbox.counters()["requests"] == asked, "a plan asks for nothing"


@pytest.mark.parametrize("config", [{"first_date": "soon"}, {"last_date": "2031-01-01"}, {"first_date": "2019-01-01"}])
def test_the_job_refuses_dates_that_there_are_not_in_a_sentence(make_world: MakeWorld, config: dict[str, str]) -> None:
    world = make_world()
    result = planned_in_dagster(world, config)
    assert not result.success
    (sentence,) = world.failures(result).values()
    assert "date" in sentence
