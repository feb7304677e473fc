"""What the bucket promises of any S3: nothing is overwritten, listings are whole, bytes are those announced."""

import base64
import gc
import hashlib
import io
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPHeaderDict

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.capabilities import Capabilities
from pipelines.archive.client import make_s3_client
from pipelines.archive.errors import (
    KeyExists,
    KeyMissing,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    StoreDamaged,
)
from pipelines.archive.keys import day_prefix, metadata_text
from tests.servers.detour import Detour
from tests.servers.rclone import Rclone
from tests.servers.s3_proxy import S3Proxy
from tests.servers.scripted_http import Response, ScriptedServer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY = date(2020, 7, 30)
BODY = bytes(range(256)) * 40


def put(bucket: Bucket, key: str, body: Any = BODY, **changed: Any) -> Any:
    details = {
        "sha256": changed.get("sha256") or hashlib.sha256(body).hexdigest(),
        "content_type": "audio/wav",
        "metadata": {"sha256": "ab", "recording-id": "1/a"},
    }
    return bucket.put_new(key, body, **details | changed)


def test_what_was_put_is_read_back(bucket: Bucket) -> None:
    key = f"{bucket.prefix}a/b=c/%41-é.WAV"
    answer = put(bucket, key)
    assert bucket.get_bytes(key) == BODY
    assert bucket.hash_object(key).sha256 == hashlib.sha256(BODY).hexdigest()
    facts = bucket.head(key)
    assert facts is not None
    assert facts.etag == answer.etag == hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert facts.size == len(BODY)
    # rclone returns the metadata's keys as Sha256 and Recording-Id
    assert facts.sha256 == "ab"
    assert facts.recording_id == metadata_text("1/a") != metadata_text("1/A")


def test_an_object_is_read_in_blocks(bucket: Bucket) -> None:
    put(bucket, f"{bucket.prefix}a")
    blocks = list(bucket.blocks(f"{bucket.prefix}a", 1000))
    assert max(map(len, blocks)) <= 1000
    assert b"".join(blocks) == BODY


def test_nothing_is_ever_put_over_something(bucket: Bucket) -> None:
    put(bucket, f"{bucket.prefix}a")
    with pytest.raises(KeyExists):
        put(bucket, f"{bucket.prefix}a", b"other")
    assert bucket.get_bytes(f"{bucket.prefix}a") == BODY


def test_what_is_not_there_is_said_to_be_missing(bucket: Bucket) -> None:
    assert bucket.head(f"{bucket.prefix}none") is None
    assert list(bucket.list_keys(bucket.prefix)) == []
    with pytest.raises(KeyMissing):
        bucket.get_bytes(f"{bucket.prefix}none")
    with pytest.raises(KeyMissing):
        bucket.hash_object(f"{bucket.prefix}none")


def test_an_error_that_was_dealt_with_keeps_nothing_of_its_callers_in_memory(bucket: Bucket) -> None:
    class Held:
        """What a caller has in memory."""

    def ask() -> "weakref.ref[Held]":
        held = Held()
        with pytest.raises(KeyMissing):
            bucket.get_bytes("not-there")
        return weakref.ref(held)

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()


def test_a_days_listing_has_every_object_of_that_day_only(bucket: Bucket) -> None:
    start = day_prefix(bucket.prefix, DAY)
    keys = {f"{start}account_id=1/layout=mono/{name}.WAV" for name in "abc"}
    for key in keys:
        put(bucket, key)
    put(bucket, day_prefix(bucket.prefix, date(2020, 7, 31)) + "x")
    listed = bucket.list_day(DAY)
    assert set(listed) == keys
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert {(entry.size, entry.etag) for entry in listed.values()} == {(len(BODY), md5)}


def test_a_listing_longer_than_a_page_is_complete(rclone_bucket: Bucket) -> None:
    keys = {f"{day_prefix(rclone_bucket.prefix, DAY)}{number}.WAV" for number in range(1003)}  # a page holds 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: rclone_bucket.put(key, b"x", content_type="audio/wav"), keys))
    assert set(rclone_bucket.list_day(DAY)) == keys


