"""The real nginx and the real Caddy, each with a configuration of deploy/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers.ports import free_port

_PATH = os.environ["PATH"] + ":/usr/sbin"
PROXIES = ["nginx", "caddy"]


@contextmanager
def proxy(program: str, folder: Path, deploy: Path, upstreams: dict[str, str], **variables: str) -> Iterator[str]:
    """Serve the program's file of a folder of deploy/ without TLS, and give its address once it answers.

    Its output and its logs are files of `folder`, and so are those it reads under /etc/nginx. `upstreams`: which
    address stands for which one in the file. A test that needs a program that is not installed is skipped.
    """
    if shutil.which(program, path=_PATH) is None:
        pytest.skip(f"{program} is not installed")
    port = free_port()
    text = (deploy / {"nginx": "nginx.conf", "caddy": "Caddyfile"}[program]).read_text()
    for shipped, upstream in upstreams.items():
        assert shipped in text
        text = text.replace(shipped, upstream)
    command = {"nginx": _nginx, "caddy": _caddy}[program](folder, port, text)
    environment = {"PATH": _PATH, "HOME": str(folder), **variables}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=30) as client:
            client.get(f"http://127.0.0.1:{port}", headers={"Host": "not-yet.example"})
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _nginx(folder: Path, port: int, text: str) -> list[str]:
    text = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port}", re.sub(r"ssl_\w+ .*", "", text))
    text = text.replace("/etc/nginx/htpasswd", str(folder)).replace("/var/log/nginx", str(folder))
    temporary = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
    (folder / "conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
        f" http {{ access_log {folder}/access; {temporary}\n{text}\n}}"
    )
    return ["nginx", "-e", str(folder / "log"), "-c", str(folder / "conf")]


def _caddy(folder: Path, port: int, text: str) -> list[str]:
    text = re.sub(r"^\{\$\w+_SITE:(.*)\} \{", rf"http://\1:{port} {{\n\tbind 127.0.0.1", text, flags=re.MULTILINE)
    (folder / "conf").write_text(f"{{\n\tadmin off\n}}\n{text}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "conf")]
