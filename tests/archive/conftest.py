"""Buckets on real S3 servers for the archive's tests, and a WAV builder."""

import struct
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.capabilities import Capabilities
from pipelines.archive.client import make_s3_client
from pipelines.archive.keys import recording_key
from pipelines.archive.transfer import Upload
from sandbox.s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.detour import Detour
from tests.servers.ports import free_port
from tests.servers.rclone import Rclone
from tests.servers.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "archive"
DAY = date(2020, 7, 30)


@pytest.fixture(scope="session", autouse=True)
def _aws_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("rclone"), bucket=NAME) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[AtomicMoto]:
    with AtomicMoto() as server:
        server.client().create_bucket(Bucket=NAME)
        yield server


@pytest.fixture(scope="session")
def rclone_client(rclone: Rclone) -> "S3Client":
    return make_s3_client(max_connections=16, endpoint_url=rclone.url)


@pytest.fixture(scope="session")
def moto_client(moto: AtomicMoto) -> "S3Client":
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


@pytest.fixture(scope="session")
def running_proxy(moto: AtomicMoto) -> Iterator[S3Proxy]:
    with S3Proxy(moto.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def proxied_client(running_proxy: S3Proxy) -> "S3Client":
    return make_s3_client(max_connections=4, endpoint_url=running_proxy.url)


@pytest.fixture
def proxy(running_proxy: S3Proxy) -> S3Proxy:
    running_proxy.reset()
    return running_proxy


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def proxied(proxied_client: "S3Client", proxy: S3Proxy, prefix: str, naps: list[float]) -> Bucket:
    """A bucket behind the proxy, whose capabilities are known by now; take `proxy` as well to give it orders."""
    bucket = Bucket(proxied_client, NAME, prefix)
    bucket._when_free.sleep = naps.append
    assert bucket.capabilities == Capabilities(create_only=True, checks_sha256=False)
    proxy.requests.clear()
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


@pytest.fixture
def detour(moto: AtomicMoto, amazon_requests: list[str], amazon_headers: dict[str, str]) -> Detour:
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