@pytest.mark.parametrize("lost", [0, 3])
def test_a_listing_in_parts_is_the_listing(bucket: Bucket, lost: int) -> None:
    start = day_prefix(bucket.prefix, DAY)
    keys = [f"{start}account_id=1/layout=mono/{name}.WAV" for name in ("a", "ä", "b~", "b", "c d", "e", "z", "𝄞")]
    for key in [*keys[lost:], f"{start}more.WAV"]:
        put(bucket, key)
    put(bucket, day_prefix(bucket.prefix, date(2020, 8, 1)) + "x")
    expected = [*keys, day_prefix(bucket.prefix, date(2020, 8, 1)) + "x"]
    for least in (1, 2, 3, 100):
        listed = bucket.list_day(DAY, expected, least=least)
        assert listed == dict(bucket.list_keys(start))
        assert set(listed) == {*keys[lost:], f"{start}more.WAV"}


@pytest.mark.parametrize("obeys", [True, False])
def test_a_store_that_lists_in_no_order_loses_nothing_that_is_expected(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    start = day_prefix(bucket.prefix, DAY)
    stored = {f"{start}{number}": Listed(number, "") for number in (5, 3, 9, 1, 7, 2)}

    def list_keys(start: str, after: str = "") -> Any:
        return iter([(key, it) for key, it in stored.items() if key.startswith(start) and (not obeys or key > after)])

    monkeypatch.setattr(bucket, "list_keys", list_keys)
    assert bucket.list_day(DAY, stored, least=2) == stored


def test_a_page_that_breaks_off_or_is_an_error_is_asked_for_again(rclone_client: "S3Client", prefix: str) -> None:
    bucket = Bucket(rclone_client, "archive", prefix)
    start = f"{prefix}listed/"
    put(bucket, f"{start}a.WAV")
    whole = f"<ListBucketResult><Contents><Key>{start}b.WAV</Key><Size>1</Size></Contents></ListBucketResult>".encode()
    bodies = iter([whole[:-30], b"<Error><Code>InternalError</Code></Error>"])

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        body = next(bodies, None)
        if body is None:
            return None
        raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        return AWSResponse(request.url, 200, HTTPHeaderDict({"Content-Type": "application/xml"}), raw)

    rclone_client.meta.events.register("before-send.s3.ListObjectsV2", answer)
    try:
        assert [key for key, _ in bucket.list_keys(start)] == [f"{start}a.WAV"]
    finally:
        rclone_client.meta.events.unregister("before-send.s3.ListObjectsV2", answer)
    assert next(bodies, None) is None


def test_a_listing_that_does_not_go_on_is_an_error_and_not_a_short_day() -> None:
    first_of_more = b"<IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>1</Size></Contents>"
    with ScriptedServer(Response(body=b"<ListBucketResult>%b</ListBucketResult>" % first_of_more)) as server:
        bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=server.url), "archive", "")
        for names in (bucket.list_keys(""), bucket.list_folders("")):
            with pytest.raises(StorageRefused, match="do not continue after the first page"):
                list(names)


def test_bytes_that_are_not_those_announced_are_refused_where_the_server_looks(rclone: Rclone, prefix: str) -> None:
    client = make_s3_client(max_connections=1, endpoint_url=rclone.url)
    bucket = Bucket(client, "archive", prefix)
    assert bucket.capabilities.create_only is False

    def alter(request: AWSPreparedRequest, **_: Any) -> None:
        request.body = io.BytesIO(BODY[:-1] + b"?")

    client.meta.events.register("before-send.s3.PutObject", alter)
    with pytest.raises(StoreDamaged, match="altered in transit"):
        put(bucket, f"{prefix}a.WAV")
    assert bucket.head(f"{prefix}a.WAV") is None


def test_what_can_be_derived_again_may_be_replaced(bucket: Bucket) -> None:
    for body in (b"one", b"two"):
        bucket.put(f"{bucket.prefix}a", body, content_type="text/plain")
        assert bucket.get_bytes(f"{bucket.prefix}a") == body


