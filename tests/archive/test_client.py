"""Where requests go, what they carry and what is said of a wrong variable: boto3's own answer is the measure."""

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPHeaderDict

from pipelines.archive.bucket import PART, Bucket
from pipelines.archive.capabilities import AMAZON
from pipelines.archive.client import S3Options, is_amazon, make_s3_client
from pipelines.archive.errors import StorageRefused, StorageUnavailable, StoreDamaged
from pipelines.archive.proof.signature import KeyUnusable, make_kms_client
from pipelines.archive.transfer import Upload, store
from pipelines.aws import as_base64, split_s3_url
from pipelines.ledger.files import LedgerUnavailable, S3Files
from pipelines.settings import StorageSettings, load
from pipelines.storage import ledger_files
from tests.servers.s3_proxy import S3Proxy
from tests.servers.scripted_http import Response, ScriptedServer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


VPC = "https://bucket.vpce-1a2b-5e6f.s3.eu-central-1.vpce.amazonaws.com"
ACCESS_POINT = "arn:aws:s3:eu-central-1:123456789012:accesspoint/recordings"
ACCESS_POINT_HOST = "recordings-123456789012.s3-accesspoint.eu-central-1.amazonaws.com"
FIPS = {"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"}


class SentError(Exception):
    pass


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables in an environment that names no region."""

    def make(**variables: str) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


def request_of(client: Any, bucket: str, operation: str = "put_object", **fields: Any) -> AWSPreparedRequest:
    sent: list[AWSPreparedRequest] = []

    def take(request: AWSPreparedRequest, **_: Any) -> None:
        sent.append(request)
        raise SentError

    client.meta.events.register_first("before-send.s3", take)
    with pytest.raises(SentError):
        getattr(client, operation)(Bucket=bucket, **({"Key": "a/b c.WAV", "Body": b"x"} | fields))
    client.meta.events.unregister("before-send.s3", take)
    return sent[0]


def region_of(request: AWSPreparedRequest) -> str:
    return str(request.headers["Authorization"].decode().split("/")[2])


@pytest.mark.parametrize(
    ("bucket", "variables", "host"),
    [
        ("my-bucket", {}, "my-bucket.s3.eu-central-1.amazonaws.com"),
        ("my.dotted.bucket", {}, "s3.eu-central-1.amazonaws.com"),
        ("my-bucket", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "my-bucket.s3.dualstack.eu-central-1.amazonaws.com"),
        (
            "my-bucket",
            {"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"},
            "my-bucket.s3-fips.us-east-1.amazonaws.com",
        ),
        ("my-bucket", {"AWS_REGION": "cn-north-1"}, "my-bucket.s3.cn-north-1.amazonaws.com.cn"),
        ("my-bucket", {"AWS_REGION": "us-gov-west-1"}, "my-bucket.s3.us-gov-west-1.amazonaws.com"),
        ("my-bucket", {"AWS_REGION": "eusc-de-east-1"}, "my-bucket.s3.eusc-de-east-1.amazonaws.eu"),
        ("my-bucket", {"AWS_ENDPOINT_URL_S3": VPC}, "bucket.vpce-1a2b-5e6f.s3.eu-central-1.vpce.amazonaws.com"),
        (ACCESS_POINT, {}, "recordings-123456789012.s3-accesspoint.eu-central-1.amazonaws.com"),
        (
            ACCESS_POINT,
            {"AWS_REGION": "us-east-1"},
            "recordings-123456789012.s3-accesspoint.eu-central-1.amazonaws.com",
        ),
        ("my-bucket", {"AWS_ENDPOINT_URL": "http://localhost:9000"}, "localhost:9000"),
    ],
)
def test_a_request_goes_where_boto3_sends_it(
    environment: Callable[..., None], bucket: str, variables: dict[str, str], host: str
) -> None:
    environment(**({"AWS_REGION": "eu-central-1"} | variables))
    made = make_s3_client(max_connections=1)
    plain = boto3.Session(region_name=made.meta.region_name).client("s3")
    sent, expected = request_of(made, bucket), request_of(plain, bucket)
    assert sent.url == expected.url
    assert region_of(sent) == region_of(expected)
    assert sent.url.split("/")[2] == host
    assert is_amazon(made) == ("localhost" not in host)


def test_s3_express_is_asked_for_a_session_at_its_zone(environment: Callable[..., None]) -> None:
    environment(AWS_REGION="eu-north-1")
    sent: list[str] = []

    def take(request: AWSPreparedRequest, **_: Any) -> None:
        sent.append(request.url)
        raise SentError

    client = make_s3_client(max_connections=1)
    client.meta.events.register("before-send.s3", take)
    with pytest.raises(SentError):
        client.put_object(Bucket="archive--eun1-az1--x-s3", Key="a", Body=b"")
    assert sent == ["https://archive--eun1-az1--x-s3.s3express-eun1-az1.eu-north-1.amazonaws.com/?session"]


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_either_variable_names_the_region(environment: Callable[..., None], name: str) -> None:
    environment(**{name: "eu-central-1"})
    assert make_s3_client(max_connections=1).meta.region_name == "eu-central-1"
    assert make_kms_client("alias/signing").meta.region_name == "eu-central-1"


def test_a_profile_names_region_and_addressing(environment: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile x]\nregion = eu-west-3\ns3 =\n  addressing_style = virtual\n")
    environment(
        AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="x", AWS_ENDPOINT_URL_S3="https://oss.example.com"
    )
    sent = request_of(make_s3_client(max_connections=1), "archive")
    assert (sent.url, region_of(sent)) == ("https://archive.oss.example.com/a/b%20c.WAV", "eu-west-3")


def test_a_kms_key_is_asked_for_in_the_region_of_its_arn(environment: Callable[..., None]) -> None:
    environment(AWS_REGION="eu-central-1")
    key = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234abcd"
    assert make_kms_client(key).meta.endpoint_url == "https://kms.us-gov-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("style", "url"),
    [
        (None, "https://s3.example.com/archive/a/b%20c.WAV"),
        ("path", "https://s3.example.com/archive/a/b%20c.WAV"),
        ("virtual", "https://archive.s3.example.com/a/b%20c.WAV"),
    ],
)
def test_the_addressing_style_is_a_setting(environment: Callable[..., None], style: Any, url: str) -> None:
    environment(AWS_ENDPOINT_URL_S3="https://s3.example.com")
    client = make_s3_client(max_connections=1, options=S3Options(addressing_style=style))
    assert request_of(client, "archive").url == url


def test_a_body_is_signed_where_nothing_else_protects_it(environment: Callable[..., None]) -> None:
    for endpoint, unsigned in (("https://s3.example.com", True), ("http://s3.example.com", False)):
        environment(AWS_ENDPOINT_URL_S3=endpoint)
        signed = request_of(make_s3_client(max_connections=1), "archive").headers["X-Amz-Content-SHA256"]
        assert (signed == b"UNSIGNED-PAYLOAD") is unsigned


def test_what_the_settings_add_is_in_every_request_that_knows_it(environment: Callable[..., None]) -> None:
    environment(AWS_REGION="eu-central-1")
    options = S3Options("alias/archive", "123456789012", "requester")
    client = make_s3_client(max_connections=1, options=options)
    everywhere = {"x-amz-expected-bucket-owner": "123456789012", "x-amz-request-payer": "requester"}
    encrypted = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "alias/archive",
    }
    part = {"UploadId": "u", "PartNumber": 1}
    for operation, fields, added in (
        ("put_object", {}, everywhere | encrypted),
        ("create_multipart_upload", {"Body": None}, everywhere | encrypted),
        ("upload_part", part, everywhere),
        ("get_object", {"Body": None}, everywhere),
        ("head_object", {"Body": None}, everywhere),
        ("list_objects_v2", {"Body": None, "Key": None}, everywhere),
    ):
        given = {name: value for name, value in ({"Key": "k", "Body": b"x"} | fields).items() if value is not None}
        sent: list[dict[str, str]] = []

        def take(request: AWSPreparedRequest, sent: list[dict[str, str]] = sent, **_: Any) -> None:
            text = {name.lower(): value for name, value in request.headers.items()}
            sent.append({name: value.decode() if isinstance(value, bytes) else value for name, value in text.items()})
            raise SentError

        client.meta.events.register_first("before-send.s3", take)
        with pytest.raises(SentError):
            getattr(client, operation)(Bucket="archive", **given)
        client.meta.events.unregister("before-send.s3", take)
        found = {name: value for name, value in sent[0].items() if name in everywhere | encrypted}
        assert found == added, operation


def test_a_storage_class_is_sent_with_recordings_alone(
    moto_client: "S3Client", prefix: str, upload_of: Callable[..., Upload]
) -> None:

    bucket = Bucket(moto_client, "archive", prefix, storage_class="STANDARD_IA")
    store(bucket, upload_of(b"audio"), io.BytesIO(b"audio"))
    bucket.put(f"{prefix}catalog", b"x", content_type="text/plain")
    large = b"a" * (9 << 20)
    store(bucket, upload_of(large, key=f"{prefix}recordings/large.WAV"), io.BytesIO(large))
    classes = {
        item["Key"].rpartition("/")[2]: item["StorageClass"]
        for item in moto_client.list_objects_v2(Bucket="archive", Prefix=prefix)["Contents"]
        if "/probes/" not in item["Key"]
    }
    assert classes == {"a-1.WAV": "STANDARD_IA", "large.WAV": "STANDARD_IA", "catalog": "STANDARD"}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_PROFILE": "canary"}, "AWS_PROFILE names a profile that is not in"),
        ({"AWS_ENDPOINT_URL_S3": "canary.example.com"}, "AWS_ENDPOINT_URL_S3 .* is not an address"),
        ({"AWS_ENDPOINT_URL": "canary:9000"}, "AWS_ENDPOINT_URL.* is not an address"),
        ({"AWS_REGION": "canary region"}, "AWS_REGION is not a region"),
    ],
)
def test_a_wrong_variable_is_named_before_the_first_request(
    environment: Callable[..., None], variables: dict[str, str], sentence: str
) -> None:
    environment(**variables)
    with pytest.raises(StorageRefused, match=sentence) as caught:
        make_s3_client(max_connections=1)
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kms_without_a_region_names_the_variable(environment: Callable[..., None]) -> None:
    environment()
    with pytest.raises(KeyUnusable, match="AWS_REGION"):
        make_kms_client("alias/signing")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/a/b", ("bucket", "a/b")),
        (f"s3://{ACCESS_POINT}/ringcx/ledger", (ACCESS_POINT, "ringcx/ledger")),
        (f"s3://{ACCESS_POINT}", (ACCESS_POINT, "")),
        (
            "s3://arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/ap/x",
            ("arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/ap", "x"),
        ),
    ],
)
def test_a_place_in_s3_is_a_bucket_or_an_access_point_and_a_prefix(url: str, place: tuple[str, str]) -> None:
    assert split_s3_url(url) == place


REGION = "eu-central-1"


def answer_of_another_region(request: AWSPreparedRequest, **_: Any) -> Any:
    """Amazon's answer to a signature for another region than the bucket's."""

    wrong = region_of(request) != REGION
    body = (
        f"<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>{REGION}</Region></Error>"
        if wrong and request.method != "HEAD"
        else ""
    )
    headers = {"x-amz-bucket-region": REGION, "ETag": '"e"', "Content-Type": "application/xml", "Content-Length": "0"}
    headers |= {"x-amz-request-id": "1", "x-amz-checksum-sha256": as_base64(hashlib.sha256(b"x").digest())}
    raw = urllib3.HTTPResponse(io.BytesIO(body.encode()), preload_content=False)
    return AWSResponse(request.url, 400 if wrong else 200, HTTPHeaderDict(headers), raw)


@pytest.mark.parametrize("variables", [{}, {"AWS_REGION": "us-east-1"}, {"AWS_DEFAULT_REGION": "eu-west-1"}])
@pytest.mark.parametrize("first", ["put", "head"])
def test_the_buckets_own_region_is_found_once_and_named_once(
    environment: Callable[..., None], variables: dict[str, str], first: str, caplog: pytest.LogCaptureFixture
) -> None:

    environment(**variables)
    client = make_s3_client(max_connections=1)
    asked: list[str] = []
    client.meta.events.register("before-send.s3", answer_of_another_region)
    client.meta.events.register_first("before-send.s3", lambda request, **_: asked.append(region_of(request)))
    bucket = Bucket(client, "archive", "")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            if first == "head":
                assert bucket.head("a") is not None
            bucket.put_new(f"{number}", b"x", sha256=hashlib.sha256(b"x").hexdigest(), content_type="text/plain")
    assert asked[0] != REGION
    assert set(asked[2:]) == {REGION}
    (record,) = [record for record in caplog.records if record.name == "pipelines.archive.client"]
    assert f"The bucket archive is in the region {REGION}" in record.getMessage()


def test_a_right_region_is_no_news(environment: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    environment(AWS_REGION=REGION)
    client = make_s3_client(max_connections=1)
    client.meta.events.register("before-send.s3", answer_of_another_region)
    assert Bucket(client, "archive", "").head("a") is not None
    assert not caplog.records


@pytest.mark.parametrize(
    ("status", "code", "kind", "sentence"),
    [
        (400, "ExpiredToken", StorageRefused, "credentials have expired, or AWS_SESSION_TOKEN"),
        (400, "InvalidToken", StorageRefused, "AWS_SESSION_TOKEN does not belong"),
        (403, "RequestTimeTooSkewed", StorageRefused, "clock of this machine"),
        (403, "SignatureDoesNotMatch", StorageRefused, "AWS_SECRET_ACCESS_KEY does not belong"),
        (403, "InvalidAccessKeyId", StorageRefused, "the server does not know AWS_ACCESS_KEY_ID"),
        (400, "Throttling", StorageUnavailable, "Throttling"),
        (400, "RequestLimitExceeded", StorageUnavailable, "the next run continues"),
        (400, "KMS.DisabledException", StorageRefused, "ARCHIVE_KMS_KEY_ID"),
        (403, "SecondLevelDomainForbidden", StorageRefused, "ARCHIVE_ADDRESSING_STYLE=virtual"),
        (403, "AccessDenied", StorageRefused, "ARCHIVE_EXPECTED_BUCKET_OWNER"),
        (403, "QuotaExceeded", StorageRefused, "quota is used up .QuotaExceeded.; make room"),
        (400, "XMinioAdminBucketQuotaExceeded", StorageRefused, "quota is used up"),
        (507, "XMinioStorageFull", StorageRefused, "the store is full"),
        (507, "InsufficientStorage", StorageRefused, "the store is full, .* .InsufficientStorage.; make room"),
    ],
)
def test_an_error_names_the_variable_or_comes_back_later(  # noqa: PLR0917 - fixtures and parameters
    proxied: Bucket, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: Any, sentence: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    proxy.orders["GET"] = [(status, code)] * 5
    with pytest.raises(kind, match=sentence) as caught:
        list(proxied.list_keys(proxied.prefix))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ARCHIVE_BUCKET", "LEDGER_URL"])
def test_a_bucket_of_the_ledger_that_is_not_there_names_the_variable_that_was_set(
    moto_client: "S3Client", monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", "nobody-made-this")
    if name == "LEDGER_URL":
        monkeypatch.setenv(name, "s3://nobody-made-this/ledger")
    files = ledger_files(load(StorageSettings), moto_client)
    with pytest.raises(LedgerUnavailable, match=f"NoSuchBucket; check {name} "):
        files.list("report_rows/")


def test_a_body_in_memory_is_sent_at_once_and_never_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(Response(headers={"ETag": '"1"'}), keep_alive=True) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        caplog.set_level(logging.DEBUG)
        make_s3_client(max_connections=1).put_object(Bucket="archive", Key="key", Body=b"a link with its token" * 9)
    (put,) = server.requests
    assert (put.headers["Expect"], put.body) == (None, b"a link with its token" * 9)
    assert "a link with its token" not in caplog.text


@pytest.fixture
def status() -> int:
    return 200


@pytest.fixture(params=[b"", b"<html><body>Sign in to the network</body></html>"], ids=["nothing", "a page"])
def portal(request: pytest.FixtureRequest, status: int) -> Iterator[str]:
    """The address of something that answers every request with success, or with another status."""

    with ScriptedServer(Response(status, request.param, {"Content-Type": "text/html"})) as server:
        yield server.url


@pytest.mark.parametrize(
    "call",
    [
        lambda bucket: bucket.put_new("a", b"x", content_type="text/plain"),
        lambda bucket: bucket.put_new("a", io.BytesIO(bytes(PART + 1)), content_type="text/plain"),
        lambda bucket: bucket.head("a"),
        lambda bucket: bucket.get_bytes("a"),
        lambda bucket: bucket.list_day(date(2026, 11, 18)),
    ],
    ids=["put", "put in parts", "head", "get", "list"],
)
def test_a_success_that_a_proxy_gives_in_the_place_of_s3_is_no_put_and_no_empty_list(
    portal: str, call: Callable[[Bucket], object]
) -> None:
    bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=portal), "archive", "")
    bucket._capabilities = AMAZON  # of which no put is read again
    with pytest.raises(StorageUnavailable, match=r"answered in its place.*HTTPS_PROXY"):
        call(bucket)


@pytest.mark.parametrize("status", [404])
@pytest.mark.parametrize(
    "call",
    [
        lambda bucket: bucket._put("a", b"x", hashlib.sha256(b"x").hexdigest(), {}),
        lambda bucket: bucket.get_bytes("a"),
        lambda bucket: bucket.list_day(date(2026, 11, 18)),
        lambda bucket: S3Files(bucket._client, "archive", "ledger").read("a/b"),
        lambda bucket: S3Files(bucket._client, "archive", "ledger").list("a/"),
    ],
    ids=["put", "get", "list", "read of the ledger", "list of the ledger"],
)
def test_a_web_servers_404_in_the_place_of_s3_is_no_missing_object(
    portal: str, call: Callable[[Bucket], object]
) -> None:
    bucket = Bucket(make_s3_client(max_connections=1, endpoint_url=portal), "archive", "")
    bucket._capabilities = AMAZON
    with pytest.raises((StorageUnavailable, LedgerUnavailable), match=r"answered in its place.*AWS_ENDPOINT_URL_S3"):
        call(bucket)


def page_of_a_web_server(request: AWSPreparedRequest, **_: Any) -> Any:
    headers = {"Content-Type": "text/html", "ETag": '"e"', "Last-Modified": "Wed, 18 Nov 2026 10:00:00 GMT"}
    raw = urllib3.HTTPResponse(io.BytesIO(b"<html></html>"), preload_content=False)
    return AWSResponse(request.url, 200, HTTPHeaderDict(headers), raw)


@pytest.mark.parametrize("call", [lambda b: b.put_new("a", b"x", content_type="a/b"), lambda b: b.head("a")])
def test_a_page_with_an_etag_and_a_date_is_no_answer_of_amazon(
    environment: Callable[..., None], call: Callable[[Bucket], object]
) -> None:
    environment(AWS_REGION=REGION)
    client = make_s3_client(max_connections=1)
    client.meta.events.register("before-send.s3", page_of_a_web_server)
    with pytest.raises(StorageUnavailable, match="answered in its place"):
        call(Bucket(client, "archive", ""))


def test_a_put_whose_checksum_is_not_answered_is_read_again(environment: Callable[..., None]) -> None:
    environment(AWS_ENDPOINT_URL_S3="https://s3.example.com")
    client = make_s3_client(max_connections=1)
    client.meta.events.register("before-send.s3", page_of_a_web_server)
    bucket = Bucket(client, "archive", "")
    bucket._capabilities = AMAZON  # which compares no MD5
    with pytest.raises(StoreDamaged, match="different bytes"):
        bucket.put_new("a", b"x", content_type="text/plain")


@pytest.mark.parametrize(
    "call", [lambda files: files.create("a/b", b"x"), lambda files: files.read("a/b"), lambda files: files.list("a/")]
)
def test_a_proxys_success_is_no_part_of_the_ledger_and_no_ledger_without_parts(
    portal: str, call: Callable[[S3Files], object]
) -> None:
    files = S3Files(make_s3_client(max_connections=1, endpoint_url=portal), "archive", "ledger")
    with pytest.raises(LedgerUnavailable, match="answered in its place"):
        call(files)
