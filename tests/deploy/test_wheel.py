"""A wheel of the project, installed into an environment of its own and run where there is no checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ("demo", "ui", "run", "status", "verify", "certificate", "plan", "check", "receiver", "browse", "access")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """An environment's interpreter. It has our dependencies by a path, and of the project the wheel alone."""
    home = wheel.parent / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--python", str(python), "--offline"]
    subprocess.run([*command, "--no-deps", str(wheel)], check=True, capture_output=True, timeout=120)
    (packages,) = home.glob("lib/python*/site-packages")
    # What is on a path that a .pth names has no .pth of its own read: so not the editable install of the checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = program.parents[1]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DAGSTER_HOME": str(home)}
    environment |= {"ARCHIVE_BUCKET": "archive", "ARCHIVE_START_DATE": "2026-11-01"}
    environment |= {"RINGCX_ACCOUNT_IDS": "15300002", "RINGCX_API_TOKEN": "token"}
    return subprocess.run(
        [str(program), *arguments], cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=150
    )


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"pipelines", "assets", "ringcx_archive"}
    pages = {"templates/call.html", "static/page.css", "static/player.js"}
    assert {"pipelines/cli/certificate.html", *(f"pipelines/browser/{page}" for page in pages)} <= set(names)
    assert not [name for name in names if name.endswith((".env", ".parquet", ".pyc"))]


@pytest.mark.slow
def test_the_definitions_load_and_are_valid_without_a_checkout(installed: Path) -> None:
    found = run(installed, "-c", "import pipelines.definitions, assets; print(pipelines.__file__, assets.__file__)")
    assert found.returncode == 0, found.stderr[-2000:]
    assert all(str(installed.parents[1]) in file for file in found.stdout.split())
    valid = run(installed, "-m", "dagster", "definitions", "validate", "-m", "pipelines.definitions")
    assert valid.returncode == 0, valid.stderr[-2000:]


@pytest.mark.slow
def test_the_commands_run_without_a_checkout(installed: Path) -> None:
    assert run(installed.with_name("ringcx-archive"), "--version").stdout == (
        f"ringcx-archive {version('ringcx-archive')}\n"
    )
    # In one process: it imports Dagster once, and each command loads what it needs.
    code = f"from pipelines.cli.main import main; print([main([name, '--help']) for name in {COMMANDS}])"
    found = run(installed, "-c", code)
    assert found.returncode == 0, found.stderr[-2000:]
    assert re.findall(r"^Usage: ringcx-archive (\S+) ", found.stdout, re.MULTILINE) == list(COMMANDS)
    assert found.stdout.splitlines()[-1] == str([0] * len(COMMANDS))


@pytest.mark.slow
def test_the_demo_says_in_a_sentence_that_a_wheel_has_no_sandbox(installed: Path) -> None:
    found = run(installed.with_name("ringcx-archive"), "demo")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "No account is set, and the sandbox is not installed (sandbox is missing): write .env, or clone the project "
        "and run `make demo` in it.\n"
    )
