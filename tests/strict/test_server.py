"""The strict S3, judged by plain boto3: what it does correctly works, and what is wrong is refused as Amazon does."""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, ProxyConnectionError, SSLError

from sandbox.strict_s3 import Demands, StrictS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


MIB = 1 << 20


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    """Status and code of the error that a call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response: Any = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_what_is_put_is_given_back_with_all_that_was_said_of_it(client: Callable[..., S3Client], bucket: str) -> None:
    s3 = client()
    sent = {"ContentType": "audio/wav", "Metadata": {"sha256": "ab", "uii": "2020"}, "StorageClass": "STANDARD_IA"}
    put = s3.put_object(Bucket=bucket, Key="a b/ü+&~=.wav", Body=b"hello", ChecksumSHA256=sha256(b"hello"), **sent)
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert put["ChecksumSHA256"] == sha256(b"hello")
    got = s3.get_object(Bucket=bucket, Key="a b/ü+&~=.wav", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello"
    assert {name: got[name] for name in sent} == sent
    head = s3.head_object(Bucket=bucket, Key="a b/ü+&~=.wav")
    assert (head["ContentLength"], head["ETag"]) == (5, put["ETag"])
    assert "ChecksumSHA256" not in head, "only told when asked for"


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_a_body_of_unknown_length_arrives_with_its_trailer(
    client: Callable[..., S3Client], bucket: str, algorithm: str
) -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.inner = io.BytesIO(b"x" * 300_000)

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(size)

        def readable(self) -> bool:
            return True

    s3 = client()
    s3.upload_fileobj(Unseekable(), bucket, "k", ExtraArgs={"ChecksumAlgorithm": algorithm})
    s3.put_object(Bucket=bucket, Key="l", Body=io.BytesIO(b"y" * 300_000), ChecksumAlgorithm=algorithm)
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["Body"].read() == b"x" * 300_000
    assert s3.get_object(Bucket=bucket, Key="l", ChecksumMode="ENABLED")["Body"].read() == b"y" * 300_000


def test_a_range_is_the_bytes_asked_for_and_one_behind_the_end_is_416(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    for span, body in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=8-99", b"89")):
        got = s3.get_object(Bucket=bucket, Key="k", Range=span)
        assert (got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]) == (body, 206)
    assert refused(s3.get_object, Bucket=bucket, Key="k", Range="bytes=10-") == (416, "InvalidRange")


def test_a_listing_is_in_the_order_of_bytes_page_by_page_with_folders(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client()
    keys = ["a", "a/b", "a/c/d", "é", "z\u00adé", "B", "a\x01", "a&<>", "\U0001f600", "\uffee"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3})
    assert [item["Key"] for page in pages for item in page["Contents"]] == sorted(keys, key=str.encode)
    folders = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Delimiter="/", Prefix="a", PaginationConfig={"PageSize": 1}
    )
    found = [
        [item["Key"] for item in page.get("Contents", [])]
        + [folder["Prefix"] for folder in page.get("CommonPrefixes", [])]
        for page in folders
    ]
    assert found == [["a"], ["a\x01"], ["a&<>"], ["a/"]]
    after = s3.list_objects_v2(Bucket=bucket, StartAfter="a/b")
    assert after["Contents"][0]["Key"] == "a/c/d"


def test_a_create_only_put_of_what_is_there_is_412_and_changes_nothing(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
    again = refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert again == (412, "PreconditionFailed")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfNoneMatch="*")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"4", IfNoneMatch='"x"')[1] == "NotImplemented"


def test_a_digest_that_does_not_fit_is_refused_before_anything_is_stored(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client(s3={"payload_signing_enabled": False}, request_checksum_calculation="when_required")
    wrong = {
        "ChecksumSHA256": sha256(b"other"),
        "ChecksumCRC32": "AAAAAA==",
        "ContentMD5": base64.b64encode(b"0" * 16).decode(),
    }
    for name, value in wrong.items():
        assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", **{name: value}) == (400, "BadDigest")
    short = refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256="AAAA")
    assert short == (400, "InvalidRequest")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="no") == (400, "InvalidDigest")
    assert refused(s3.head_object, Bucket=bucket, Key="k")[0] == 404


def test_an_upload_in_parts_has_a_composite_checksum_and_its_condition_stands_at_the_end(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client()
    parts = [b"a" * 5 * MIB, b"b" * MIB]

    def upload(**condition: str) -> Any:
        begun = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")
        listed = []
        for number, body in enumerate(parts, start=1):
            where = {"Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"], "PartNumber": number}
            part = s3.upload_part(**where, Body=body, ChecksumSHA256=sha256(body))
            listed.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
        return s3.complete_multipart_upload(
            Bucket=bucket, Key="k", UploadId=begun["UploadId"], MultipartUpload={"Parts": listed}, **condition
        )

    done = upload(IfNoneMatch="*")
    digests = b"".join(hashlib.sha256(body).digest() for body in parts)
    assert done["ChecksumSHA256"] == f"{sha256(digests)}-2"
    assert done["ETag"].endswith('-2"')
    with pytest.raises(ClientError, match="PreconditionFailed"):
        upload(IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["Body"].read() == b"".join(parts)
    (left,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=left["UploadId"])
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_parts_that_are_too_small_out_of_order_altered_or_without_their_checksum_are_refused(
    client: Callable[..., S3Client], bucket: str
) -> None:
    s3 = client()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    listed = []
    for number in (1, 2):
        part = s3.upload_part(**where, PartNumber=number, Body=b"x", ChecksumSHA256=sha256(b"x"))
        listed.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})

    def complete(parts: Any) -> tuple[int, str]:
        return refused(s3.complete_multipart_upload, **where, MultipartUpload={"Parts": parts})

    assert complete(listed) == (400, "EntityTooSmall")
    assert complete(listed[::-1]) == (400, "InvalidPartOrder")
    assert complete([{**listed[0], "ETag": '"0"'}]) == (400, "InvalidPart")
    assert complete([{**listed[0], "ChecksumSHA256": sha256(b"y")}]) == (400, "InvalidPart")
    assert complete([{"PartNumber": 1, "ETag": listed[0]["ETag"]}]) == (400, "InvalidRequest")
    other = refused(s3.upload_part, **where, PartNumber=3, Body=b"x", ChecksumAlgorithm="CRC32")
    assert other == (400, "InvalidRequest")
    unknown = refused(s3.upload_part, **{**where, "UploadId": "no"}, PartNumber=3, Body=b"x")
    assert unknown == (404, "NoSuchUpload")


def test_versions_are_kept_and_a_locked_one_is_not_deleted(client: Callable[..., S3Client], strict: StrictS3) -> None:
    s3, name = client(), f"locked-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(
        Bucket=name, ObjectLockEnabledForBucket=True, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 3}}
    s3.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"] == rule
    first = s3.put_object(Bucket=name, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=name, Key="k", Body=b"2")
    assert s3.get_object(Bucket=name, Key="k", VersionId=first)["Body"].read() == b"1"
    assert s3.head_object(Bucket=name, Key="k")["ObjectLockMode"] == "COMPLIANCE"
    assert refused(s3.delete_object, Bucket=name, Key="k", VersionId=first) == (403, "AccessDenied")
    assert s3.delete_object(Bucket=name, Key="k")["DeleteMarker"] is True
    assert refused(s3.get_object, Bucket=name, Key="k") == (404, "NoSuchKey")
    listed = s3.list_object_versions(Bucket=name)
    assert (len(listed["Versions"]), len(listed["DeleteMarkers"])) == (2, 1)
    bare = client(request_checksum_calculation="when_required")
    assert refused(bare.put_object, Bucket=name, Key="l", Body=b"1") == (400, "InvalidRequest")
    bare.put_object(Bucket=name, Key="l", Body=b"1", ContentMD5=base64.b64encode(hashlib.md5(b"1").digest()).decode())


def test_a_policy_refuses_what_does_not_encrypt_name_the_owner_or_pay(
    client: Callable[..., S3Client], strict: StrictS3
) -> None:
    demands = Demands(kms_key="1234abcd", owner=True, payer=True, denied=frozenset({"s3:DeleteObject"}))
    name = strict.make_bucket(f"guarded-{uuid.uuid4().hex[:12]}", region="eu-central-1", demands=demands).name
    s3 = client()
    right = {"ExpectedBucketOwner": "123456789012", "RequestPayer": "requester"}
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "1234abcd"}
    put = s3.put_object(Bucket=name, Key="k", Body=b"x", **right, **kms)
    assert put["ETag"] != f'"{hashlib.md5(b"x").hexdigest()}"', "no MD5 under KMS"
    assert put["SSEKMSKeyId"].endswith("/1234abcd")
    for wrong in (right, {**kms, "ExpectedBucketOwner": "123456789012"}, {**kms, "RequestPayer": "requester"}):
        assert refused(s3.put_object, Bucket=name, Key="l", Body=b"x", **wrong) == (403, "AccessDenied")
    other = {**right, "ExpectedBucketOwner": "210987654321"}
    assert refused(s3.list_objects_v2, Bucket=name, **other) == (403, "AccessDenied")
    assert s3.list_objects_v2(Bucket=name, **right)["KeyCount"] == 1
    assert refused(s3.delete_object, Bucket=name, Key="k", **right) == (403, "AccessDenied")


def test_a_bucket_of_another_region_is_named_as_amazon_names_it_and_boto3_follows(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    s3 = client("us-east-1")
    strict.answered.clear()
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert [(request.host, request.status, request.code) for request in strict.answered] == [
        (f"{bucket}.s3.amazonaws.com", 400, "AuthorizationHeaderMalformed"),
        (f"{bucket}.s3.eu-central-1.amazonaws.com", 200, ""),
    ]
    strict.answered.clear()
    assert client("eu-west-1").head_bucket(Bucket=bucket)["BucketRegion"] == "eu-central-1"
    assert [(request.status, request.code) for request in strict.answered] == [(301, "PermanentRedirect"), (200, "")]
    unknown = refused(s3.list_objects_v2, Bucket="nobody-has-this-one")
    assert unknown == (404, "NoSuchBucket")


def test_a_young_bucket_asked_for_at_the_global_endpoint_is_307(tmp_path: Path) -> None:
    with StrictS3(tmp_path, redirect_global=True) as strict:
        strict.make_bucket("young", region="eu-central-1")
        s3 = boto3.client(
            "s3",
            region_name="us-east-1",
            aws_access_key_id=strict.keys.forever.id,
            aws_secret_access_key=strict.keys.forever.secret,
            verify=str(strict.authority.file),
            config=Config(proxies={"https": strict.proxy_url}),
        )
        s3.put_object(Bucket="young", Key="k", Body=b"x")
        strict.answered.clear()
        s3.put_object(Bucket="young", Key="l", Body=b"x")
        assert all(request.host == "young.s3.eu-central-1.amazonaws.com" for request in strict.answered), (
            "boto3 remembers"
        )


def test_a_bucket_in_the_path_is_sent_to_its_name_unless_the_endpoint_is_not_amazons(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    s3 = client(s3={"addressing_style": "path"})
    assert refused(s3.list_objects_v2, Bucket=bucket) == (301, "PermanentRedirect")
    direct = client(endpoint_url=strict.tls_url)
    direct.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert strict.answered[-1].path == f"/{bucket}/k"
    dotted = strict.make_bucket(f"my.{uuid.uuid4().hex[:12]}", region="eu-central-1").name
    client().put_object(Bucket=dotted, Key="k", Body=b"x")


@pytest.mark.parametrize(
    ("region", "config", "host"),
    [
        ("eu-central-1", {"use_fips_endpoint": True}, "s3-fips.eu-central-1.amazonaws.com"),
        ("eu-central-1", {"use_dualstack_endpoint": True}, "s3.dualstack.eu-central-1.amazonaws.com"),
        ("us-east-1", {}, "s3.amazonaws.com"),
        ("us-east-1", {"use_fips_endpoint": True}, "s3-fips.us-east-1.amazonaws.com"),
        ("us-gov-west-1", {}, "s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", {}, "s3.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", {"use_dualstack_endpoint": True}, "s3.dualstack.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_each_name_of_an_endpoint_leads_to_the_bucket(
    client: Callable[..., S3Client], strict: StrictS3, region: str, config: dict[str, bool], host: str
) -> None:
    name = strict.make_bucket(f"named-{uuid.uuid4().hex[:12]}", region=region).name
    s3 = client(region, **config)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    assert strict.answered[-1].host == f"{name}.{host}"
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 1


def test_an_access_point_a_vpc_endpoint_and_a_directory_bucket_answer(
    client: Callable[..., S3Client], strict: StrictS3
) -> None:
    suffix = uuid.uuid4().hex[:12]
    name = strict.make_bucket(f"behind-{suffix}", region="eu-central-1").name
    strict.access_points["ap-123456789012"] = name
    point = "arn:aws:s3:eu-central-1:123456789012:accesspoint/ap"
    client().put_object(Bucket=point, Key="k", Body=b"x")
    assert strict.answered[-1].host == "ap-123456789012.s3-accesspoint.eu-central-1.amazonaws.com"
    vpc = boto3.client(
        "s3",
        region_name="eu-central-1",
        endpoint_url="https://bucket.vpce-1a2b-5e6f.s3.eu-central-1.vpce.amazonaws.com",
        aws_access_key_id=strict.keys.forever.id,
        aws_secret_access_key=strict.keys.forever.secret,
        verify=str(strict.authority.file),
        config=Config(proxies={"https": strict.proxy_url}),
    )
    assert vpc.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
    directory = strict.make_bucket(f"fast-{suffix}--euc1-az1--x-s3", region="eu-central-1").name
    s3 = client()
    s3.put_object(Bucket=directory, Key="a/k", Body=b"x", IfNoneMatch="*")
    assert strict.answered[-1].host == f"{directory}.s3express-euc1-az1.eu-central-1.amazonaws.com"
    assert s3.list_objects_v2(Bucket=directory, Prefix="a/")["KeyCount"] == 1
    assert refused(s3.list_objects_v2, Bucket=directory, Prefix="a") == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("code", "status"),
    [("SlowDown", 503), ("InternalError", 500), ("RequestTimeTooSkewed", 403), ("ExpiredToken", 400)],
)
def test_an_error_that_is_ordered_is_given_as_often_as_it_was_ordered(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3, code: str, status: int
) -> None:
    strict.fail(code, method="PUT", under="k", times=2)
    s3 = client()
    assert [refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x") for _ in range(2)] == [(status, code)] * 2
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_completed_upload_can_be_told_as_a_failure_within_a_200(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    strict.fail("InternalError", method="POST", subresource="uploadId", after=True)
    s3 = client()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    part = s3.upload_part(**where, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]}
    assert refused(s3.complete_multipart_upload, **where, MultipartUpload=parts)[1] == "InternalError"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x", "it was carried out all the same"
    assert refused(s3.complete_multipart_upload, **where, MultipartUpload=parts) == (404, "NoSuchUpload")


def test_names_and_sizes_have_amazons_limits(client: Callable[..., S3Client], bucket: str) -> None:
    s3 = client()
    s3.put_object(Bucket=bucket, Key="ü" * 512, Body=b"x")
    assert refused(s3.put_object, Bucket=bucket, Key="ü" * 512 + "x", Body=b"x") == (400, "KeyTooLongError")
    large = {"a": "x" * 2048}
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", Metadata=large) == (400, "MetadataTooLarge")
    wrong = refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", StorageClass="COLD")
    assert wrong == (400, "InvalidStorageClass")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    assert refused(s3.get_object, Bucket=bucket, Key="k") == (403, "InvalidObjectState")


def test_who_has_no_key_an_old_one_or_one_of_somebody_else_is_refused(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    now = datetime.now(UTC)
    good = strict.keys.issue(timedelta(minutes=1), now=now)
    client(key=good).put_object(Bucket=bucket, Key="k", Body=b"x")
    old = strict.keys.issue(timedelta(seconds=-1), now=now)
    wrong_secret = type(good)(good.id, "no", good.token)
    wrong_token = type(good)(good.id, good.secret, "no")
    unknown = type(good)("AKIANOBODY0000000000", "no")
    expected = {old: "ExpiredToken", wrong_secret: "SignatureDoesNotMatch", wrong_token: "InvalidToken"}
    for key, code in (expected | {unknown: "InvalidAccessKeyId"}).items():
        assert refused(client(key=key).put_object, Bucket=bucket, Key="k", Body=b"x")[1] == code


def test_a_client_whose_clock_is_wrong_is_told_the_time(tmp_path: Path) -> None:
    late = datetime.now(UTC) + timedelta(minutes=16)
    with StrictS3(tmp_path, clock=lambda: late) as strict:
        strict.make_bucket("archive")
        s3 = boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=strict.url,
            aws_access_key_id=strict.keys.forever.id,
            aws_secret_access_key=strict.keys.forever.secret,
        )
        assert refused(s3.list_objects_v2, Bucket="archive") == (403, "RequestTimeTooSkewed")


def test_the_proxy_asks_for_its_log_in_and_leads_nowhere_else(tmp_path: Path) -> None:
    with StrictS3(tmp_path, proxy_log_in="someone:secret") as strict:
        strict.make_bucket("archive")

        def make(proxy: str) -> Any:
            return boto3.client(
                "s3",
                region_name="us-east-1",
                aws_access_key_id=strict.keys.forever.id,
                aws_secret_access_key=strict.keys.forever.secret,
                verify=str(strict.authority.file),
                config=Config(proxies={"https": proxy, "http": proxy}, retries={"total_max_attempts": 1}),
            )

        assert make(strict.proxy_url).list_objects_v2(Bucket="archive")["KeyCount"] == 0
        with pytest.raises(ProxyConnectionError):
            make(strict.url).list_objects_v2(Bucket="archive")
        pool = urllib3.ProxyManager(strict.url, proxy_headers=urllib3.make_headers(proxy_basic_auth="someone:secret"))
        with pytest.raises(urllib3.exceptions.MaxRetryError, match="502"):
            pool.request("GET", "https://example.com/", retries=0)
        assert pool.request("GET", "http://example.com/", retries=0).status == 502


def test_a_certificate_that_nobody_trusts_is_refused_by_boto3(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    s3 = boto3.client(
        "s3",
        region_name="eu-central-1",
        aws_access_key_id=strict.keys.forever.id,
        aws_secret_access_key=strict.keys.forever.secret,
        config=Config(proxies={"https": strict.proxy_url}, retries={"total_max_attempts": 1}),
    )
    with pytest.raises(SSLError, match="certificate verify failed"):
        s3.list_objects_v2(Bucket=bucket)
    assert ssl.create_default_context(cafile=str(strict.authority.file)).get_ca_certs()


def test_a_large_body_is_refused_before_it_is_sent(
    client: Callable[..., S3Client], bucket: str, strict: StrictS3
) -> None:
    read = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            read.append(size)
            return super().read(size)

    s3 = client("us-east-1", request_checksum_calculation="when_required", s3={"payload_signing_enabled": False})
    body = Counted(b"x" * MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert len(read) * 16384 < 2 * MIB + 65536, "the body went out once, to the right region"
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == MIB
