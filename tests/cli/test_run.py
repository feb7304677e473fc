"""`ringcx-archive run`: mistakes end in one sentence with code 2, before there is a run or a history."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import boto3
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from moto import mock_aws
from sqlalchemy.exc import OperationalError

from pipelines.cli import run as run_command
from pipelines.cli.main import main
from pipelines.cli.options import Dependencies
from pipelines.orchestration import date_run
from tests.cli.stubborn import ignores_ctrl_c, is_gone
from tests.commands import ROOT

DAY = "2026-11-18"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ACCOUNT = {
    "RINGCX_ACCOUNT_IDS": "15300002",
    "RINGCX_API_TOKEN": "token",
    "ARCHIVE_BUCKET": "archive",
    "ARCHIVE_START_DATE": "2026-11-01",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dagster.yaml, which is DAGSTER_HOME and the working folder, and an account."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.chdir(home)
    for name, value in {**ACCOUNT, "DAGSTER_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    return home


def run(*arguments: str, s3: Any = None) -> int:
    return main(["run", *arguments], Dependencies(s3, lambda: NOW))


def history(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "dagster.yaml"]


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (("18.11.2026",), {}, "18.11.2026 is not a valid date; write it like 2026-11-18"),
        (("2026-02-30",), {}, "2026-02-30 is not a valid date"),
        (("2026-12-01",), {}, "2026-12-01 is in the future: give 2026-11-24 or an earlier date"),
        (("2026-10-31",), {}, "2026-10-31 is before the first date of the archive, 2026-11-01: give a later date, or"),
        ((), {}, "Give dates, or both --from and --to"),
        (("--from", DAY), {}, "Give dates, or both --from and --to"),
        (("--from", DAY, "--to", "2026-11-17"), {}, "--from 2026-11-18 is after --to 2026-11-17"),
        ((DAY,), {"DAGSTER_HOME": ""}, "DAGSTER_HOME is not set: set it to the absolute path of the folder that holds"),
        ((DAY,), {"DAGSTER_HOME": "home"}, "DAGSTER_HOME is home: set it to the absolute path"),
        (
            (DAY,),
            {"DAGSTER_HOME": "/nowhere"},
            "DAGSTER_HOME is /nowhere: set it to the absolute path of the folder that holds",
        ),
        ((DAY,), {"ARCHIVE_START_DATE": ""}, "ARCHIVE_START_DATE is not set: give the first date to archive"),
        (
            (DAY,),
            {"ARCHIVE_START_DATE": "01.11.2026"},
            "ARCHIVE_START_DATE is not a date; write it like 2026-09-01",
        ),
        ((DAY,), {"ARCHIVE_BUCKET": ""}, "ARCHIVE_BUCKET is not set: name the S3 bucket"),
        ((DAY,), {"RINGCX_ACCOUNT_IDS": ""}, "RINGCX_ACCOUNT_IDS is not set: list the RingCX sub-account ids"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_run(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    sentence: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert sentence in output.err
    assert history(home) == []


def test_without_an_env_file_its_folder_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARCHIVE_BUCKET")
    assert run(DAY) == 2
    assert capsys.readouterr().err.endswith(f"; there is no .env in {home}.\n")


def test_in_another_working_folder_the_folder_of_the_env_file_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".env").write_text("ARCHIVE_BUCKET=archive\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHIVE_BUCKET")
    assert run(DAY) == 2
    assert (
        capsys.readouterr().err == f"The working folder is {tmp_path}, but .env is in {home}: change to that folder.\n"
    )


def test_another_working_folder_starts_no_second_history(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(DAY) == 2
    assert capsys.readouterr().err == (
        f"The working folder is {tmp_path}, but the run history is kept in {home}: change to that folder.\n"
    )
    assert history(tmp_path) == ["home"]


def test_a_bucket_that_is_not_there_is_named_before_there_is_a_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock_aws():
        assert run(DAY, s3=boto3.client("s3")) == 2
    output = capsys.readouterr().err
    assert "There is no bucket archive" in output
    assert output.count("\n") == 1
    assert history(home) == []


@pytest.mark.filterwarnings("ignore")
def test_a_date_with_an_unfinished_run_gets_no_second_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock_aws(), DagsterInstance.get() as instance:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        instance.create_run_for_job(_job(), tags={"dagster/partition": DAY})
        assert run("--from", "2026-11-17", "--to", DAY, s3=s3) == 2
    assert capsys.readouterr().err.startswith(f"1 run has not ended ({DAY}): wait for the end, or terminate ")


@pytest.mark.filterwarnings("ignore")
def test_a_date_whose_run_and_its_starter_were_killed_can_be_run_again_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home / "program"
    program.write_text(f"#!/bin/sh\necho $$ > {home}/pid\nexec sleep 60\n")
    program.chmod(0o700)
    starter = (
        "import sys, time; from datetime import date; from pathlib import Path; from dagster import DagsterInstance;"
        f"from pipelines.orchestration import date_run; sys.executable = {str(program)!r};"
        f"started = date_run.running(DagsterInstance.get(), date(2026, 11, 18), Path({str(home / 'log')!r}));"
        "started.__enter__(); time.sleep(60)"
    )
    with DagsterInstance.get() as instance, subprocess.Popen([sys.executable, "-c", starter]) as process:
        while not (home / "pid").exists() or not (home / "pid").read_text().strip():
            assert process.poll() is None
            time.sleep(0.05)
        date_run.end_dead_runs(instance, home)
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.STARTING]
        process.kill()
        process.wait()
        date_run.end_dead_runs(instance, home)
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.STARTING], "its own process goes on"
        os.kill(int((home / "pid").read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not instance.get_runs()[0].is_finished:
            assert time.monotonic() < deadline
            date_run.end_dead_runs(instance, home)
        assert list((home / "runs").iterdir()) == []
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with date_run.running(instance, date(2026, 11, 18), home / "log") as again:
            assert again.process.wait() == 1
        assert list((home / "runs").iterdir()) == []


def test_ending_dead_runs_removes_no_file_that_is_not_the_lock_of_a_run(home: Path) -> None:
    (home / "runs").mkdir()
    others = [
        *(home / name for name in ("uv.lock", "requirements.lock", f"{uuid4()}.lock")),
        *(home / "runs" / name for name in ("poetry.lock", f"{uuid4()}.log", f"{uuid4().hex}.lock")),
    ]
    dead = home / "runs" / f"{uuid4()}.lock"
    for path in (*others, dead):
        path.touch()
    with DagsterInstance.get() as instance:
        date_run.end_dead_runs(instance, home)
    assert all(path.exists() for path in others)
    assert not dead.exists()


def test_a_process_that_dies_before_its_run_begins_fails_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DagsterInstance.get() as instance:
        with date_run.running(instance, date(2026, 11, 18), home / "log") as started:
            assert list(started.events())
        assert started.status.value == "FAILURE"


@pytest.mark.filterwarnings("ignore")
def test_a_date_whose_run_began_meanwhile_gets_no_second_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    @contextmanager
    def running(instance: DagsterInstance, day: date, log: Path) -> Iterator[Any]:
        if str(day) == DAY:
            with date_run.running(instance, day, log) as started:
                yield started
        ran.append(day)
        instance.create_run_for_job(_job(), tags={"dagster/partition": DAY})
        run = SimpleNamespace(run_id="run", step_keys_to_execute=())
        yield SimpleNamespace(run=run, events=lambda: (), status=DagsterRunStatus.SUCCESS)

    monkeypatch.setattr(run_command, "running", running)
    monkeypatch.setattr(run_command, "status", lambda *_, **__: iter([{"verdict": "complete", "sentence": "All."}]))
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run("--from", "2026-11-17", "--to", DAY, s3=s3) == 1
    assert ran == [date(2026, 11, 17)]
    assert capsys.readouterr().out == (
        "2026-11-17  complete: All.\n"
        f"{DAY}  skipped: another run of that date is in progress; follow it in the Dagster UI, or run the date again "
        "afterwards\n"
    )


@pytest.mark.filterwarnings("ignore")
def test_of_two_that_start_a_date_at_once_one_does_and_the_daemon_counts_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    DagsterInstance.get().dispose()  # makes the database
    at_once, both_tried = Barrier(2), Barrier(2)

    def start(number: int) -> str:
        with DagsterInstance.get() as instance:
            at_once.wait(60)
            try:
                with date_run.running(instance, date(2026, 11, 18), home / "log") as started:
                    both_tried.wait(60)
                    return str(number) + started.status.value
            except date_run.AnotherRun:
                both_tried.wait(60)
                return "refused"

    with ThreadPoolExecutor(2) as pool:
        refused, started = sorted(pool.map(start, range(2)), key=lambda how: how != "refused")
    assert (refused, started[1:]) == ("refused", "STARTING")
    with DagsterInstance.get() as instance:
        assert len(instance.get_runs()) == 1


@pytest.mark.filterwarnings("ignore")
def test_ctrl_c_ends_a_run_that_does_not_stop_in_time(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(date_run, "_STOP_SECONDS", 0.2)
    monkeypatch.setattr(sys, "executable", str(ignores_ctrl_c(home)))
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run(DAY, s3=s3) == 130
    output = capsys.readouterr()
    assert output.out.startswith("Stopped")
    assert output.out.endswith(f" Continue with: ringcx-archive run {DAY}\n")
    assert output.err == ""
    assert is_gone(home)
    with DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.CANCELED]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("fault", "reason", "statuses"),
    [
        ("log", "Is a directory", []),
        ("process", "No such file or directory", [DagsterRunStatus.FAILURE]),
    ],
)
def test_a_run_that_cannot_be_started_does_not_keep_its_date(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    fault: str,
    reason: str,
    statuses: list[Any],
) -> None:
    if fault == "log":
        (home / f"data/run-{DAY}.log").mkdir(parents=True)
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere")
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run(DAY, s3=s3) == 2
    log = f"data/run-{DAY}.log"
    assert capsys.readouterr().err == f"The run of {DAY}, which logs to {log}, could not be started ({reason}).\n"
    with DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == statuses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["_require_first", "serialize_value", "subprocess.Popen"])
def test_ctrl_c_while_a_run_starts_cancels_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    def ctrl_c(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"pipelines.orchestration.date_run.{where}", ctrl_c)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run(DAY, s3=s3) == 130
    assert capsys.readouterr().out.endswith(f" Continue with: ringcx-archive run {DAY}\n")
    with DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.CANCELED]


def _a_damaged_database(home: Path) -> None:
    (home / "data/dagster/history").mkdir(parents=True)
    (home / "data/dagster/history/runs.db").write_text("not what SQLite writes")


def _a_file_in_its_place(home: Path) -> None:
    (home / "data/dagster").mkdir(parents=True)
    (home / "data/dagster/history").touch()


def _an_unknown_setting(home: Path) -> None:
    (home / "dagster.yaml").write_text("storages: {}\n")


def _no_yaml(home: Path) -> None:
    (home / "dagster.yaml").write_text("storage: [\n")


def _a_variable_that_is_not_set(home: Path) -> None:
    (home / "dagster.yaml").write_text((ROOT / "deploy/compose/dagster.yaml").read_text())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            _a_damaged_database,
            "Dagster's run history, which {file} names, cannot be used (file is not a database): check",
        ),
        (
            _a_file_in_its_place,
            "Dagster's run history, which {file} names, cannot be used (File exists): check that file",
        ),
        (
            _an_unknown_setting,
            '{file} is wrong (Received unexpected config entry "storages" at the root): compare it with',
        ),
        (_no_yaml, "Dagster's run history, which {file} names, cannot be used (ParserError): check that file, and the"),
        (
            _a_variable_that_is_not_set,
            "DAGSTER_POSTGRES_URL is not set, and {file} needs it: set it as for the Dagster",
        ),
    ],
)
def test_a_history_that_cannot_be_used_ends_in_one_sentence(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    spoil: Callable[[Path], None],
    sentence: str,
) -> None:
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    spoil(home)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run(DAY, s3=s3) == 2
    output = capsys.readouterr()
    assert output.err.startswith(sentence.format(file=home / "dagster.yaml"))
    assert (output.out, output.err.count("\n")) == ("", 1)


@pytest.mark.filterwarnings("ignore")
def test_a_history_that_cannot_be_written_any_more_ends_in_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> Any:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(DagsterInstance, "create_run_for_job", full)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="archive")
        assert run(DAY, s3=s3) == 2
    output = capsys.readouterr().err
    assert "cannot be used (database or disk is full): check that file, and the disk's space and rights" in output
    assert output.count("\n") == 1


def _job() -> Any:
    from pipelines.definitions import build_defs

    return build_defs().resolve_job_def("archive_day")
