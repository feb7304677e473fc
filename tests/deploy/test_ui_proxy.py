"""deploy/ui with the real nginx and the real Caddy: what may reach Dagster's web servers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "ui"
EVERYTHING, VIEWERS = "archive.example.com", "view.archive.example.com"
# `caddy hash-password --plaintext secret`
HASH = "$2a$14$kNPZmDE.YabbUT5me3ht4uNmQGUtDvMdrigOQNbNy5elVdKGRsBLy"


class Dagster(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Reached", f"127.0.0.1:{self.connection.getsockname()[1]}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def dagster() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dagster)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def nginx(folder: Path, port: int, text: str) -> tuple[list[str], dict[str, str]]:
    text = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port}", re.sub(r"ssl_\w+ .*", "", text))
    text = text.replace("/etc/nginx/htpasswd", str(folder))
    (folder / EVERYTHING).write_text("operator:{PLAIN}secret\n")
    (folder / VIEWERS).write_text("viewer:{PLAIN}secret\n")
    temporary = "".join(f"{one}_temp_path {folder};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
    (folder / "conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
        f" http {{ access_log off; {temporary}\n{text}\n}}"
    )
    return ["nginx", "-e", str(folder / "log"), "-c", str(folder / "conf")], {}


def caddy(folder: Path, port: int, text: str) -> tuple[list[str], dict[str, str]]:
    text = re.sub(r"^\{\$\w+_SITE:(.*)\} \{", rf"http://\1:{port} {{\n\tbind 127.0.0.1", text, flags=re.MULTILINE)
    (folder / "conf").write_text(f"{{\n\tadmin off\n}}\n{text}")
    variables = {"UI_PASSWORD_HASH": HASH, "VIEW_PASSWORD_HASH": HASH, "HOME": str(folder)}
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "conf")], variables


@pytest.fixture(scope="module", params=[("nginx.conf", nginx), ("Caddyfile", caddy)], ids=["nginx", "Caddy"])
def ui(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    name, proxy = request.param
    path = os.environ["PATH"] + ":/usr/sbin"
    if shutil.which(proxy.__name__, path=path) is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    folder = tmp_path_factory.mktemp(proxy.__name__)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ExitStack() as stack:
        everything, viewers = stack.enter_context(dagster()), stack.enter_context(dagster())
        text = (FOLDER / name).read_text().replace("127.0.0.1:3000", everything).replace("127.0.0.1:3001", viewers)
        command, variables = proxy(folder, port, text)
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, env={"PATH": path, **variables}, stdout=output, stderr=subprocess.STDOUT
            )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        transport = httpx.HTTPTransport(retries=8)  # it takes a moment to listen
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            transport=transport,
            headers={"Host": EVERYTHING, "Everything": everything, "Viewers": viewers},
            auth=("operator", "secret"),
            timeout=30,
        ) as client:
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
