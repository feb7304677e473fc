"""The files in deploy/receiver name what there is: settings, paths, the image, the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.settings import ReceiverSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "receiver"
KNOWN = {name.upper() for name in ReceiverSettings.model_fields}
KUBERNETES: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.mark.parametrize("file", sorted(one.name for one in FOLDER.iterdir() if one.is_file()))
def test_every_setting_that_a_file_names_exists(file: str) -> None:
    text = (FOLDER / file).read_text()
    assert set(re.findall(r"\b(?:EVENTS|ARCHIVE)_[A-Z_]+\b", text)) <= KNOWN | {"ARCHIVE_IMAGE"}


def test_the_cluster_and_compose_start_the_receiver_without_rights_it_does_not_need() -> None:
    kinds = {one["kind"]: one for one in KUBERNETES}
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget"}
    spec = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    service = COMPOSE["services"]["receiver"]
    assert container["command"] == service["command"] == ["python", "-m", "pipelines.events"]
    assert service["image"] == f"${{ARCHIVE_IMAGE:-{container['image']}}}"
    assert container["securityContext"]["readOnlyRootFilesystem"] is service["read_only"] is True
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"] == labels == kinds["Deployment"]["spec"]["selector"]["matchLabels"]
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_a_proxy_passes_events_alone_and_logs_no_query(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert "127.0.0.1:8080" in text
    assert "404" in text
    assert "/health" not in text
    assert not re.search(r"\$(request|request_uri|args|query_string)\b", text)


def test_the_documentation_shows_the_proxy_that_is_shipped() -> None:
    docs = (ROOT / "docs" / "events.md").read_text()
    for line in (FOLDER / "nginx.conf").read_text().splitlines():
        if "proxy_" in line or "log" in line.split("#")[0]:
            assert line.strip().rstrip(";").split(";")[0] in docs
