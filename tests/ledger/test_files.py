"""The files of a ledger, in a folder and in a bucket: whole, private, and named in errors."""

import hashlib
import io
import os
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.awsrequest import AWSResponse

from pipelines.ledger.files import Files, LedgerUnavailable, LocalFiles, S3Files
from tests.ledger.conftest import Location
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.rclone import Rclone
from tests.servers.scripted_http import Request, Response, ScriptedServer


def test_what_was_created_is_listed_and_read_back(location: Location) -> None:
    files: Files = location.files
    for name in ("b/date=2/y.parquet", "a/date=1/x.parquet", "a/date=1/w.parquet", "ab/z.parquet"):
        files.create(name, name.encode())
    assert files.list("a") == ["a/date=1/w.parquet", "a/date=1/x.parquet", "ab/z.parquet"]
    assert files.list("a/") == ["a/date=1/w.parquet", "a/date=1/x.parquet"]
    assert files.list("a/date=1/x") == ["a/date=1/x.parquet"]
    assert files.read("b/date=2/y.parquet") == b"b/date=2/y.parquet"
    assert files.folders("a/") == ["date=1"]
    assert set(files.folders("")) - {".unfinished"} == {"a", "ab", "b"}


def test_a_location_has_an_address(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    files = LocalFiles(tmp_path / "a folder")
    files.create("kind/date=2026-11-18/1.parquet", b"1")
    assert files.uri == f"{(tmp_path / 'a folder').as_uri()}/"
    with urllib.request.urlopen(f"{files.uri}kind/date=2026-11-18/1.parquet") as stored:
        assert stored.read() == b"1"
    assert S3Files(None, "bucket", "/a/ledger/").uri == "s3://bucket/a/ledger/"
    assert S3Files(None, "bucket", "").uri == "s3://bucket/"


def test_an_empty_place_lists_nothing(location: Location) -> None:
    assert location.files.list("recording_states/") == []
    assert location.files.folders("recording_states/") == []
    with pytest.raises(FileNotFoundError):
        location.files.read("recording_states/none.parquet")


def test_a_folder_in_which_a_killed_writer_left_nothing_is_not_listed(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.create("recording_states/date=1/x.parquet", b"x")
    (tmp_path / "recording_states/date=2").mkdir()
    assert files.folders("recording_states/") == ["date=1"]


@pytest.mark.parametrize("size", [0, 1, 5 * 1024 * 1024])
def test_bytes_come_back_as_they_were(location: Location, size: int) -> None:
    data = os.urandom(size)
    location.files.create("a/x", data)
    assert hashlib.sha256(location.files.read("a/x")).digest() == hashlib.sha256(data).digest()


@pytest.mark.slow
def test_more_than_a_page_of_names_is_listed_whole(moto: AtomicMoto, tmp_path: Path) -> None:
    prefix = f"pages-{tmp_path.name}"
    client = moto.client(max_pool_connections=4)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda n: client.put_object(Bucket="ledger-test", Key=f"{prefix}/a/date={n:04d}/x", Body=b"."),
                range(1010),
            )
        )
    files = S3Files(client, "ledger-test", prefix)
    assert files.list("a/") == [f"a/date={n:04d}/x" for n in range(1010)]
    assert files.folders("a/") == [f"date={n:04d}" for n in range(1010)]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a\0", ""])
