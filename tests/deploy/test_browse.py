"""deploy/browse: its files name what there is, and what reaches the page through the real nginx and the real Caddy."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from pipelines.settings import BrowseSettings
from tests.deploy.proxies import PROXIES, proxy
from tests.servers.scripted_http import Request, Response, ScriptedServer

FOLDER = Path(__file__).parents[2] / "deploy" / "browse"
BLOCK, BLOCKS = bytes(1 << 20), 64


class Page(ScriptedServer):
    """Repeats the headers it was sent, or sends a long recording and counts its blocks."""

    def __init__(self) -> None:
        super().__init__(self._page)
        self.sent = 0

    def _page(self, request: Request) -> Response:
        if request.path.startswith("/audio/"):
            return Response(body=self._blocks(), length=len(BLOCK) * BLOCKS)
        return Response(body="".join(f"{name}: {value}\n" for name, value in request.headers.items()).encode())

    def _blocks(self) -> Iterator[bytes]:
        for _ in range(BLOCKS):
            yield BLOCK
            self.sent += 1


@dataclass(frozen=True)
class Proxied:
    """The page behind a proxy, whose files are in `folder`."""

    page: Page
    client: httpx.Client
    folder: Path


@pytest.fixture(scope="module", params=PROXIES)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        Page() as page,
        proxy(request.param, folder, FOLDER, {"127.0.0.1:8090": page.host}) as address,
        httpx.Client(base_url=address, headers={"Host": "calls.example.com"}, timeout=30) as client,
    ):
        yield Proxied(page, client, folder)


def test_every_setting_that_a_file_names_exists() -> None:
    known = {name.upper() for name in BrowseSettings.model_fields}
    for file in FOLDER.iterdir():
        assert set(re.findall(r"\b(?:BROWSE|ARCHIVE)_[A-Z_]+\b", file.read_text())) <= known, file


def test_the_cluster_runs_one_page_without_rights_it_does_not_need() -> None:
    deployment, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    compose = yaml.safe_load((FOLDER.parent / "compose" / "compose.yaml").read_text())["services"]["browse"]
    assert deployment["spec"]["replicas"] == 1
    assert container["command"] == compose["command"]
    assert compose["image"] == f"${{ARCHIVE_IMAGE:-{container['image']}}}"
    assert container["securityContext"]["readOnlyRootFilesystem"] is spec["securityContext"]["runAsNonRoot"] is True
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert {name: compose["environment"][name] for name in given} == given
    assert given["BROWSE_ACCESS_FILE"].startswith(container["volumeMounts"][0]["mountPath"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert str(container["ports"][0]["containerPort"]) == given["BROWSE_PORT"]


def test_a_browser_cannot_say_who_it_is_or_where_it_is_from(proxied: Proxied) -> None:
    forged = ["X-Forwarded-User", "X-Forwarded-Groups", "X-Browse-Secret", "X-Forwarded-For"]
    arrived = proxied.client.get("/", headers=dict.fromkeys(forged, "198.51.100.7")).text
    assert "198.51.100.7" not in arrived
    assert "\nX-Forwarded-For: 127.0.0.1\n" in f"\n{arrived}"
    assert "\nHost: calls.example.com\n" in f"\n{arrived}"


def test_audio_is_fetched_as_it_is_heard_and_not_ahead(proxied: Proxied) -> None:
    proxied.page.sent = 0
    with proxied.client.stream("GET", "/audio/1") as answer:
        for _, _ in zip(range(50), answer.iter_raw(1 << 14), strict=False):
            time.sleep(0.05)
        assert 0 < proxied.page.sent < BLOCKS / 2


def test_no_request_is_logged(proxied: Proxied) -> None:
    proxied.client.get("/", params={"number": "6025550142"})
    assert not [path for path in proxied.folder.iterdir() if path.is_file() and b"6025550142" in path.read_bytes()]
