"""The files of deploy/: what Dagster, Docker Compose and systemd are told, as far as it can be judged without them."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance
from dagster_celery.launcher import CeleryRunLauncher

from pipelines.settings import Settings
from sandbox.postgres import LocalPostgres

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CELERY = DEPLOY / "celery"
BIN = Path(sys.executable).parent
# What deploy/celery/dagster.yaml reads apart from the product's own settings.
INSTANCE_VARIABLES = {"DAGSTER_POSTGRES_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
SECRET = re.compile(r"(PASSWORD|SECRET|JWT|TOKEN|_URL|_BACKEND|KEY)")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def database(postgres_server: LocalPostgres) -> str:
    return postgres_server.make_database("dagster")


@pytest.fixture
def home(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME of the Celery deployment."""
    shutil.copy(CELERY / "dagster.yaml", tmp_path)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_POSTGRES_URL": database,
        "CELERY_RESULT_BACKEND": f"db+{database}",
        "CELERY_BROKER_URL": "amqp://archive:secret@broker.example:5672//",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_dagster_loads_the_instance_of_one_machine(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled


def test_dagster_loads_the_instance_of_many_machines(home: Path, database: str) -> None:
    with DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, CeleryRunLauncher)
        assert instance.run_launcher.broker == os.environ["CELERY_BROKER_URL"]
        settings = instance.run_launcher.config_source
        # RabbitMQ may take a task back only after Dagster has given its run up.
        timeout = re.search(r"^consumer_timeout = (\d+)$", (CELERY / "rabbitmq.conf").read_text(), re.MULTILINE)
        assert timeout is not None
        assert int(timeout[1]) / 1000 > instance.run_monitoring_max_runtime_seconds > 0
        assert settings["worker_prefetch_multiplier"] == 1
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert not instance.run_retries_retry_on_asset_or_op_failure


@pytest.mark.parametrize("file", [ROOT / "dagster.yaml", CELERY / "dagster.yaml"], ids=["one machine", "many machines"])
def test_every_instance_lets_one_run_of_a_date_go_on_at_once_and_leaves_room_beside_a_backfill(file: Path) -> None:
    runs = load(file)["concurrency"]["runs"]
    limits = {limit["key"]: limit for limit in runs["tag_concurrency_limits"]}
    assert limits["dagster/partition"]["limit"] == 1
    assert limits["dagster/partition"]["value"] == {"applyLimitPerUniqueValue": True}
    assert limits["dagster/backfill"]["limit"] + limits["archive/older_date"]["limit"] < runs["max_concurrent_runs"]


def test_a_runs_message_to_the_workers_holds_no_secret(home: Path) -> None:
    with DagsterInstance.get() as instance:
        reference = str(instance.get_ref())
    assert "CELERY_BROKER_URL" in reference
    assert "broker.example" not in reference
    assert "postgresql://" not in reference


def test_the_worker_takes_all_its_configuration_from_dagsters(home: Path) -> None:
    code = (
        "from pipelines.celery_worker import app; t = app.tasks['execute_job'];"
        "print(app.conf.broker_url, t.acks_late, t.reject_on_worker_lost, app.conf.worker_max_tasks_per_child)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["amqp://archive:secret@broker.example:5672//", "True", "True", "1"]


def test_the_worker_says_which_dagster_yaml_it_needs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    command = [sys.executable, "-c", "from pipelines.celery_worker import app"]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "take deploy/celery/dagster.yaml" in ended.stderr


@pytest.mark.slow
def test_the_init_step_makes_the_tables_and_sets_the_pools(home: Path) -> None:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([DEPLOY / "init.sh"], env=os.environ | {"PATH": path, "POOL_MEDIA": "3"}, cwd=home, check=True)
    with DagsterInstance.get() as instance:
        pools = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert pools == {"ringcx_reports": 8, "ringcx_metadata": 8, "ringcx_media": 3}


def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = load(CELERY / "compose.yaml")["services"]
    return read


def test_compose_runs_one_daemon_after_the_init_step_and_programs_that_exist() -> None:
    built = {name: service for name, service in services().items() if "build" in service}
    assert set(built) == {"init", "webserver", "daemon", "worker"}
    for name, service in built.items():
        if name != "init":
            assert service["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
        if "command" in service and not service["command"][0].startswith("/"):
            assert (BIN / service["command"][0]).exists()
    assert [name for name, service in built.items() if service.get("command", [""])[0] == "dagster-daemon"] == [
        "daemon"
    ]
    assert "deploy" not in built["daemon"], "exactly one daemon"


def test_compose_keeps_the_ui_on_this_machine_and_every_secret_in_files_outside_of_git() -> None:
    assert services()["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
    ignored = (CELERY / ".gitignore").read_text().split()
    for service in services().values():
        if "env_file" in service:
            assert service["env_file"] in ignored
        assert not [
            name for name in service.get("environment", {}) if SECRET.search(name) and not name.endswith("_FILE")
        ]
    assert set(ignored) == {"environment", "broker", "postgres_password"}


def test_compose_gives_rabbitmq_the_timeout_and_no_two_machines_a_disk() -> None:
    assert "./rabbitmq.conf:/etc/rabbitmq/conf.d/20-archive.conf:ro" in services()["rabbitmq"]["volumes"]
    for name in ("webserver", "daemon", "worker"):
        assert "volumes" not in services()[name]


def test_the_example_of_the_environment_names_known_variables_and_shares_the_request_budget() -> None:
    lines = [line for line in (CELERY / "environment.example").read_text().splitlines() if line and line[0] != "#"]
    named = dict(row.split("=", 1) for row in lines)
    known = {name.upper() for name in Settings.model_fields} | INSTANCE_VARIABLES
    assert {name for name in named if not name.startswith("AWS_")} <= known
    assert set(named) >= INSTANCE_VARIABLES
    assert named["RATE_LIMIT_URL"].startswith("postgresql://")
    for name in ("RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY"):
        assert named[name] == ""


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("*.service")), ids=lambda path: path.stem)
def test_what_a_systemd_unit_writes_is_its_owners_alone(file: Path) -> None:
    assert "\nUMask=0077\n" in file.read_text()


@pytest.mark.parametrize("what", ["webserver", "daemon", "worker"])
def test_a_systemd_unit_starts_a_program_of_the_environment_with_settings_from_a_file(what: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(CELERY / "systemd" / f"ringcx-archive-{what}.service")
    service = unit["Service"]
    program = Path(shlex.split(service["ExecStart"])[0])
    assert program.parent == Path("/srv/ringcx-archive/.venv/bin")
    assert (BIN / program.name).exists()
    assert service["EnvironmentFile"] == "/etc/ringcx-archive/environment"
    assert service["Restart"] == "always"
    if what == "daemon":
        before = Path(service["ExecStartPre"])
        assert os.access(ROOT / before.relative_to("/srv/ringcx-archive"), os.X_OK)


@pytest.mark.parametrize("what", ["", "-viewer"])
def test_the_units_of_one_machine_use_its_history_and_the_viewers_one_is_read_only(what: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "ui" / f"ringcx-archive{what}.service")
    service = unit["Service"]
    program = shlex.split(service["ExecStart"])
    assert (BIN / Path(program[0]).name).exists()
    assert service["Environment"] == f"DAGSTER_HOME={service['WorkingDirectory']}"
    assert service["ReadWritePaths"] == f"{service['WorkingDirectory']}/data"
    assert ("--read-only" in program) == (what == "-viewer")
