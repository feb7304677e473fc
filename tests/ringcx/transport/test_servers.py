"""Recordings from other people's servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.media import MediaFault
from tests.ringcx.transport.conftest import WAV, fetched, running
from tests.servers.ports import free_port


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Readable by nobody, as whom nginx serves: pytest closes its own folders to others whenever it starts."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "a.wav").write_bytes(WAV)
        (folder / "a.wav").chmod(0o644)  # whatever umask an earlier test's command left
        yield folder


@pytest.mark.parametrize("options", ["", "chunked_transfer_encoding on; gzip on; gzip_types *; gzip_min_length 1;"])
def test_nginx_gives_a_whole_recording(client: SourceClient, folder: Path, tmp_path: Path, options: str) -> None:
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;"
        f" fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;"
        f" server {{ listen 127.0.0.1:{port}; root {folder}; {options} }} }}\n"
    )
    with running("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), port=port, log=tmp_path / "log"):
        for _ in range(3):
            assert fetched(client, f"http://127.0.0.1:{port}/a.wav?file=a") == WAV
        with pytest.raises(MediaFault) as fault:
            fetched(client, f"http://127.0.0.1:{port}/b.wav?file=a")
    assert (fault.value.kind, fault.value.reason) == ("not_there", "not_found")


def test_apache_gives_a_whole_recording(client: SourceClient, folder: Path, tmp_path: Path) -> None:
    port = free_port()
    modules = Path("/usr/lib/apache2/modules")
    (tmp_path / "apache.conf").write_text(
        f"ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {tmp_path}/pid\nErrorLog {tmp_path}/error\n"
        f"DefaultRuntimeDir {tmp_path}\nLoadModule mpm_event_module {modules}/mod_mpm_event.so\n"
        f"LoadModule authz_core_module {modules}/mod_authz_core.so\nDocumentRoot {folder}\n"
        f"<Directory {folder}>\nRequire all granted\n</Directory>\n"
    )
    with running(
        "apache2", "-X", "-d", str(tmp_path), "-f", str(tmp_path / "apache.conf"), port=port, log=tmp_path / "log"
    ):
        for _ in range(3):
            assert fetched(client, f"http://127.0.0.1:{port}/a.wav?file=a") == WAV
