"""Real S3 servers for the archive's tests, and a WAV builder.

`rclone serve s3` ignores IfNoneMatch and forgets metadata; `moto_server` honours it and checks no bytes. A proxy in
front of moto breaks what a network breaks. Each process is stopped by its own id.
"""

import http.client
import io
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPHeaderDict

from pipelines.archive.bucket import Bucket
from pipelines.archive.capabilities import Capabilities
from pipelines.archive.client import make_s3_client
from pipelines.archive.keys import recording_key
from pipelines.archive.transfer import Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "archive"
KEY_ID, SECRET = "ARCHIVEKEYID12345678", "archivesecret0123456789archivesecret01234"
DAY = date(2020, 7, 30)


@dataclass
class Server:
    """An S3 in a process of its own."""

    command: list[str]
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session", autouse=True)
def _aws_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("rclone"), free_port()
    (folder / NAME).mkdir()
    binary = str(Path(sys.executable).parent / "rclone")
    auth = f"{KEY_ID},{SECRET}"
    server = Server(
        [binary, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", auth, str(folder)], port, folder
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).parents[1] / "atomic_moto.py"), "-H", "127.0.0.1", "-p", str(port)]
    server = Server(command, port, tmp_path_factory.mktemp("moto"))
    server.start()
    make_s3_client(max_connections=2, endpoint_url=server.url).create_bucket(Bucket=NAME)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rclone_client(rclone: Server) -> "S3Client":
    return make_s3_client(max_connections=16, endpoint_url=rclone.url)


@pytest.fixture(scope="session")
def moto_client(moto: Server) -> "S3Client":
    return make_s3_client(max_connections=16, endpoint_url=moto.url)


@pytest.fixture
def prefix() -> str:
    return f"t-{uuid.uuid4().hex}/"


@pytest.fixture
def rclone_bucket(rclone_client: "S3Client", prefix: str) -> Bucket:
    return Bucket(rclone_client, NAME, prefix)


@pytest.fixture
def moto_bucket(moto_client: "S3Client", prefix: str) -> Bucket:
    return Bucket(moto_client, NAME, prefix)


