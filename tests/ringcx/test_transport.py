"""The transport against servers and proxies of other people, and against a socket that lies."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from pipelines.ringcx.errors import ConnectionNotAllowed, SourceUnavailable, Stopped
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.http.transport import Body, Transport
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient, MediaFault
from tests.hostile.certificates import certificate
from tests.hostile.conftest import wav_of
from tests.servers.ports import free_port, wait_until_listening
from tests.servers.raw_http import RawServer

WAV = wav_of(200_000)
HOSTS = HostList(["127.0.0.1", "localhost", "[::1]", "*.virtualacd.biz"])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[SourceClient]:
    limiter = RateLimiter(tmp_path / "limits")
    with SourceClient(limiter=limiter, limits={}, attempts=3, read_timeout_s=5, sleep=lambda _: None) as made:
        yield made
    limiter.close()


def fetched(client: SourceClient, url: str) -> bytes:
    sink = io.BytesIO()
    got = MediaClient(client, HOSTS, auth=None).fetch(url, "1", sink)
    assert got.sha256 == hashlib.sha256(sink.getvalue()).hexdigest()
    return sink.getvalue()


@contextlib.contextmanager
def running(*command: str, port: int, log: Path) -> Iterator[None]:
    """A server of somebody else, once it listens; skipped where it is not installed."""
    if shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{command[0]} is not installed")
    with log.open("wb") as output:
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        wait_until_listening(process, port)
        yield
    finally:
        process.terminate()
        process.wait(20)


Serve = Callable[[bytes], str]


@pytest.fixture
def raw() -> Iterator[Serve]:
    """Starts a server that answers every request with the same bytes and closes; gives its address."""
    with contextlib.ExitStack() as stack:

        def serve(answer: bytes) -> str:
            server = stack.enter_context(RawServer(lambda _, connection: connection.sendall(answer)))
            return f"{server.url}/?file=a"

        yield serve


# --- other people's servers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("www")
    (folder / "a.wav").write_bytes(WAV)
    (folder / "a.wav").chmod(0o644)  # nginx serves as nobody, and an earlier test's command left its umask
    folder.chmod(0o755)
    for parent in list(folder.parents)[:3]:
        with contextlib.suppress(OSError):
            parent.chmod(0o755)
    return folder


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


# --- what a socket may say


LENGTH = b"Content-Length: %d" % len(WAV)
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(WAV), WAV)
CHUNKED = b"Transfer-Encoding: chunked"


def response_of(*lines: bytes, body: bytes = WAV, end: bytes = b"\r\n", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return end.join([status, *lines, b"Connection: close", b"", b""]) + body


@pytest.mark.parametrize(
    "answer",
    [
        response_of(LENGTH),
        response_of(CHUNKED, LENGTH, body=CHUNKS),
        response_of(b"Content-Length: 7", CHUNKED, body=CHUNKS),
        response_of(CHUNKED, body=CHUNKS.replace(b"\r\n", b"  \r\n", 1)),
        response_of(CHUNKED, body=CHUNKS.replace(b"\r\n", b";name=value\r\n", 1)),
        response_of(CHUNKED, body=CHUNKS[:-2] + b"Trailer: x\r\n\r\n"),
        response_of(b"transfer-encoding: CHUNKED", body=CHUNKS),
        response_of(LENGTH, end=b"\n"),
        response_of(LENGTH, LENGTH),
        response_of(LENGTH, status=b"HTTP/1.1 200"),
        response_of(LENGTH, status=b"HTTP/1.0 200 OK"),
        response_of(b"Content-Length:%d" % len(WAV), b"X-Empty:", b"X-Latin: \xe4\xf6"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response_of(LENGTH),
        b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + response_of(LENGTH),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n" + response_of(LENGTH),
    ],
)  # fmt: skip
def test_what_other_clients_deliver_is_delivered(client: SourceClient, raw: Serve, answer: bytes) -> None:
    url = raw(answer)
    assert fetched(client, url) == WAV
    if answer.count(b"Content-Length") < 2 or CHUNKED not in answer:
        with contextlib.suppress(httpx.RemoteProtocolError):  # h11 is stricter here and there
            assert httpx.get(url, trust_env=False).content == WAV
    if curl := shutil.which("curl"):
        asked = subprocess.run([curl, "-s", "--noproxy", "*", url], capture_output=True, check=False, timeout=30)
        assert asked.returncode or asked.stdout == WAV


@pytest.mark.parametrize(
    "answer",
    [
        response_of(CHUNKED, body=b"-1\r\n" + WAV),
        response_of(CHUNKED, body=b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(WAV), WAV)),
        response_of(CHUNKED, body=b"1_0\r\n" + WAV[:16] + b"\r\n0\r\n\r\n"),
        response_of(CHUNKED, body=CHUNKS[:-7]),
        response_of(CHUNKED, body=CHUNKS[:1000]),
        response_of(LENGTH, body=WAV[:-1]),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_cut_off(client: SourceClient, raw: Serve, answer: bytes) -> None:
    with pytest.raises(MediaFault) as fault:
        fetched(client, raw(answer))
    assert (fault.value.kind, fault.value.reason) == ("not_audio", "cut_off")


@pytest.mark.parametrize(
    "answer",
    [
        response_of(b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
        response_of(CHUNKED + b", chunked", body=CHUNKS),
        response_of(b"Content-Length: 1", LENGTH),
        response_of(b"Content-Length: -1"),
        response_of(b"no header at all", LENGTH),
        response_of(b"Upgrade: h2c", status=b"HTTP/1.1 101 Switching Protocols"),
    ],
)
def test_headers_that_leave_the_end_in_doubt_are_refused(client: SourceClient, raw: Serve, answer: bytes) -> None:
    with pytest.raises(MediaFault) as fault:
        fetched(client, raw(answer))
    assert (fault.value.kind, fault.value.reason) == ("unavailable", "source_unavailable")


def test_what_follows_an_answer_is_never_taken_for_the_next_one(tmp_path: Path, client: SourceClient) -> None:
    other = response_of(b"Content-Length: %d" % len(WAV), body=WAV[:-4] + b"evil").replace(
        b"Connection: close\r\n", b""
    )
    first = response_of(LENGTH).replace(b"Connection: close\r\n", b"")
    context = certificate(tmp_path, "localhost")
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            nonlocal connections
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                connections += 1
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    while secured.recv(65536):
                        secured.sendall(first + other)

        threading.Thread(target=run, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            for _ in range(3):
                assert fetched(client, f"https://localhost:{listener.getsockname()[1]}/?file=a") == WAV
        listener.shutdown(socket.SHUT_RDWR)
    assert connections == 3


# --- names, addresses, certificates


def test_an_ipv6_listener_is_reached_by_address_and_after_an_address_that_nobody_answers_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = listener.getsockname()[1]

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.recv(65536)
                connection.sendall(response_of(LENGTH))

    threading.Thread(target=run, daemon=True).start()
    monkeypatch.setattr("pipelines.ringcx.http.addresses.FALLBACK_S", 0.2)
    limiter = RateLimiter(tmp_path / "limits")
    full = socket.create_server(("127.0.0.1", 0), backlog=0)  # answers nobody once its queue is full
    waiting = [socket.socket() for _ in range(4)]
    for client_socket in waiting:
        client_socket.setblocking(False)
        client_socket.connect_ex(full.getsockname())
    unanswered = {"127.0.0.1": full.getsockname()[1]}
    create = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda to, *rest: create((to[0], unanswered.get(to[0], to[1])), *rest)
    )
    monkeypatch.setattr("pipelines.ringcx.http.addresses.system_resolve", lambda *_: ["127.0.0.1", "::1"])
    with SourceClient(limiter=limiter, limits={}, attempts=1) as client:
        assert fetched(client, f"http://[::1]:{port}/?file=a") == WAV
        began = time.monotonic()
        assert fetched(client, f"http://localhost:{port}/?file=a") == WAV
        assert time.monotonic() - began < 5
    limiter.close()
    for open_socket in (*waiting, full):
        open_socket.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a TLS server with a certificate of a private authority, `tmp_path/ca.pem`; gives its port."""
    with contextlib.ExitStack() as stack:

        def serve(name: str = "localhost", *, ends: datetime | None = None) -> int:
            context = certificate(tmp_path, name, ends=ends)
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)

            def hand_over(plain: socket.socket) -> None:
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(response_of(LENGTH))

            def run() -> None:
                while True:
                    try:
                        plain, _ = listener.accept()
                    except OSError:
                        return
                    threading.Thread(target=hand_over, args=(plain,), daemon=True).start()

            threading.Thread(target=run, daemon=True).start()
            return int(listener.getsockname()[1])

        yield serve


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_a_private_authority_is_trusted_where_the_environment_names_it(
    client: SourceClient, tls: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    port = tls()
    named = tmp_path / "ca.pem"
    if variable == "SSL_CERT_DIR":
        hashed = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", named], capture_output=True, text=True, check=True
        ).stdout.strip()
        named = tmp_path / "authorities"
        named.mkdir()
        shutil.copy(tmp_path / "ca.pem", named / f"{hashed}.0")
    monkeypatch.setenv(variable, str(named))
    assert fetched(client, f"https://localhost:{port}/?file=a") == WAV


