"""deploy/compose: one machine. What `docker compose config` would make of it, and what Dagster makes of its files."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance
from dotenv import dotenv_values

from pipelines.browser.people import read_access_file
from pipelines.settings import BrowseSettings, ReceiverSettings, Settings, load
from tests.deploy import compose

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
BIN = Path(sys.executable).parent
# The filled-in proxy.example.
PROXY = {
    "UI_SITE": "archive.example.com",
    "VIEW_SITE": "view.example.com",
    "RECEIVER_SITE": "events.example.com",
    "CALLS_SITE": "calls.example.com",
    "UI_PASSWORD_HASH": "$2a$14$hash",
    "VIEW_PASSWORD_HASH": "$2a$14$hash",
}
EXAMPLES = ("proxy.example", "environment.example", "browse.environment.example")
OF_DAGSTER = ("init", "code", "webserver", "viewer", "daemon")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = compose.config(FOLDER / "compose.yaml", PROXY)["services"]
    return read


@pytest.mark.parametrize("name", sorted(PROXY))
def test_what_the_proxy_needs_is_asked_for_before_anything_starts(name: str) -> None:
    with pytest.raises(compose.ComposeError, match=f"^{name}: "):
        compose.config(FOLDER / "compose.yaml", PROXY | {name: ""})


def test_what_is_filled_in_once_is_all_that_the_file_asks_for() -> None:
    example = dotenv_values(FOLDER / "proxy.example")
    asked = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text()))
    assert set(example) == asked - {"ARCHIVE_IMAGE"}
    assert {name for name, value in example.items() if not value} == set(PROXY)


def test_only_the_proxy_can_be_reached_from_other_machines(services: dict[str, dict[str, Any]]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "proxy": ["80:80", "443:443"]
    }
    assert not [name for name, service in services.items() if "network_mode" in service or "privileged" in service]


def test_each_service_starts_after_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    needed = {name: dict.fromkeys(service.get("depends_on", ()), "") for name, service in services.items()}
    for name, service in services.items():
        if isinstance(service.get("depends_on"), dict):
            needed[name] = {other: how["condition"] for other, how in service["depends_on"].items()}
    assert needed == {
        "postgres": {},
        "init": {"postgres": "service_healthy"},
        "code": {"init": "service_completed_successfully"},
        "webserver": {"code": "service_healthy"},
        "viewer": {"code": "service_healthy"},
        "daemon": {"code": "service_healthy"},
        "receiver": {},
        "browse": {},
        "proxy": {"webserver": "", "viewer": "", "receiver": "", "browse": ""},
    }


def test_one_daemon_and_one_read_only_web_server_run_programs_that_exist(services: dict[str, dict[str, Any]]) -> None:
    commands = {name: service["command"] for name, service in services.items() if "command" in service}
    assert set(commands) == {*OF_DAGSTER, "receiver", "browse"}
    assert [name for name, command in commands.items() if command[0] == "dagster-daemon"] == ["daemon"]
    assert [name for name, command in commands.items() if "--read-only" in command] == ["viewer"]
    for name, command in commands.items():
        assert name == "init" or (BIN / command[0]).exists()
    workspace = yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert commands["code"][-1] == str(workspace["port"])
    assert workspace["host"] == "code"
    assert commands["code"][4] == "pipelines.definitions"


def test_what_must_last_is_on_a_volume_and_the_rest_is_read_only(services: dict[str, dict[str, Any]]) -> None:
    volumes = compose.config(FOLDER / "compose.yaml", PROXY)["volumes"]
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {volume for volume in used if not volume.startswith(".")} == set(volumes)
    for name in ("code", "receiver"):
        assert "events:/events" in services[name]["volumes"]
    for name in (*OF_DAGSTER, "receiver", "browse", "proxy"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    for name in OF_DAGSTER:
        assert "./dagster.yaml:/opt/dagster/dagster_home/dagster.yaml:ro" in services[name]["volumes"]


def test_the_folder_of_events_is_the_images_users_own() -> None:
    assert re.search(r"install .*--owner archive .*--mode 700 /events", (ROOT / "deploy" / "Dockerfile").read_text())


def test_every_secret_is_in_a_file_outside_of_git(services: dict[str, dict[str, Any]]) -> None:
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert set(ignored) == {".env", "access/access.toml", "browse.environment", "environment", "postgres_password"}
    files = {name: service["env_file"] for name, service in services.items() if "env_file" in service}
    assert files == dict.fromkeys((*OF_DAGSTER, "receiver"), "environment") | {"browse": "browse.environment"}
    examples = [dotenv_values(FOLDER / name) for name in EXAMPLES]
    for name in ("EVENTS_PASSWORD", "RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY"):
        assert {example[name] for example in examples if name in example} == {""}


def test_the_page_with_calls_knows_no_secret_of_the_others_and_only_the_proxy_reaches_it(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert services["browse"]["networks"] == ["calls"]
    assert [name for name, service in services.items() if "calls" in service.get("networks", ())] == ["browse", "proxy"]
    named = dotenv_values(FOLDER / "browse.environment.example")
    assert set(named) <= {name.upper() for name in BrowseSettings.model_fields} | {
        name for name in named if "AWS_" in name
    }
    given = {name: value or "eu-central-1" for name, value in named.items()} | {"BROWSE_SECRET": "s" * 64}
    monkeypatch.chdir(tmp_path)
    for name, value in (given | services["browse"]["environment"]).items():
        monkeypatch.setenv(name, value)
    settings = load(BrowseSettings)
    assert (settings.browse_auth, settings.browse_origin) == ("password", "https://calls.example.com")
    folder = services["browse"]["volumes"][0].split(":")[1]
    assert str(settings.browse_access_file) == f"{folder}/access.toml"
    assert read_access_file(FOLDER / "access" / "access.example.toml").users["m_weber"].roles
    assert services["proxy"]["environment"]["CALLS_ADDRESS"] == f"browse:{settings.browse_port}"
    assert services["code"]["environment"] == {"BROWSE_URL": settings.browse_origin}


def test_the_example_of_the_environment_names_settings_that_exist() -> None:
    named = set(dotenv_values(FOLDER / "environment.example"))
    known = {name.upper() for kind in (Settings, ReceiverSettings) for name in kind.model_fields}
    assert {name for name in named if not name.startswith("AWS_")} <= known | {"DAGSTER_POSTGRES_URL"}
    assert "RATE_LIMIT_URL" in named, "a file in a container's scratch folder would be forgotten"


def test_the_proxy_has_the_files_that_are_tested_with_a_real_caddy(services: dict[str, dict[str, Any]]) -> None:
    mounted = [volume.split(":") for volume in services["proxy"]["volumes"] if volume.startswith(".")]
    assert all((FOLDER / source).is_file() for source, *_ in mounted)
    assert {source: target for source, target, _ in mounted} == {
        "./Caddyfile": "/etc/caddy/Caddyfile",
        "../ui/Caddyfile": "/etc/caddy/sites/ui",
        "../receiver/Caddyfile": "/etc/caddy/sites/receiver",
        "../browse/Caddyfile": "/etc/caddy/sites/browse",
    }
    read = {name for file in ("ui", "receiver", "browse") for name in _variables(ROOT / "deploy" / file / "Caddyfile")}
    assert set(services["proxy"]["environment"]) == read
    assert services["proxy"]["environment"]["UI_PASSWORD_HASH"] == "$2a$14$hash"


def _variables(file: Path) -> list[str]:
    return re.findall(r"\{\$(\w+)", file.read_text())


def test_dagster_takes_the_instance_and_its_limits_are_those_of_one_machine(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FOLDER / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
    composed, plain = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (FOLDER, ROOT))
    for name in ("concurrency", "run_monitoring", "run_retries", "schedules", "sensors", "telemetry"):
        assert composed[name] == plain[name]


def test_other_machines_reach_the_database_and_the_broker_only_by_an_address_that_somebody_named() -> None:
    file = ROOT / "deploy" / "celery" / "more-machines.yaml"
    with pytest.raises(compose.ComposeError, match=r"^PRIVATE_ADDRESS: "):
        compose.config(file, {})
    opened = compose.config(file, {"PRIVATE_ADDRESS": "10.0.0.5"})["services"]
    assert {name: service["ports"] for name, service in opened.items()} == {
        "postgres": ["10.0.0.5:5432:5432"],
        "rabbitmq": ["10.0.0.5:5672:5672"],
    }
    assert set(opened) <= set(compose.config(file.parent / "compose.yaml", {})["services"])