@pytest.fixture(params=["rclone", "moto"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """Every test with this one runs against both servers."""
    chosen: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return chosen


@dataclass
class Proxy:
    """Stands between the client and moto, notes each request, and breaks those a test has ordered to be broken.

    Orders are used up one a request of that method: `alter` flips a bit of the body on the way there, `alter_back` one
    on the way back, `lose` passes the request on and drops the answer, `cut` breaks off the answer's body, a status and
    a code are answered at once.
    """

    port: int
    upstream: int
    orders: dict[str, list[Any]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    answer_headers: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        return sum(1 for verb, _, _ in self.seen if verb == method)

    def next_order(self, method: str) -> Any:
        with self.lock:
            queue = self.orders.get(method, [])
            return queue.pop(0) if queue else None


def _flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            order = proxy.next_order(self.command)
            headers = dict(self.headers.items())
            proxy.seen.append((self.command, self.path, headers))
            if isinstance(order, tuple):
                status, code = order
                text = f"<Error><Code>{code}</Code><Message>ordered</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)
                return
            if order == "alter":
                body = _flip(body)
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=20)
            upstream.request(self.command, self.path, body=body, headers=headers)
            answer = upstream.getresponse()
            data = answer.read()
            length = answer.getheader("Content-Length", str(len(data)))
            if order == "lose":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if order == "alter_back":
                data = _flip(data)
            self.send_response(answer.status)
            changed = {name.lower() for name in proxy.answer_headers} | {
                "content-length",
                "transfer-encoding",
                "connection",
                "server",
                "date",
            }
            for name, value in answer.getheaders():
                if name.lower() not in changed:
                    self.send_header(name, value)
            for name, value in proxy.answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if order == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815 - the base class's names

    return Handler


@pytest.fixture(scope="session")
def running_proxy(moto: Server) -> Iterator[Proxy]:
    made = Proxy(port=0, upstream=moto.port)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def proxied_client(running_proxy: Proxy) -> "S3Client":
    return make_s3_client(max_connections=4, endpoint_url=running_proxy.url)


@pytest.fixture
def proxy(running_proxy: Proxy) -> Proxy:
    running_proxy.orders.clear()
    running_proxy.seen.clear()
    running_proxy.answer_headers.clear()
    return running_proxy


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def proxied(proxied_client: "S3Client", proxy: Proxy, prefix: str, naps: list[float]) -> Bucket:
    """A bucket behind the proxy, whose capabilities are known by now; take `proxy` as well to give it orders."""
    bucket = Bucket(proxied_client, NAME, prefix)
    bucket._when_free.sleep = naps.append
    assert bucket.capabilities == Capabilities(create_only=True, checks_sha256=False)
    proxy.seen.clear()
    return bucket


def _chunk(name: bytes, body: bytes, *, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(order + "I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def build_wav(
    *,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    tag: int = 1,
    audio: bytes = b"\1\2" * 400,
    extensible: bool = False,
    before: tuple[tuple[bytes, bytes], ...] = (),
    after: tuple[tuple[bytes, bytes], ...] = (),
    magic: bytes = b"RIFF",
    riff_size: int | None = None,
    data_size: int | None = None,
    ds64: tuple[int, int] | None = None,
    byte_rate: int | None = None,
    block: int | None = None,
) -> bytes:
    """A WAV, chunk by chunk; sizes that are not given are the true ones."""
    order = ">" if magic == b"RIFX" else "<"
    align = channels * bits // 8 if block is None else block
    speed = rate * align if byte_rate is None else byte_rate
    fmt = struct.pack(order + "HHIIHH", 0xFFFE if extensible else tag, channels, rate, speed, align, bits)
    if extensible:
        guid = struct.pack(order + "H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        fmt += struct.pack(order + "HHI", 22, bits, 0) + guid
    wide = magic in {b"RF64", b"BW64"}
    inner = b"".join(_chunk(name, body, order=order) for name, body in before) + _chunk(b"fmt ", fmt, order=order)
    data = _chunk(b"data", audio, size=0xFFFFFFFF if wide and data_size is None else data_size, order=order)
    tail = b"".join(_chunk(name, body, order=order) for name, body in after)
    total = 4 + (36 if wide else 0) + len(inner) + len(data) + len(tail)
    head = b""
    if wide:
        riff64, data64 = ds64 if ds64 is not None else (total, len(audio))
        head = _chunk(b"ds64", struct.pack(order + "QQQI", riff64, data64, len(audio) // max(align, 1), 0))
    declared = riff_size if riff_size is not None else (0xFFFFFFFF if wide else total)
    return magic + struct.pack(order + "I", declared) + b"WAVE" + head + inner + data + tail


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    return build_wav


@pytest.fixture
def upload_of(prefix: str) -> Callable[..., Upload]:
    """What `store` is told about a body; the key is a mono recording's of 2020-07-30 unless another is given."""

    def make(
        body: bytes, *, key: str | None = None, recording_id: str = "15300002/15300002/202007/30/a-1.WAV"
    ) -> Upload:
        return Upload(
            key=recording_key(prefix, DAY, "15300002", "mono", "15300002/202007/30/a-1.WAV") if key is None else key,
            recording_id=recording_id,
            uii="202007302136360132130000036446",
            layout="mono",
            source="global_call_type_detail",
            sha256=sha256(body).hexdigest(),
            size=len(body),
        )

    return make


@pytest.fixture
def amazon_requests() -> list[str]:
    return []


@pytest.fixture
def amazon_headers() -> dict[str, str]:
    """Headers to put into the answers that seem to come from Amazon."""
    return {}


@dataclass
class Detour:
    """Takes to moto what would go to Amazon; notes methods and headers, and changes the answers' headers."""

    port: int
    methods: list[str]
    changed: dict[str, str]
    sent: list[dict[str, str]] = field(default_factory=list)

    def redirect(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        target = urlsplit(request.url)
        path = f"/{target.netloc.partition('.')[0]}{target.path}" + (f"?{target.query}" if target.query else "")
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        self.methods.append(request.method)
        self.sent.append(headers)
        upstream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        upstream.request(request.method, path, body=request.body, headers=headers)
        answer = upstream.getresponse()
        raw = urllib3.HTTPResponse(io.BytesIO(answer.read()), preload_content=False)
        answered = {"x-amz-request-id": "1"} | dict(answer.getheaders()) | self.changed
        return AWSResponse(request.url, answer.status, HTTPHeaderDict(answered), raw)


@pytest.fixture
def detour(moto: Server, amazon_requests: list[str], amazon_headers: dict[str, str]) -> Detour:
    return Detour(moto.port, amazon_requests, amazon_headers)


@pytest.fixture
def amazon_bucket(detour: Detour, prefix: str) -> Bucket:
    """A bucket whose requests are meant for Amazon and end at moto."""
    client = make_s3_client(max_connections=4)
    client.meta.events.register("before-send.s3", detour.redirect)
    return Bucket(client, NAME, prefix)


@pytest.fixture
def closed_port_bucket() -> Callable[[], Bucket]:
    def make() -> Bucket:
        client = make_s3_client(max_connections=1, endpoint_url=f"http://127.0.0.1:{free_port()}")
        return Bucket(client, NAME, "")

    return make
