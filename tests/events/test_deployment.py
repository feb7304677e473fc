"""The files in deploy/receiver name what there is: settings, paths, the image, the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pipelines.events.files import LocalEvents
from pipelines.settings import ReceiverSettings
from tests.deploy.proxies import PROXIES, proxy
from tests.events.conftest import stored_calls
from tests.events.receivers import AUTHORIZATION, ReceiverProcess, event

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "receiver"
KNOWN = {name.upper() for name in ReceiverSettings.model_fields}
KUBERNETES: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.iterdir() if path.is_file()))
def test_every_setting_that_a_file_names_exists(file: str) -> None:
    text = (FOLDER / file).read_text()
    assert set(re.findall(r"\b(?:EVENTS|ARCHIVE)_[A-Z_]+\b", text)) <= KNOWN | {"ARCHIVE_IMAGE"}


def test_the_cluster_and_compose_start_the_receiver_without_rights_it_does_not_need() -> None:
    kinds = {document["kind"]: document for document in KUBERNETES}
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget"}
    spec = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    service = COMPOSE["services"]["receiver"]
    assert container["command"] == service["command"] == ["ringcx-archive", "receiver"]
    assert service["image"] == f"${{ARCHIVE_IMAGE:-{container['image']}}}"
    assert container["securityContext"]["readOnlyRootFilesystem"] is service["read_only"] is True
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"] == labels == kinds["Deployment"]["spec"]["selector"]["matchLabels"]
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_the_page_shows_the_proxies_that_are_shipped_and_tested_here() -> None:
    docs = (ROOT / "docs" / "events.md").read_text()
    for name in ("nginx.conf", "Caddyfile"):
        assert f"\n{(FOLDER / name).read_text()}```\n" in docs


@pytest.mark.parametrize("program", PROXIES)
def test_a_proxy_passes_events_alone_and_logs_no_query(program: str, events_folder: Path, tmp_path: Path) -> None:
    headers = {"Authorization": AUTHORIZATION, "Host": "events.example.com"}
    with (
        ReceiverProcess(events_folder) as receiver,
        proxy(program, tmp_path, FOLDER, {"127.0.0.1:8080": f"127.0.0.1:{receiver.port}"}) as address,
        httpx.Client(base_url=address, headers=headers, timeout=30) as client,
    ):
        fields = {name: value or "" for name, value in event(7).items()}
        answers = [
            client.post("/events", params=fields).status_code,
            client.post("/events", json=event(8)).status_code,
            client.get("/health").status_code,
            client.post("/events/", json=event(9)).status_code,
        ]
        assert answers == [200, 200, 404, 404], (tmp_path / "output").read_text()
    assert stored_calls(LocalEvents(events_folder)) == [event(7)["call_id"], event(8)["call_id"]]
    written = "".join(path.read_text(errors="replace") for path in tmp_path.glob("*") if path.is_file())
    assert event(7)["ani"] not in written
