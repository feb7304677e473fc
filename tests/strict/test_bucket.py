"""The archive's own bucket under every name that boto3 knows for one, and under every way to reach it."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest

from pipelines.archive.bucket import PART, Bucket
from pipelines.archive.client import S3Options, make_s3_client
from pipelines.archive.errors import KeyExists, StorageError, StorageRefused, StorageUnavailable
from sandbox.strict_s3 import Demands, StrictS3

OURS = "123456789012"
POINT = f"accesspoint/archive-{OURS}"


@pytest.fixture
def reach(strict: StrictS3, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bucket]:
    """`reach(name, region="eu-central-1", AWS_USE_FIPS_ENDPOINT="true")`: the product's bucket, through the proxy."""

    def make(
        name: str, *, region: str | None = "eu-central-1", options: S3Options | None = None, **variables: str
    ) -> Bucket:
        for variable, value in (strict.environment(region=region) | variables).items():
            monkeypatch.setenv(variable, value)
        strict.answered.clear()
        return Bucket(make_s3_client(max_connections=2, options=options), name, "archive/")

    return make


def new(strict: StrictS3, region: str = "eu-central-1", suffix: str = "", **arguments: Any) -> str:
    return strict.make_bucket(f"archive-{uuid.uuid4().hex[:12]}{suffix}", region=region, **arguments).name


def used(bucket: Bucket) -> None:
    """Put, put again, look, read, list: all that a run does."""
    body = b"RIFF" + uuid.uuid4().bytes
    digest = hashlib.sha256(body).hexdigest()
    key = "archive/recordings/date=2020-07-30/account_id=1/layout=mono/a b.WAV"
    put = bucket.put_new(key, body, sha256=digest, content_type="audio/wav", metadata={"sha256": digest})
    assert put.proven
    with pytest.raises(KeyExists):
        bucket.put_new(key, b"other", sha256=hashlib.sha256(b"other").hexdigest(), content_type="audio/wav")
    facts = bucket.head(key)
    assert facts is not None
    assert (facts.sha256, facts.size) == (digest, len(body))
    assert bucket.hash_object(key).sha256 == digest
    assert bucket.head(f"{key}x") is None
    assert list(bucket.list_folders("archive/")) == ["archive/recordings/"]
    assert [found for found, _ in bucket.list_keys("archive/recordings/")] == [key]


