"""Where a listed name may lead: public addresses, checked at the moment of connecting and then connected to."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.ringcx.errors import ConnectionNotAllowed, LinkRefused
from pipelines.ringcx.http.addresses import is_public, system_resolve
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient, MediaFault
from tests.hostile.certificates import certificate
from tests.servers.raw_http import Answer, RawServer

NAME = "c02-recordings.virtualacd.biz"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001::1"),
    ],
)
def test_an_address_that_is_not_public_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_a_public_address_is_known(address: str) -> None:
    assert is_public(address)


Media = Callable[..., MediaClient]


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Media]:
    limiter = RateLimiter(tmp_path / "limits")
    clients = []

    def build(resolve: Callable[[str, int], list[str]] = system_resolve, hosts: tuple[str, ...] = ()) -> MediaClient:
        monkeypatch.setattr("pipelines.ringcx.http.addresses.system_resolve", resolve)
        client = SourceClient(limiter=limiter, limits={}, attempts=1, sleep=lambda _: None)
        clients.append(client)
        return MediaClient(client, HostList(hosts or ("*.virtualacd.biz", "*.virtualacd.biz:8443")), auth=None)

    yield build
    for client in clients:
        client.close()
    limiter.close()


def fault_of(media: MediaClient, url: str) -> tuple[str, str]:
    with pytest.raises(MediaFault) as fault:
        media.fetch(url, "1", io.BytesIO())
    return fault.value.kind, fault.value.reason


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that connections were opened to; none of them answers."""
    addresses: list[str] = []

    def create_connection(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        addresses.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return addresses


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.7", "::1", "fe80::1%eth0", "::ffff:10.0.0.7"]
)
def test_a_listed_name_that_leads_inside_is_not_connected_to(media: Media, connected: list[str], address: str) -> None:
    assert fault_of(media(lambda *_: [address]), f"https://{NAME}/?file=a") == ("refused", "address_not_public")
    assert connected == []


def test_of_a_names_addresses_only_the_public_ones_are_tried_in_order(media: Media, connected: list[str]) -> None:
    found = ["10.0.0.7", "93.184.216.34", "127.0.0.1", "2606:4700::1111"]
    assert fault_of(media(lambda *_: found), f"https://{NAME}/?file=a") == ("unavailable", "source_unavailable")
    assert connected == ["93.184.216.34", "2606:4700::1111"]


def test_the_address_that_was_checked_is_the_one_connected_to(media: Media, connected: list[str]) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])  # a name server that changes its mind at once
    assert fault_of(media(lambda *_: next(answers)), f"https://{NAME}/?file=a")[0] == "unavailable"
    assert connected == ["93.184.216.34"]


def test_the_systems_own_resolver_is_asked_and_not_believed(
    media: Media, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert fault_of(media(), f"https://{NAME}:8443/?file=a") == ("refused", "address_not_public")
    assert asked == [(NAME, 8443)]
    assert connected == []


def test_a_name_without_an_address_leaves_the_source_unavailable(media: Media, connected: list[str]) -> None:
    def fails(*_: object) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert fault_of(media(fails), f"https://{NAME}/?file=a") == ("unavailable", "source_unavailable")
    assert fault_of(media(), f"https://{'a' * 70}.virtualacd.biz/?file=a") == ("unavailable", "source_unavailable")
    assert connected == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/?file=a", "http://localhost:{}/?file=a", "http://localhost.:{}/?file=a"]
)
def test_an_address_or_localhost_on_the_list_is_taken_as_meant(
    media: Media, serve: Callable[[Answer], RawServer], speak: Callable[..., bytes], wav: Callable[..., bytes], url: str
) -> None:
    body = wav(100)
    server = serve(lambda _, connection: connection.sendall(speak(body)))
    sink = io.BytesIO()
    fetched = media(hosts=("127.0.0.1", "localhost")).fetch(url.format(server.port), "1", sink)
    assert (fetched.size, sink.getvalue()) == (len(body), body)


def test_localhost_leads_to_this_machine_or_nowhere(media: Media, connected: list[str]) -> None:
    listed = media(lambda *_: ["93.184.216.34"], ("localhost",))
    assert fault_of(listed, "http://localhost:8080/?file=a") == ("refused", "address_not_public")
    assert connected == []


def test_a_redirect_to_a_listed_name_that_leads_inside_is_refused(
    media: Media, serve: Callable[[Answer], RawServer], speak: Callable[..., bytes]
) -> None:
    canary = serve(lambda _, connection: connection.sendall(speak(b"inside")))
    target = f"https://{NAME}:{canary.port}/?file=a"
    server = serve(lambda _, connection: connection.sendall(speak(b"", f"Location: {target}", status="302 Found")))
    hosts = ("127.0.0.1", f"*.virtualacd.biz:{canary.port}")
    found = fault_of(media(lambda *_: ["127.0.0.1"], hosts), f"{server.url}/?file=a")
    assert found == ("refused", "address_not_public")
    assert canary.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "9.0.0.1"])
def test_a_wildcard_never_covers_an_address(host: str) -> None:
    for entry in ("*.0.0.1", "*.1", "*.254", "*.169.254"):
        with pytest.raises(LinkRefused):
            HostList([entry]).require(f"https://{host}/?file=a")


# --- TLS


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, list[str | None]]]]:
    """Starts a TLS server: its port, and the names that clients asked for."""
    listeners: list[socket.socket] = []

    def start(name: str, answer: bytes) -> tuple[int, list[str | None]]:
        context, asked = certificate(tmp_path, name), list[str | None]()
        context.sni_callback = lambda _, server_name, __: asked.append(server_name)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(65536)
                        secured.sendall(answer)
                except OSError:
                    connection.close()

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1], asked

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_the_certificate_is_checked_against_the_name_though_the_address_is_connected_to(
    media: Media,
    tls: Callable[..., tuple[int, list[str | None]]],
    speak: Callable[..., bytes],
    wav: Callable[..., bytes],
) -> None:
    port, asked = tls("localhost", speak(wav(100)))
    fetched = media(hosts=(f"localhost:{port}",)).fetch(f"https://localhost:{port}/?file=a", "1", io.BytesIO())
    assert fetched.size == len(wav(100))
    assert asked == ["localhost"]


def test_a_certificate_for_another_name_is_refused(
    media: Media,
    tls: Callable[..., tuple[int, list[str | None]]],
    speak: Callable[..., bytes],
    wav: Callable[..., bytes],
) -> None:
    port, asked = tls("elsewhere.example", speak(wav(100)))
    listed = media(hosts=(f"localhost:{port}",))
    with pytest.raises(ConnectionNotAllowed, match=r"certificate of localhost .*not valid for 'localhost'"):
        listed.fetch(f"https://localhost:{port}/?file=a", "1", io.BytesIO())
    assert asked == ["localhost"]
