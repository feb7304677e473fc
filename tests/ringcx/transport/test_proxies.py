"""Through other people's proxies, and what one that refuses or is down ends in."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from pipelines.ringcx.errors import ConnectionNotAllowed, SourceUnavailable
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.http.transport import Transport
from pipelines.ringcx.media import MediaFault
from tests.ringcx.transport.conftest import WAV, Serve, fetched, running
from tests.servers.ports import free_port


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