@pytest.mark.parametrize(
    ("region", "variables", "host"),
    [
        ("eu-central-1", {}, "s3.eu-central-1.amazonaws.com"),
        ("us-east-1", {}, "s3.amazonaws.com"),
        ("us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, "s3-fips.us-east-1.amazonaws.com"),
        ("us-gov-west-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, "s3-fips.us-gov-west-1.amazonaws.com"),
        ("eu-central-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "s3.dualstack.eu-central-1.amazonaws.com"),
        ("us-gov-east-1", {}, "s3.us-gov-east-1.amazonaws.com"),
        ("cn-north-1", {}, "s3.cn-north-1.amazonaws.com.cn"),
        ("cn-northwest-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "s3.dualstack.cn-northwest-1.amazonaws.com.cn"),
    ],
)
def test_the_bucket_is_used_under_the_name_that_boto3_gives_it(
    reach: Callable[..., Bucket], strict: StrictS3, region: str, variables: dict[str, str], host: str
) -> None:
    name = new(strict, region)
    bucket = reach(name, region=region, **variables)
    assert bucket.is_amazon
    used(bucket)
    assert {request.host for request in strict.answered} == {f"{name}.{host}"}


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_either_variable_names_the_region(
    reach: Callable[..., Bucket], strict: StrictS3, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    name = new(strict, "eu-north-1")
    used(reach(name, region=None, **{variable: "eu-north-1"}))
    assert not [request for request in strict.answered if request.status not in {200, 404, 412}]


def test_without_a_region_the_buckets_own_is_found_out_once(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    used(reach(new(strict, "ap-southeast-2"), region=None))
    assert len([request for request in strict.answered if request.status in {301, 307, 400}]) <= 1


@pytest.mark.parametrize("options", [{}, {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}])
def test_the_arn_of_an_access_point_is_a_bucket(
    reach: Callable[..., Bucket], strict: StrictS3, options: dict[str, str]
) -> None:
    strict.access_points[f"archive-{OURS}"] = new(strict, "us-west-2")
    used(reach(f"arn:aws:s3:us-west-2:{OURS}:accesspoint/archive", region="us-west-2", **options))
    assert all(request.host.startswith(f"archive-{OURS}.s3-accesspoint") for request in strict.answered)


def test_an_access_point_of_another_region_is_used_there(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    strict.access_points[f"far-{OURS}"] = new(strict, "us-west-2")
    used(reach(f"arn:aws:s3:us-west-2:{OURS}:accesspoint/far", region="eu-central-1"))


def test_a_vpc_endpoint_is_used(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    url = "https://bucket.vpce-1a2b-5e6f.s3.eu-central-1.vpce.amazonaws.com"
    name = new(strict)
    used(reach(name, AWS_ENDPOINT_URL_S3=url))
    assert {request.host for request in strict.answered} == {url.removeprefix("https://")}


def test_a_directory_bucket_of_s3_express_is_used(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    used(reach(new(strict, suffix="--euc1-az1--x-s3")))
    assert any("session" in request.query for request in strict.answered)


def test_a_bucket_with_dots_in_its_name_is_used(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    used(reach(new(strict, suffix=".of.calls")))


def test_a_large_body_is_proven_create_only_and_refused_the_second_time(
    reach: Callable[..., Bucket], strict: StrictS3
) -> None:
    bucket = reach(new(strict, locked=True))
    body = b"RIFF" + bytes(2 * PART)
    digest = hashlib.sha256(body).hexdigest()
    put = bucket.put_new("archive/k", io.BytesIO(body), sha256=digest, content_type="audio/wav")
    assert put.proven
    with pytest.raises(KeyExists):
        bucket.put_new("archive/k", io.BytesIO(body), sha256=digest, content_type="audio/wav")
    assert bucket.hash_object("archive/k").sha256 == digest


def test_between_the_look_and_the_end_of_an_upload_somebody_else_may_come_first(
    reach: Callable[..., Bucket], strict: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = reach(new(strict))
    body = b"RIFF" + bytes(2 * PART)
    bucket.put_new("archive/k", b"first", sha256=hashlib.sha256(b"first").hexdigest(), content_type="audio/wav")
    monkeypatch.setattr(bucket, "head", lambda _: None)
    with pytest.raises(KeyExists):
        bucket.put_new("archive/k", io.BytesIO(body), sha256=hashlib.sha256(body).hexdigest(), content_type="audio/wav")
    assert bucket.get_bytes("archive/k") == b"first"


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "SlowDown", "InternalError"])
def test_an_upload_whose_end_is_refused_for_now_is_completed_all_the_same(
    reach: Callable[..., Bucket], strict: StrictS3, code: str
) -> None:
    bucket = reach(new(strict))
    body = b"RIFF" + bytes(2 * PART)
    strict.fail(code, method="POST", subresource="uploadId")
    put = bucket.put_new(
        "archive/k", io.BytesIO(body), sha256=hashlib.sha256(body).hexdigest(), content_type="audio/wav"
    )
    assert put.proven
    assert bucket.get_bytes("archive/k") == body


def test_a_body_that_is_altered_on_the_way_is_not_stored(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    bucket = reach(new(strict))

    def alter(request: Any, **_: Any) -> None:
        request.body = io.BytesIO(b"RIFX")

    bucket._client.meta.events.register("before-send.s3.PutObject", alter)
    with pytest.raises(StorageError, match="altered"):
        bucket.put_new("archive/k", b"RIFF", sha256=hashlib.sha256(b"RIFF").hexdigest(), content_type="audio/wav")
    assert bucket.head("archive/k") is None


def test_what_the_policy_asks_for_is_a_setting(reach: Callable[..., Bucket], strict: StrictS3) -> None:
    name = new(strict, demands=Demands(kms_key="1234abcd", owner=True, payer=True))
    options = S3Options(kms_key_id="1234abcd", expected_bucket_owner=OURS, request_payer="requester")
    used(reach(name, options=options))
    with pytest.raises(StorageRefused, match="s3:PutObject"):
        reach(name).put("archive/k", b"x", content_type="text/plain")


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"AWS_CA_BUNDLE": certifi.where()}, "AWS_CA_BUNDLE"),
        ({"AWS_CA_BUNDLE": "/nowhere.pem"}, "AWS_CA_BUNDLE"),
        ({"AWS_CA_BUNDLE": ""}, "AWS_CA_BUNDLE"),
        ({"AWS_ENDPOINT_URL_S3": "s3.example.com"}, "AWS_ENDPOINT_URL_S3"),
        ({"AWS_REGION": "no region"}, "AWS_REGION"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY0000000000"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "canary"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SESSION_TOKEN": "canary"}, "AWS_SESSION_TOKEN"),
    ],
)
def test_a_variable_that_is_wrong_is_named_in_one_sentence(
    reach: Callable[..., Bucket], strict: StrictS3, variables: dict[str, str], remedy: str
) -> None:
    with pytest.raises(StorageRefused, match=remedy) as caught:
        reach(new(strict), **variables).put("archive/k", b"x", content_type="text/plain")
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_wants_a_log_in_or_is_not_there_is_named(
    strict: StrictS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with StrictS3(tmp_path, proxy_log_in="someone:canary") as other:
        other.make_bucket("archive")
        for name, value in (other.environment(region="us-east-1") | {"HTTPS_PROXY": other.url}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match="HTTPS_PROXY") as caught:
            Bucket(make_s3_client(max_connections=1), "archive", "").head("k")
        assert isinstance(caught.value, StorageRefused)
        monkeypatch.setenv("HTTPS_PROXY", other.proxy_url)
        assert Bucket(make_s3_client(max_connections=1), "archive", "").head("k") is None
        gone = other.proxy_url
    monkeypatch.setenv("HTTPS_PROXY", gone)
    with pytest.raises(StorageUnavailable, match="HTTPS_PROXY") as lost:
        Bucket(make_s3_client(max_connections=1), "archive", "").head("k")
    assert "canary" not in str(lost.value)
