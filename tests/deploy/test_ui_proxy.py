"""deploy/ui with the real nginx and the real Caddy: what may reach Dagster's web servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.proxies import PROXIES, proxy
from tests.servers.scripted_http import Response, ScriptedServer

FOLDER = Path(__file__).parents[2] / "deploy" / "ui"
EVERYTHING, VIEWERS = "archive.example.com", "view.archive.example.com"
# `caddy hash-password --plaintext secret`
HASH = "$2a$14$kNPZmDE.YabbUT5me3ht4uNmQGUtDvMdrigOQNbNy5elVdKGRsBLy"


@contextmanager
def dagster() -> Iterator[str]:
    with ScriptedServer(Response()) as server:
        server.script = Response(headers={"Reached": server.host})
        yield server.host


@pytest.fixture(scope="module", params=PROXIES)
def ui(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / EVERYTHING).write_text("operator:{PLAIN}secret\n")
    (folder / VIEWERS).write_text("viewer:{PLAIN}secret\n")
    hashes = {"UI_PASSWORD_HASH": HASH, "VIEW_PASSWORD_HASH": HASH}
    with (
        dagster() as everything,
        dagster() as viewers,
        proxy(
            request.param, folder, FOLDER, {"127.0.0.1:3000": everything, "127.0.0.1:3001": viewers}, **hashes
        ) as address,
        httpx.Client(
            base_url=address,
            headers={"Host": EVERYTHING, "Everything": everything, "Viewers": viewers},
            auth=("operator", "secret"),
            timeout=30,
        ) as client,
    ):
        yield client


OWN = {"Sec-Fetch-Site": "same-origin", "Origin": f"https://{EVERYTHING}"}
SOCKET = {"Upgrade": "websocket", "Connection": "upgrade"}
FOREIGN = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", OWN),
        ("POST", "/graphql", {}),
        ("GET", "/graphql", OWN | SOCKET),
        ("GET", "/", {}),
        ("GET", "/runs/1", {"Sec-Fetch-Site": "none"}),
        ("GET", "/runs/1", {"Sec-Fetch-Site": "cross-site"}),  # a link in a message
    ],
)
def test_the_uis_own_pages_reach_dagster(ui: httpx.Client, method: str, path: str, headers: dict[str, str]) -> None:
    answer = ui.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers.get("Reached")) == (200, ui.headers["Everything"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/graphql", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/graphql", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", "/graphql", {"Origin": "https://elsewhere.example"}, 403),
        ("POST", "/graphql", {"Origin": f"http://{EVERYTHING}"}, 403),
        ("POST", "/graphql", {"Origin": f"https://{VIEWERS}"}, 403),
        ("POST", "/graphql", {"Origin": "null"}, 403),
        ("POST", "/report_asset_materialization/recordings", FOREIGN, 403),
        ("DELETE", "/runs/1", FOREIGN, 403),
        ("GET", "/graphql", SOCKET | {"Origin": "https://elsewhere.example"}, 403),
        ("GET", "/graphql", SOCKET | {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/graphql?query=mutation", {}, 405),
        ("GET", "/graphql?query=mutation", {"Sec-Fetch-Site": "none"}, 405),
        ("GET", "/graphql?query=mutation", OWN, 405),
    ],
)
def test_a_request_that_another_page_could_have_sent_reaches_nothing(
    ui: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = ui.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers.get("Reached")) == (status, None)


def test_another_host_name_reaches_nothing(ui: httpx.Client) -> None:
    for path in ("/", "/graphql"):
        assert "Reached" not in ui.post(path, headers={"Host": "rebound.example"}).headers


def test_each_name_has_users_of_its_own_and_viewers_reach_the_read_only_server(ui: httpx.Client) -> None:
    host = {"Host": VIEWERS}
    assert ui.get("/", auth=("nobody", "secret")).status_code == 401
    assert ui.get("/", auth=("viewer", "secret")).status_code == 401
    assert ui.get("/", headers=host).status_code == 401
    answer = ui.get("/", headers=host, auth=("viewer", "secret"))
    assert (answer.status_code, answer.headers["Reached"]) == (200, ui.headers["Viewers"])