def test_a_store_that_checks_no_sha256_is_sent_an_md5_and_no_other_checksum(proxied: Bucket, proxy: S3Proxy) -> None:
    put(proxied, f"{proxied.prefix}a")
    headers = {
        name.lower(): value
        for request in proxy.requests
        if request.method == "PUT"
        for name, value in request.headers.items()
    }
    assert {name for name in headers if "checksum" in name or "md5" in name} == {"content-md5"}
    assert "x-amz-trailer" not in headers
    # plain HTTP: nothing but the signature protects the body, so it is signed
    assert headers["x-amz-content-sha256"] == hashlib.sha256(BODY).hexdigest()


def test_at_amazon_a_put_costs_one_request_and_no_md5(
    amazon_bucket: Bucket, amazon_requests: list[str], detour: Detour
) -> None:
    put(amazon_bucket, f"{amazon_bucket.prefix}a")
    assert amazon_requests == ["PUT"]
    assert "content-md5" not in detour.sent[0]
    assert detour.sent[0]["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"  # TLS and the checksum protect it
    assert detour.sent[0]["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    with pytest.raises(KeyExists):
        put(amazon_bucket, f"{amazon_bucket.prefix}a")
    assert amazon_requests == ["PUT", "PUT"]


def test_a_put_in_flight_beside_ours_is_waited_for(proxied: Bucket, proxy: S3Proxy, naps: list[float]) -> None:
    proxy.orders["PUT"] = [(409, "ConditionalRequestConflict")] * 2
    put(proxied, f"{proxied.prefix}a")
    assert naps == [0.2, 0.4]
    assert proxied.get_bytes(f"{proxied.prefix}a") == BODY


def test_a_put_that_stays_in_flight_is_given_up(proxied: Bucket, proxy: S3Proxy, naps: list[float]) -> None:
    proxy.orders["PUT"] = [(409, "ConditionalRequestConflict")] * 50
    with pytest.raises(StorageUnavailable, match="ConditionalRequestConflict"):
        put(proxied, f"{proxied.prefix}a")
    assert len(naps) == 6


def test_a_server_that_does_not_know_the_condition_is_asked_without_it(
    proxied_client: "S3Client", proxy: S3Proxy, prefix: str
) -> None:
    proxy.orders["PUT"] = [(501, "NotImplemented")] * 2
    bucket = Bucket(proxied_client, "archive", prefix)
    assert bucket.capabilities == Capabilities(create_only=False, checks_sha256=False)
    proxy.requests.clear()
    put(bucket, f"{prefix}a")
    assert ["if-none-match" in put.headers for put in proxy.requests if put.method == "PUT"] == [False]
    assert proxy.count("GET") == 0, "the answer proves the bytes"
    with pytest.raises(KeyExists):
        put(bucket, f"{prefix}a", b"other")
    assert bucket.get_bytes(f"{prefix}a") == BODY


@pytest.mark.parametrize("refusal", [(400, "InvalidArgument"), (501, "NotImplemented")])
def test_a_server_that_refuses_checksums_is_sent_an_md5_alone(
    proxied_client: "S3Client", proxy: S3Proxy, prefix: str, refusal: tuple[int, str]
) -> None:
    proxy.orders["PUT"] = [refusal]
    bucket = Bucket(proxied_client, "archive", prefix)
    assert bucket.capabilities == Capabilities(create_only=True, checks_sha256=False)
    proxy.requests.clear()
    put(bucket, f"{prefix}a")
    (sent,) = proxy.requests
    names = {name.lower() for name in sent.headers}
    assert "content-md5" in names
    assert not [name for name in names if "checksum" in name]


def test_bytes_that_changed_after_they_were_received_are_never_stored(bucket: Bucket) -> None:
    for key, body in ((f"{bucket.prefix}small", BODY), (f"{bucket.prefix}large", io.BytesIO(BODY * 1000))):
        with pytest.raises(StoreDamaged, match="changed on this machine"):
            put(bucket, key, body, sha256=hashlib.sha256(b"what was received").hexdigest())
        assert bucket.head(key) is None


def test_a_body_sent_again_is_sent_from_its_beginning(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = [(409, "ConditionalRequestConflict")]
    proxied.put_new(
        f"{proxied.prefix}a",
        io.BytesIO(BODY),
        sha256=hashlib.sha256(BODY).hexdigest(),
        content_type="audio/wav",
    )
    assert proxied.get_bytes(f"{proxied.prefix}a") == BODY


def test_a_short_weakness_of_the_server_is_not_noticed(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = [(503, "SlowDown")]
    put(proxied, f"{proxied.prefix}a")
    assert proxied.get_bytes(f"{proxied.prefix}a") == BODY


def test_a_lost_answer_shows_as_something_being_there(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = ["lose"]
    with pytest.raises(KeyExists):
        put(proxied, f"{proxied.prefix}a")
    assert proxied.get_bytes(f"{proxied.prefix}a") == BODY


def test_a_read_that_breaks_off_is_never_taken_for_the_end(proxied: Bucket, proxy: S3Proxy) -> None:
    put(proxied, f"{proxied.prefix}a")
    for read in (proxied.get_bytes, proxied.hash_object):
        proxy.orders["GET"] = ["cut"]
        with pytest.raises(StorageUnavailable):
            read(f"{proxied.prefix}a")


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "AccessDenied", StorageRefused, "s3:PutObject"),
        (404, "NoSuchBucket", StorageRefused, "ARCHIVE_BUCKET"),
        (400, "AuthorizationHeaderMalformed", StorageRefused, "AWS_REGION"),
        (400, "InvalidRequest", StorageRefused, "InvalidRequest"),
        (400, "EntityTooLarge", StorageRefused, "client_max_body_size"),
        (413, "", StorageRefused, "client_max_body_size"),
        (501, "NotImplemented", StorageRefused, "NotImplemented"),
        (500, "InternalError", StorageUnavailable, "InternalError"),
    ],
)
def test_a_refusal_says_what_to_do(  # noqa: PLR0917 - fixtures and parameters
    proxied: Bucket, proxy: S3Proxy, status: int, code: str, kind: type[StorageError], says: str
) -> None:
    proxy.orders["PUT"] = [(status, code)] * 5
    with pytest.raises(kind, match=says) as caught:
        put(proxied, f"{proxied.prefix}a")
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_never_an_empty_day(rclone_client: "S3Client", moto_client: "S3Client") -> None:
    for client in (rclone_client, moto_client):
        with pytest.raises(StorageRefused, match="ARCHIVE_BUCKET"):
            Bucket(client, "nobody-made-this", "").list_day(DAY)


def test_wrong_credentials_are_named_and_not_shown(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2hunter2hunter2")
    bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=rclone.url), "archive", "")
    for call, sentence in (
        (lambda: bucket.head("a"), "credentials"),
        (lambda: bucket.list_day(DAY), "AWS_SECRET_ACCESS_KEY does not belong"),
        (lambda: put(bucket, "a"), "credentials"),
    ):
        with pytest.raises(StorageRefused, match=sentence) as caught:
            call()
        assert "hunter2" not in str(caught.value)


def test_no_credentials_at_all_is_said(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=rclone.url), "archive", "")
    with pytest.raises(StorageRefused, match="no usable AWS credentials"):
        bucket.head("a")


def test_a_server_that_is_not_there_is_unavailable(closed_port_bucket: Callable[[], Bucket]) -> None:
    with pytest.raises(StorageUnavailable, match="AWS_ENDPOINT_URL_S3"):
        closed_port_bucket().head("a")


def test_a_name_no_bucket_can_have_is_refused(rclone_client: "S3Client") -> None:
    with pytest.raises(StorageRefused, match="ARCHIVE_BUCKET"):
        Bucket(rclone_client, "not a bucket!", "").head("a")


def test_the_endpoint_of_the_environment_is_used(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone.url)
    bucket = Bucket(make_s3_client(max_connections=1), "archive", "")
    assert not bucket.is_amazon
    assert bucket.head("nothing") is None