@pytest.mark.parametrize(
    ("name", "ends", "trusted", "problem"),
    [
        ("localhost", None, False, "unable to get local issuer certificate"),
        ("elsewhere.example", None, True, "not valid for 'localhost'"),
        ("localhost", datetime.now(UTC) - timedelta(hours=1), True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_accepted_ends_with_its_problem_after_one_try(  # noqa: PLR0917 - fixtures
    tls: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ends: datetime | None,
    trusted: bool,
    problem: str,
) -> None:
    port, slept = tls(name, ends=ends), []
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    limiter = RateLimiter(tmp_path / "limits")
    with (
        SourceClient(limiter=limiter, limits={}, sleep=slept.append) as client,
        pytest.raises(ConnectionNotAllowed, match=f"certificate of localhost .*{problem}.*SSL_CERT_FILE"),
    ):
        fetched(client, f"https://localhost:{port}/?file=a")
    limiter.close()
    assert slept == []


def test_authorities_that_cannot_be_read_are_named_with_their_variable(
    client: SourceClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(ConnectionNotAllowed, match=r"SSL_CERT_FILE names .*missing\.pem"):
        fetched(client, "https://localhost:1/?file=a")


# --- proxies


def proxied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", proxy)


def test_tinyproxy_is_gone_through_with_its_credentials_and_refuses_wrong_ones_with_a_sentence(
    client: SourceClient, tls: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, target = free_port(), tls()
    (tmp_path / "tinyproxy.conf").write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 20\nLogFile "{tmp_path}/tinyproxy.log"\nLogLevel Connect\n'
        f"BasicAuth ada p4ssword\n"
    )
    url = f"https://localhost:{target}/?file=a"
    with running("tinyproxy", "-d", "-c", str(tmp_path / "tinyproxy.conf"), port=port, log=tmp_path / "log"):
        proxied(monkeypatch, tmp_path, f"http://ada:p4ssword@127.0.0.1:{port}")
        for _ in range(2):
            assert fetched(client, url) == WAV
        assert f"CONNECT localhost:{target}" in (tmp_path / "tinyproxy.log").read_text()
        for credentials in ("ada:hush@", ""):
            monkeypatch.setenv("HTTPS_PROXY", f"http://{credentials}127.0.0.1:{port}")
            with pytest.raises(
                ConnectionNotAllowed, match=r"HTTP 40[17]; check the user and password in HTTPS_PROXY"
            ) as refused:
                fetched(client, url)
            assert f"The proxy http://127.0.0.1:{port} refused localhost" in str(refused.value)
            assert "hush" not in str(refused.value)
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert fetched(client, url) == WAV


def test_squid_is_gone_through_and_what_it_forbids_is_named(
    client: SourceClient, tls: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, target, other = free_port(), tls(), tls()
    (tmp_path / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\npid_filename none\ncache deny all\n"
        f"access_log none\ncache_log /dev/null\nacl there port {other}\n"
        f"http_access allow there\nhttp_access deny all\ncoredump_dir none\nshutdown_lifetime 0 seconds\n"
    )
    with running(
        "squid", "-N", "-n", f"test{port}", "-f", str(tmp_path / "squid.conf"), port=port, log=tmp_path / "log"
    ):
        proxied(monkeypatch, tmp_path, f"127.0.0.1:{port}")  # without a scheme
        assert fetched(client, f"https://localhost:{other}/?file=a") == WAV
        with pytest.raises(
            ConnectionNotAllowed, match=r"HTTP 403; .* ask the operator of the proxy to allow localhost"
        ):
            fetched(client, f"https://localhost:{target}/?file=a")


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Busy", b"504 Gateway Timeout"])
def test_a_proxy_that_cannot_reach_the_source_is_not_taken_for_the_source(
    client: SourceClient, raw: Serve, monkeypatch: pytest.MonkeyPatch, status: bytes
) -> None:
    proxy = raw(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n").removesuffix("/?file=a")
    monkeypatch.setenv("ALL_PROXY", proxy.replace("http://", "http://ada:hush@"))
    with pytest.raises(SourceUnavailable, match=f"the proxy {proxy} answered HTTP {status[:3].decode()}") as gone:
        client.retry(lambda: client.stream("GET", "https://one.virtualacd.biz", limit="", account_id="").__enter__())
    assert "hush" not in str(gone.value)


def test_a_proxy_that_is_down_is_named(client: SourceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(MediaFault) as fault:
        fetched(client, "https://one.virtualacd.biz/?file=a")
    assert f"the proxy http://127.0.0.1:{port} cannot be used" in str(fault.value.__cause__)


def test_a_407_to_a_plain_request_is_the_proxys(
    client: SourceClient, raw: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = raw(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").removesuffix("/?file=a")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ConnectionNotAllowed, match="check the user and password in HTTP_PROXY"):
        fetched(client, "http://127.0.0.1:9/?file=a")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://", "ftp://ada:hush@127.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_refused_with_its_variable(
    client: SourceClient, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConnectionNotAllowed, match="HTTPS_PROXY does not name a usable proxy") as refused:
        fetched(client, "https://one.virtualacd.biz/?file=a")
    assert "hush" not in str(refused.value)


def test_a_proxy_that_speaks_tls_is_given_credentials_inside_it_only(
    client: SourceClient, tls: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    heads = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while block := source.recv(65536):
                    sink.sendall(block)
                sink.shutdown(socket.SHUT_WR)

        def run() -> None:
            plain, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                heads.append(secured.recv(65536))
                with socket.create_connection(("127.0.0.1", target)) as onward:
                    secured.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    threading.Thread(target=pump, args=(secured, onward), daemon=True).start()
                    pump(onward, secured)

        threading.Thread(target=run, daemon=True).start()
        proxied(monkeypatch, tmp_path, f"https://ada:p%40ss@localhost:{listener.getsockname()[1]}")
        assert fetched(client, f"https://localhost:{target}/?file=a") == WAV
    assert b"Proxy-Authorization: Basic YWRhOnBAc3M=" in heads[0]  # ada:p@ss


def test_through_a_proxy_the_allow_list_alone_decides(
    tls: Callable[..., int], tmp_path: Path, raw: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", raw(b"HTTP/1.1 502 Bad\r\n\r\n").removesuffix("/?file=a"))

    def resolve(*_: object) -> list[str]:
        raise AssertionError("the proxy resolves names")

    monkeypatch.setattr("pipelines.ringcx.http.addresses.system_resolve", resolve)
    transport = Transport(max_kept=1, public_only=True)
    with pytest.raises(httpx.ProxyError):
        transport.handle_request(httpx.Request("GET", "https://one.virtualacd.biz/"))


# --- bounds


@pytest.mark.parametrize("part", [b"X", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100])
def test_a_head_that_trickles_ends_when_its_time_is_up(
    raw: Serve, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(part)
                while True:
                    connection.sendall(part[-1:] if b"X:" in part else part)
                    time.sleep(0.05)

        threading.Thread(target=run, daemon=True).start()
        transport = Transport(max_kept=1, public_only=False)
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            transport.handle_request(httpx.Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("head", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_body_that_trickles_ends_when_the_exchange_has_taken_too_long(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.http.transport.ANSWER_S", 0.7)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
                while True:
                    connection.sendall(b"1")  # of a body, or of the size of a chunk
                    time.sleep(0.05)

        threading.Thread(target=run, daemon=True).start()
        transport = Transport(max_kept=1, public_only=False)
        began = time.monotonic()
        response = transport.handle_request(httpx.Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        with pytest.raises(httpx.TransportError):
            response.read()
        assert time.monotonic() - began < 3


def test_a_stopped_reader_closes_its_connection(client: SourceClient) -> None:
    left: list[bytes] = []

    def stop() -> None:
        raise Stopped

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                connection.settimeout(10)
                left.append(connection.recv(1))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with client.stream("GET", url, limit="", account_id="") as answer:
            assert isinstance(answer.stream, Body)
            answer.stream.check_reads(stop)
            with pytest.raises(Stopped):
                list(answer.stream)
        thread.join(15)
    assert left == [b""]
