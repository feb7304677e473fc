"""`ringcx-archive ui` and `demo`: mistakes end in one sentence with code 2, before anything is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from pipelines.cli import ui
from pipelines.cli.main import main
from pipelines.cli.options import subcommand
from sandbox.s3 import rclone
from sandbox.stage import stage
from tests.cli.stubborn import ignores_ctrl_c, is_gone
from tests.servers.ports import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def as_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the DAGSTER_HOME of an account, and the present folder."""
    (home / "dagster.yaml").touch()
    (home / "workspace.yaml").touch()
    monkeypatch.chdir(home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002")
    monkeypatch.setenv("ARCHIVE_START_DATE", "2026-11-01")


def test_a_port_that_is_in_use_is_named(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--port", str(taken)]) == 2
    sentence = f"Port {taken} of 127.0.0.1 is in use, perhaps by another UI: give a free --port or UI_PORT.\n"
    assert capsys.readouterr().err == sentence


def test_a_port_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("UI_PORT", "abc")
    assert main(["ui"]) == 2
    output = capsys.readouterr().err
    assert "'abc' is not a valid integer range" in output
    assert output.count("\n") == 1


def test_an_account_without_its_dagster_home_starts_no_history_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / ".env").write_text("RINGCX_ACCOUNT_IDS=15300002\nARCHIVE_START_DATE=2026-11-01\n")
    (tmp_path / ".env").chmod(0o600)
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002")
    monkeypatch.setenv("ARCHIVE_START_DATE", "2026-11-01")
    free = free_port()
    assert main(["ui", "--port", str(free)]) == 2
    assert capsys.readouterr().err.startswith("DAGSTER_HOME is not set: set it to the absolute path of the folder that")
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_another_folder_than_the_accounts_does_not_start_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("RINGCX_ACCOUNT_IDS=15300002\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("RINGCX_ACCOUNT_IDS", raising=False)
    free = free_port()
    assert main(["ui", "--port", str(free)]) == 2
    sentence = f"The working folder is {elsewhere}, but .env is in {tmp_path}: change to that folder.\n"
    assert capsys.readouterr().err == sentence


def test_a_dagster_home_without_a_workspace_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_account(tmp_path, monkeypatch)
    (tmp_path / "workspace.yaml").unlink()
    free = free_port()
    assert main(["ui", "--port", str(free)]) == 2
    assert capsys.readouterr().err == f"There is no {tmp_path}/workspace.yaml: copy it from the project.\n"


def test_a_second_ui_of_a_dagster_home_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_account(tmp_path, monkeypatch)
    free = str(free_port())
    second = []

    def serve(*_: object) -> None:
        second.append(main(["ui", "--port", free]))

    monkeypatch.setattr(ui, "_serve", serve)
    assert main(["ui", "--port", free]) == 0
    assert second == [2]
    assert capsys.readouterr().err == f"Another UI of {tmp_path} is running: use that one, or stop it first.\n"
    monkeypatch.setattr(ui, "_serve", lambda *_: None)
    assert main(["ui", "--port", free]) == 0


@pytest.mark.filterwarnings("ignore")
def test_a_page_with_calls_that_does_not_start_is_said_and_nothing_else_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    as_account(tmp_path, monkeypatch)
    (tmp_path / "access.toml").write_text("[users.a]\nroles = ['boss']\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    monkeypatch.setenv("BROWSE_AUTH", "password")
    monkeypatch.setenv("BROWSE_ACCESS_FILE", str(tmp_path / "access.toml"))
    with socket.create_server(("127.0.0.1", 0)) as free_socket, socket.create_server(("127.0.0.1", 0)) as page_socket:
        free, page = free_socket.getsockname()[1], page_socket.getsockname()[1]
    monkeypatch.setenv("BROWSE_PORT", str(page))
    assert main(["ui", "--port", str(free)]) == 2
    output = capfd.readouterr()
    assert "users.a.roles.0" in output.err
    assert output.err.endswith("The calls page did not start; see its output above.\n")
    assert "Find and hear calls" not in output.out


@pytest.mark.filterwarnings("ignore")
def test_ctrl_c_ends_a_dagster_that_does_not_stop_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_account(tmp_path, monkeypatch)
    monkeypatch.setattr(ui, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(sys, "executable", str(ignores_ctrl_c(tmp_path)))
    free = free_port()
    assert main(["ui", "--port", str(free)]) == 0
    output = capsys.readouterr()
    assert output.out.endswith(
        "Stopping Dagster, which takes a few seconds.\nStopped. The UI had no run in progress.\n"
    )
    assert output.err == ""
    assert is_gone(tmp_path)


def test_without_an_account_and_without_the_programs_of_the_demo_both_ways_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.s3.sys", SimpleNamespace(executable=str(tmp_path / "python")))
    with pytest.raises(click.ClickException, match=r"rclone is missing: for the demo, run `make demo`.*write \.env$"):
        subcommand("ui", takes_dependencies=False)(rclone).main([], standalone_mode=False)


@pytest.mark.parametrize("port", ["taken", "abc"])
def test_the_demo_names_the_port_of_its_sandbox(taken: int, port: str, tmp_path: Path) -> None:
    value = str(taken) if port == "taken" else port
    environment = {**os.environ, "DEMO_HOME": str(tmp_path), "SANDBOX_PORT": value}
    command = [sys.executable, "-m", "pipelines.cli.main", "demo"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    sentence = f"Port {value} of 127.0.0.1 is in use" if port == "taken" else "SANDBOX_PORT must be a port number"
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(sentence)
    assert ended.stderr.count("\n") == 1


def test_a_server_of_the_demo_that_does_not_start_ends_it_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rclone").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "rclone").chmod(0o755)
    monkeypatch.setattr("sandbox.s3.sys", SimpleNamespace(executable=str(tmp_path / "python")))
    monkeypatch.setattr("sandbox.stage.DATA", tmp_path)
    monkeypatch.setattr("sandbox.stage.SOURCE_PORT", 0)
    monkeypatch.setattr("sandbox.stage.S3_PORT", 0)
    with (
        pytest.raises(click.ClickException, match=r"^rclone ended at once .* Nothing was archived; try again\.$"),
        stage(),
    ):
        pass
