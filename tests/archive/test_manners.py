import base64
import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable, StoreDamaged
from pipelines.archive.manners import Manners
from pipelines.archive.sender import Answer, Part, Sender, SignedSender
from pipelines.archive.transfer import Upload, store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BODY = bytes(range(256)) * 40


class Noting:
    """Sends, and keeps the headers of each put by its key's last part."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.puts: list[tuple[str, dict[str, str]]] = []

    def put(self, key: str, body: bytes | Part, headers: Any, query: Any = None) -> Answer:
        self.puts.append((key.rpartition("/")[2], dict(headers)))
        return self.sender.put(key, body, headers, query)


class Strict(Noting):
    """A server that checks what S3 checks, in front of one that does not."""

    damage = False

    def put(self, key: str, body: bytes | Part, headers: Any, query: Any = None) -> Answer:
        content = body if isinstance(body, bytes) else self.read(body)
        if self.damage and not key.endswith("checksum"):
            content = content[:-1]
        if base64.b64decode(headers["x-amz-checksum-sha256"]) != hashlib.sha256(content).digest():
            error = {"Error": {"Code": "BadDigest"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(error, "PutObject")  # type: ignore[arg-type]
        return super().put(key, content, headers, query)

    @staticmethod
    def read(part: Part) -> bytes:
        part.stream.seek(part.start)
        return part.stream.read(part.size)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def strict(moto_client: "S3Client", prefix: str) -> tuple[Bucket, Strict]:
    sender = Strict(SignedSender(moto_client, "archive"))
    return Bucket(moto_client, "archive", prefix, sender=sender), sender


def test_a_server_that_checks_nothing_is_known_now_and_later(rclone_client: "S3Client", prefix: str) -> None:
    for _ in range(2):
        bucket = Bucket(rclone_client, "archive", prefix)
        assert bucket.manners == Manners(conditions=False, checksums=False)
    assert {key.removeprefix(prefix) for key, _ in bucket.list_keys(prefix)} == {
        "probes/checksum",
        "probes/create-only",
    }


def test_a_server_that_honours_conditions_and_no_checksums_is_known(moto_bucket: Bucket) -> None:
    assert moto_bucket.manners == Manners(conditions=True, checksums=False)


def test_a_strict_server_is_known_and_keeps_no_probe_of_its_checksums(strict: tuple[Bucket, Strict]) -> None:
    bucket, _ = strict
    assert bucket.manners == Manners(conditions=True, checksums=True)
    assert bucket.head(f"{bucket.prefix}probes/checksum") is None


def test_manners_are_found_out_once(strict: tuple[Bucket, Strict]) -> None:
    bucket, sender = strict
    for name in ("a", "b"):
        bucket.put_new(f"{bucket.prefix}{name}", BODY, sha256=sha256(BODY), content_type="audio/wav")
    assert [name for name, _ in sender.puts] == ["create-only", "create-only", "a", "b"]


def test_a_second_run_asks_less(moto_client: "S3Client", prefix: str) -> None:
    for expected in (["create-only", "create-only", "checksum"], ["create-only"]):
        sender = Noting(SignedSender(moto_client, "archive"))
        assert Bucket(moto_client, "archive", prefix, sender=sender).manners.conditions
        assert [name for name, _ in sender.puts] == expected


def test_a_strict_server_gets_no_md5_and_its_word_is_proof(strict: tuple[Bucket, Strict]) -> None:
    bucket, sender = strict
    put = bucket.put_new(f"{bucket.prefix}a", io.BytesIO(BODY), sha256=sha256(BODY), content_type="audio/wav")
    assert put.proven
    assert "content-md5" not in sender.puts[-1][1]


def test_what_a_strict_server_refuses_was_not_stored(
    strict: tuple[Bucket, Strict], upload_of: Callable[..., Upload]
) -> None:
    bucket, sender = strict
    assert bucket.manners.checksums
    sender.damage = True
    upload = upload_of(BODY)
    with pytest.raises(StoreDamaged, match="altered on the way"):
        store(bucket, upload, io.BytesIO(BODY))
    assert bucket.head(upload.key) is None


def test_a_lenient_server_gets_an_md5_and_its_etag_is_compared(moto_client: "S3Client", prefix: str) -> None:
    sender = Noting(SignedSender(moto_client, "archive"))
    bucket = Bucket(moto_client, "archive", prefix, sender=sender)
    put = bucket.put_new(f"{prefix}a", io.BytesIO(BODY), sha256=sha256(BODY), content_type="audio/wav")
    md5 = hashlib.md5(BODY, usedforsecurity=False)
    assert (put.proven, put.etag) == (True, md5.hexdigest())
    assert sender.puts[-1][1]["content-md5"] == base64.b64encode(md5.digest()).decode()


def test_amazon_is_asked_nothing(amazon_bucket: Bucket, amazon_requests: list[str]) -> None:
    assert amazon_bucket.manners == Manners(conditions=True, checksums=True)
    assert amazon_requests == []


def test_a_server_that_does_not_answer_has_no_manners_yet(closed_port_bucket: Callable[[], Bucket]) -> None:
    with pytest.raises(StorageUnavailable):
        _ = closed_port_bucket().manners


def test_without_the_right_to_probe_the_least_is_believed(proxied: Bucket, proxy: Any, prefix: str) -> None:
    proxy.orders["PUT"] = [(403, "AccessDenied")] * 2
    again = Bucket(proxied._client, "archive", f"{prefix}other/")
    assert again.manners == Manners(conditions=False, checksums=False)
