"""Proxies and certificates, with real ones between the client and an S3."""

import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.archive.errors import StorageError, StorageRefused, StorageUnavailable
from tests.hostile.certificates import certificate
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.ports import free_port, wait_until_listening
from tests.servers.s3_proxy import S3Proxy

USER, PASSWORD = "canary-proxy-user", "canary-proxy-password"


@pytest.fixture
def secure(moto: AtomicMoto, tmp_path: Path) -> Iterator[S3Proxy]:
    """The same S3 behind TLS, with a certificate of a private authority: `tmp_path / "ca.pem"`."""
    with S3Proxy(moto.port, tls=certificate(tmp_path, "localhost")) as proxy:
        yield proxy


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Callable[[], tuple[int, Path]]]:
    """A proxy that wants a log-in; its port and its log. Skipped where it is not installed."""
    if shutil.which("tinyproxy") is None:
        pytest.skip("tinyproxy is not installed")
    port, log = free_port(), tmp_path / "proxy.log"
    conf = tmp_path / "tinyproxy.conf"
    # An upload that moto refuses before it has read the body ends only with this timeout, and is tried twice.
    conf.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 3\nLogFile "{log}"\nLogLevel Connect\nMaxClients 20\n'
        f"BasicAuth {USER} {PASSWORD}\n"
    )
    process = subprocess.Popen(
        ["tinyproxy", "-d", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until_listening(process, port)
    yield lambda: (port, log)
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def tls_proxy(secure: S3Proxy, tinyproxy: Callable[[], tuple[int, Path]], tmp_path: Path) -> Iterator[int]:
    """The same proxy behind TLS, with the certificate that the S3 has, too."""
    context, upstream = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tinyproxy()[0]
    context.load_cert_chain(tmp_path / "server.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    opened = ExitStack()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for connection in (source, sink):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                near = opened.enter_context(context.wrap_socket(plain, server_side=True))
                far = opened.enter_context(socket.create_connection(("127.0.0.1", upstream)))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    opened.close()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(**variables: str) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            for spelt in (name, name.lower()):
                monkeypatch.delenv(spelt, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


def put(endpoint: str, key: str = "a") -> Bucket:
    """Put something and read it back."""
    bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=endpoint), "archive", f"n-{time.time_ns()}/")
    key = f"{bucket.prefix}{key}"
    bucket.put_new(key, b"audio", sha256=hashlib.sha256(b"audio").hexdigest(), content_type="audio/wav")
    assert bucket.get_bytes(key) == b"audio"
    return bucket


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_private_authority_is_trusted_by_every_call_when_either_variable_names_it(
    secure: S3Proxy, tmp_path: Path, network: Callable[..., None], name: str
) -> None:
    network(**{name: str(tmp_path / "ca.pem")})
    put(f"https://localhost:{secure.port}")
    assert {request.method for request in secure.requests} == {"PUT", "GET", "HEAD"}
    signed = {put.headers.get("X-Amz-Content-SHA256") for put in secure.requests if put.method == "PUT"}
    assert signed == {"UNSIGNED-PAYLOAD"}


def test_what_is_wrong_with_a_certificate_is_said_and_is_not_temporary(
    secure: S3Proxy, tmp_path: Path, network: Callable[..., None]
) -> None:
    endpoint = f"https://localhost:{secure.port}"
    (tmp_path / "empty.pem").write_text("")
    for variables, sentence in (
        ({}, "its certificate, .* is not trusted, .* set AWS_CA_BUNDLE"),
        ({"AWS_CA_BUNDLE": str(tmp_path / "none.pem")}, "correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"),
        ({"REQUESTS_CA_BUNDLE": str(tmp_path / "none.pem")}, "correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"),
        ({"AWS_CA_BUNDLE": str(tmp_path / "empty.pem")}, "correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"),
    ):
        network(**variables)
        with pytest.raises(StorageRefused, match=sentence) as caught:
            put(endpoint)
        assert "\n" not in str(caught.value)
    network(AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    with pytest.raises(StorageRefused, match="for another host"):  # it is for localhost
        put(f"https://127.0.0.1:{secure.port}")


def test_requests_go_through_a_proxy_with_its_log_in(
    secure: S3Proxy,
    moto: AtomicMoto,
    tmp_path: Path,
    network: Callable[..., None],
    tinyproxy: Callable[[], tuple[int, Path]],
) -> None:
    port, log = tinyproxy()
    through = f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"
    network(HTTPS_PROXY=through, HTTP_PROXY=through, AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    put(f"https://localhost:{secure.port}")
    assert f"CONNECT localhost:{secure.port}" in log.read_text()
    put(moto.url)
    assert "PUT http://" in log.read_text() or "PUT /" in log.read_text()
    before = log.read_text()
    network(HTTPS_PROXY=through, NO_PROXY="localhost,127.0.0.1", AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    put(f"https://localhost:{secure.port}")
    assert log.read_text() == before


def test_requests_go_through_a_proxy_that_is_reached_by_tls(
    secure: S3Proxy,
    tmp_path: Path,
    network: Callable[..., None],
    tls_proxy: int,
    tinyproxy: Callable[[], tuple[int, Path]],
) -> None:
    through = f"https://{USER}:{PASSWORD}@localhost:{tls_proxy}"
    network(HTTPS_PROXY=through, AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    put(f"https://localhost:{secure.port}")
    assert f"CONNECT localhost:{secure.port}" in tinyproxy()[1].read_text()
    network(HTTPS_PROXY=through)
    with pytest.raises(StorageRefused, match="its certificate, or the proxy's, is not trusted") as caught:
        put(f"https://localhost:{secure.port}")
    assert "canary" not in str(caught.value)


def test_a_proxy_that_refuses_or_is_not_there_is_named_and_its_log_in_is_not_shown(
    secure: S3Proxy,
    tmp_path: Path,
    network: Callable[..., None],
    tinyproxy: Callable[[], tuple[int, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    cases: tuple[tuple[str, type[StorageError], str], ...] = (
        (f"http://127.0.0.1:{tinyproxy()[0]}", StorageRefused, "requires a different user and password"),
        (f"http://{USER}:canary@127.0.0.1:{tinyproxy()[0]}", StorageRefused, "requires a different user and password"),
        (f"http://{USER}:canary@127.0.0.1:{free_port()}", StorageUnavailable, "proxy cannot be reached.*HTTPS_PROXY"),
    )
    for proxy, kind, sentence in cases:
        network(HTTPS_PROXY=proxy, AWS_CA_BUNDLE=str(tmp_path / "ca.pem"))
        with pytest.raises(kind, match=sentence) as caught:
            put(f"https://localhost:{secure.port}")
        assert "canary" not in str(caught.value)