def test_a_name_that_leads_out_of_the_root_is_refused(location: Location, name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        location.files.create(name, b"x")
    with pytest.raises(ValueError, match="relative path"):
        location.files.read(name)


def test_whatever_the_umask_a_ledger_in_a_folder_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        LocalFiles(tmp_path / "data" / "ledger").create("report_rows/date=2026-11-20/x", b"telephone numbers")
    finally:
        os.umask(before)
    found = sorted((tmp_path / "data").rglob("*"))
    assert [oct(path.stat().st_mode & 0o777) for path in found] == ["0o700", "0o700", "0o700", "0o700", "0o600"]


def test_what_a_killed_writer_left_behind_is_not_listed(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.create("a/x", b"x")
    (tmp_path / ".unfinished" / "0123").write_bytes(b"half")
    assert files.list("a/") == ["a/x"]
    assert files.folders("a/") == []


@pytest.mark.parametrize(
    "config",
    [{}, {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}],
    ids=["boto3 defaults", "checksums when required"],
)
def test_both_ways_of_building_the_client_work(
    rclone: Rclone, moto: AtomicMoto, tmp_path: Path, config: dict[str, str]
) -> None:
    for server in (rclone, moto):
        files = S3Files(server.client(**config), "ledger-test", f"ways-{tmp_path.name}")
        files.create("a/x", b"bytes")
        assert files.read("a/x") == b"bytes"


def test_a_server_that_is_not_there_is_named_with_a_remedy() -> None:
    files = S3Files(client_for("http://127.0.0.1:9"), "bucket", "ledger")
    for work in (lambda: files.list("a/"), lambda: files.read("a/x"), lambda: files.create("a/x", b"")):
        with pytest.raises(LedgerUnavailable, match=r"bucket: .*EndpointConnectionError.*AWS_ENDPOINT_URL_S3"):
            work()


def test_a_bucket_that_is_not_there_is_not_an_empty_ledger(moto: AtomicMoto) -> None:
    files = S3Files(moto.client(), "no-such-bucket", "")
    with pytest.raises(LedgerUnavailable, match=r"NoSuchBucket.*check LEDGER_URL"):
        files.list("a/")
    with pytest.raises(LedgerUnavailable, match=r"NoSuchBucket.*check LEDGER_URL"):
        files.read("a/x")


def test_a_folder_that_cannot_be_used_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"a file, not a folder")
    files = LocalFiles(tmp_path / "ledger")
    for work in (lambda: files.list("a/"), lambda: files.read("a/x"), lambda: files.create("a/x", b"")):
        with pytest.raises(LedgerUnavailable, match=r"Not a directory.*LEDGER_URL"):
            work()


def test_a_body_that_is_cut_off_is_asked_for_again() -> None:
    with cutting_server(times=2) as endpoint:
        assert S3Files(client_for(endpoint), "bucket", "").read("a/x") == b"0123456789"


def test_a_body_that_is_always_cut_off_is_an_error_and_never_a_short_file() -> None:
    with cutting_server(times=99) as endpoint, pytest.raises(LedgerUnavailable, match="a/x"):
        S3Files(client_for(endpoint), "bucket", "").read("a/x")


def test_a_folder_that_a_server_names_on_two_pages_is_one_folder() -> None:
    folder = b"<CommonPrefixes><Prefix>a/b/</Prefix></CommonPrefixes>"
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    pages = [b"<ListBucketResult>%b</ListBucketResult>" % inner for inner in (folder + more, folder)]

    def page(**_: Any) -> Any:
        raw = urllib3.HTTPResponse(io.BytesIO(pages.pop(0)), preload_content=False)
        return AWSResponse("", 200, urllib3.HTTPHeaderDict(), raw)

    client = client_for("http://127.0.0.1:9")
    client.meta.events.register("before-send.s3.ListObjectsV2", page)
    assert S3Files(client, "bucket", "").folders("a/") == ["b"]
    assert not pages


def test_a_server_that_takes_no_put_is_an_error_and_no_success() -> None:
    client = client_for("http://127.0.0.1:9")
    raw = urllib3.HTTPResponse(io.BytesIO(b"<Error><Code>NotImplemented</Code></Error>"), preload_content=False)
    refusal = AWSResponse("", 501, urllib3.HTTPHeaderDict(), raw)
    client.meta.events.register("before-send.s3.PutObject", lambda **_: refusal)
    with pytest.raises(LedgerUnavailable, match="NotImplemented"):
        S3Files(client, "bucket", "").create("a/x", b"x")


def client_for(endpoint: str) -> Any:
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}),
    )


@contextmanager
def cutting_server(times: int) -> Iterator[str]:
    left = count(times, -1)

    def respond(_: Request) -> Response:
        return Response(body=b"01234" if next(left) > 0 else b"0123456789", length=10)

    with ScriptedServer(respond) as server:
        yield server.url
