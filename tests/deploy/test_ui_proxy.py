"""deploy/ui/nginx.conf with the real nginx: what may reach Dagster's web server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

FILE = Path(__file__).parents[2] / "deploy" / "ui" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Dagster(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Dagster)
    Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = FILE.read_text().replace("127.0.0.1:3000", f"127.0.0.1:{upstream.server_port}")
    text = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port}", re.sub(r"ssl_\w+ .*", "", text))
    text = text.replace("/etc/nginx/archive.htpasswd", str(folder / "users"))
    (folder / "users").write_text("ada:{PLAIN}secret\n")
    temporary = "".join(f"{one}_temp_path {folder};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
    (folder / "conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
        f" http {{ access_log off; {temporary}\n{text}\n}}"
    )
    process = subprocess.Popen([NGINX, "-e", str(folder / "log"), "-c", str(folder / "conf")])
    transport = httpx.HTTPTransport(retries=8)  # it takes a moment to listen
    host = {"Host": "archive.example.com"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", transport=transport, headers=host, auth=("ada", "secret"), timeout=30
    ) as client:
        yield client
    process.terminate()
    process.wait(20)
    upstream.shutdown()
    upstream.server_close()


OWN = {"Sec-Fetch-Site": "same-origin", "Origin": "https://archive.example.com"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/graphql", OWN, 200),
        ("POST", "/graphql", {}, 200),
        ("GET", "/graphql", OWN | {"Upgrade": "websocket", "Connection": "upgrade"}, 200),
        ("GET", "/runs/1", {"Sec-Fetch-Site": "cross-site"}, 200),  # a link in a message
        ("POST", "/graphql", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/graphql", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", "/graphql", {"Origin": "https://elsewhere.example"}, 403),
        ("POST", "/graphql", {"Origin": "null"}, 403),
        ("GET", "/graphql", {"Upgrade": "websocket", "Origin": "https://elsewhere.example"}, 403),
        ("GET", "/graphql?query=mutation", {}, 405),
        ("GET", "/graphql?query=mutation", {"Sec-Fetch-Site": "none"}, 405),
        ("POST", "/graphql", {"Host": "rebound.example"}, 421),
        ("GET", "/runs/1", {"Authorization": "Basic bm9ib2R5Og=="}, 401),
    ],
)
def test_dagster_is_reached_by_its_own_pages_under_its_own_name_alone(
    ui: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    auth = None if "Authorization" in headers else httpx.USE_CLIENT_DEFAULT
    assert ui.request(method, path, headers=headers, auth=auth).status_code == status
