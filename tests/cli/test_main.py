"""`ringcx-archive` itself: help that is quick, and mistakes that end in one sentence and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pipelines.cli import main as cli
from pipelines.cli.options import Dependencies
from tests.commands import ROOT, run

SUBCOMMANDS = sorted(
    path.stem.replace("_", "-")
    for path in (ROOT / "pipelines/cli").glob("*.py")
    if path.stem not in {"__init__", "call_filters", "history", "main", "options", "progress"}
)


def test_the_help_names_every_subcommand_and_the_exit_codes_and_loads_nothing_heavy() -> None:
    code = "import sys; from pipelines.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shown, _, loaded = shown.rpartition("\n[")
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.split()[0] in SUBCOMMANDS]
    assert all(f"\n  {name} " in shown for name in SUBCOMMANDS)
    assert "Exit codes: 0 " in shown
    assert not [name for name in ("boto3", "dagster", "httpx", "pandas", "pyarrow") if f"'{name}'" in loaded]


def test_the_subcommands_that_judge_no_date_start_without_pandas() -> None:
    code = "import sys; from pipelines.cli import access, browse, export, find, ui; print('pandas' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_subcommand_has_a_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, ["--help"]) == 0
    assert f"Example:\n    ringcx-archive {name}" in capsys.readouterr().out


def test_the_console_script_is_this_command() -> None:
    (script,) = entry_points(group="console_scripts", name="ringcx-archive")
    assert script.load() is cli.main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing command (see ringcx-archive --help).\n"),
        (["statsu"], "No such command 'statsu'; did you mean status? (see ringcx-archive --help).\n"),
        (["xyzzy"], "No such command 'xyzzy' (see ringcx-archive --help).\n"),
        (["find", "--state", ""], "Invalid value for '--state': '' is not one of 'pending', 'archived', 'missing'"),
        (["find", "--direction", "up"], "Invalid value for '--direction': 'up' is not one of 'inbound', 'outbound'"),
        (["status", "--from", "11/23/2026"], "11/23/2026 is not a valid date; write it like 2026-11-18"),
        (["status", "--from", "2999-01-01", "--to", "2999-01-02"], "2999-01-02 is in the future"),
        (["status", "2026-11-18"], "Got unexpected extra argument"),
        (["status", "--json", "."], "is a directory"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_code_2(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_without_settings_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHIVE_BUCKET", raising=False)
    assert run("status", []) == 2
    assert capsys.readouterr().err.startswith("ARCHIVE_BUCKET is not set: ")


def test_an_interrupt_ends_with_one_sentence_and_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    assert cli.main(["status"], Dependencies(clock=interrupted)) == 130
    assert capsys.readouterr().err.strip() == "Stopped early: anything not shown above was not done."


def test_a_file_that_was_not_finished_leaves_the_earlier_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = import_module("pipelines.cli.status")
    file = tmp_path / "status.json"
    file.write_text("earlier")
    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr(status, "status", lambda *_, **__: iter([]))
    monkeypatch.setattr("pipelines.cli.options.json.dumps", lambda *_, **__: "\ud800")  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        run("status", ["--json", str(file)])
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert file.read_text() == "earlier"


def test_a_shell_completes_subcommands_and_options() -> None:
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'x'; from pipelines.cli.main import main; main()"]

    def completed(words: str, number: int) -> str:
        variables = {"_RINGCX_ARCHIVE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        environment = {**os.environ, **variables}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout

    assert completed("ringcx-archive ver", 1) == "plain,verify-package\nplain,verify\n"
    assert "plain,--require-complete" in completed("ringcx-archive verify --re", 2)


def test_whatever_the_umask_what_a_command_writes_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert cli.main(["--version"]) == 0
        (tmp_path / "certificate.html").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "certificate.html").stat().st_mode & 0o777 == 0o600
