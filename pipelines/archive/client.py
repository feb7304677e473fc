"""The one S3 client: boto3's, with the parameters that the settings add to every request.

boto3 reads region, credentials, endpoint, addressing, proxies and certificates from its own variables and files.
"""

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from botocore.model import OperationModel

from pipelines.archive.errors import StorageRefused
from pipelines.aws import NotAnsweredByS3Error, S3Client, boto3_session, reason

AddressingStyle = Literal["auto", "path", "virtual"]

_log: Final = logging.getLogger(__name__)
_ENCRYPTED: Final = frozenset({"PutObject", "CreateMultipartUpload"})
# Headers that S3 sends whenever it does these; one of several is enough, since stores differ.
_ANSWERS: Final[Mapping[str, frozenset[str]]] = {
    "PutObject": frozenset({"ETag"}),
    "UploadPart": frozenset({"ETag"}),
    "CreateMultipartUpload": frozenset({"UploadId"}),
    "CompleteMultipartUpload": frozenset({"ETag", "Key", "Location"}),
    "GetObject": frozenset({"ETag", "LastModified"}),
    "HeadObject": frozenset({"ETag", "LastModified"}),
    "ListObjectsV2": frozenset({"IsTruncated", "KeyCount", "Name"}),
}


@dataclass(frozen=True, slots=True)
class S3Options:
    """The parameters that are added to every request that accepts them; None leaves one out."""

    kms_key_id: str | None = None
    expected_bucket_owner: str | None = None
    request_payer: Literal["requester"] | None = None
    addressing_style: AddressingStyle | None = None


def make_s3_client(
    *, max_connections: int, endpoint_url: str | None = None, options: S3Options | None = None
) -> S3Client:
    """Build one client for the whole process, shared by its threads (building one costs 0.25 s of CPU).

    `max_connections`: at least the number of threads that use the client. `endpoint_url`: replaces the one that boto3
    finds. Raises StorageRefused if a variable that boto3 reads is wrong.
    """
    options = options or S3Options()
    addressing: dict[str, Any] = {"addressing_style": options.addressing_style} if options.addressing_style else {}
    config = Config(
        max_pool_connections=max_connections,
        tcp_keepalive=True,
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 5},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3_session()
        # TLS protects the body, and the request carries its SHA-256. Over plain HTTP only the signature protects it.
        for signing in ({"payload_signing_enabled": False}, {}):
            merged = config.merge(Config(s3=cast("Any", addressing | signing or None)))
            client = session.client("s3", endpoint_url=endpoint_url, config=merged)
            if not client.meta.endpoint_url.startswith("http:"):
                break
    except (BotoCoreError, ValueError) as error:
        raise StorageRefused(
            f"S3 cannot be used: {reason(error) or f'boto3 cannot make a client ({type(error).__name__})'}"
        ) from error
    events = client.meta.events
    events.register("before-parameter-build.s3", _add_options(options))
    events.register("before-endpoint-resolution.s3", _warn_of_other_region(client.meta.region_name))
    events.register("after-call.s3", _require_answer(amazon=is_amazon(client)))
    events.register_last("after-call.s3.ListObjectsV2", _require_token)
    for operation in ("PutObject", "UploadPart"):
        events.register_first(f"request-created.s3.{operation}", _send_at_once)
    return client


def is_amazon(client: S3Client) -> bool:
    """Return whether the client talks to Amazon itself, in any partition."""
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    outputs = [partition["outputs"] for partition in create_loader().load_data("partitions")["partitions"]]
    plain = [f".{output['dnsSuffix']}" for output in outputs]
    dual_stack = [f".{output['dualStackDnsSuffix']}" for output in outputs]
    return host.endswith((*plain, *dual_stack))


def _require_answer(*, amazon: bool) -> Callable[..., None]:
    """Return a handler that raises an error if a proxy answered.

    botocore would take a proxy's page for an empty list, a put that succeeded or a missing object. A page may have an
    `ETag`, but not Amazon's `x-amz-request-id`. Only Amazon's answer to a HEAD that finds nothing can be recognized.
    """

    def require(parsed: dict[str, Any], model: OperationModel, http_response: Any, **_: object) -> None:  # noqa: ANN401
        wanted = _ANSWERS.get(model.name)
        headers = parsed["ResponseMetadata"]["HTTPHeaders"]
        status = http_response.status_code
        if not wanted or (status >= 300 and status != 404):  # a web server's 404 would be an object that is not there
            return
        if amazon:
            is_of_s3 = "x-amz-request-id" in headers
        elif any(name.startswith("x-amz-") for name in headers):
            is_of_s3 = True
        elif status == 404:
            is_of_s3 = model.name == "HeadObject" or parsed.get("Error", {}).get("Code") not in {None, "", "404"}
        else:
            is_of_s3 = not wanted.isdisjoint(parsed)
        if not is_of_s3:
            raise NotAnsweredByS3Error(operation=model.name, status=status)

    return require


def _require_token(parsed: dict[str, Any], **_: object) -> None:
    """Raise an error if a page is truncated but names no next one: botocore would take it for the last."""
    if parsed.get("IsTruncated") and not parsed.get("NextContinuationToken"):
        raise StorageRefused("The store's lists do not continue after the first page; use another store")


def _send_at_once(request: AWSRequest, **_: object) -> None:
    """Send a body that is in memory as plain bytes, before the request is signed.

    botocore wraps such a body in a file, waits for `100 Continue`, which costs a round trip for every put, and sends 16
    KiB at a time. The body is replaced this late because botocore writes its input into its debug log.
    """
    if isinstance(request.data, io.BytesIO):
        request.data = request.data.getvalue()
        del request.headers["Expect"]


def _add_options(options: S3Options) -> Callable[..., None]:
    """Return a handler that adds the options to the parameters of each request that accepts them."""
    everywhere = {"ExpectedBucketOwner": options.expected_bucket_owner, "RequestPayer": options.request_payer}

    def add(params: dict[str, Any], model: OperationModel, **_: object) -> None:
        parameters = model.input_shape.members if model.input_shape else {}
        params |= {name: value for name, value in everywhere.items() if value and name in parameters}
        if options.kms_key_id and model.name in _ENCRYPTED:
            params |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": options.kms_key_id}

    return add


def _warn_of_other_region(configured: str) -> Callable[..., None]:
    """Return a handler that warns once for each bucket in another region, to which boto3 then sends its requests."""
    warned: set[str] = set()

    def warn(builtins: Mapping[str, Any], params: Mapping[str, Any], **_: object) -> None:
        region, bucket = builtins.get("AWS::Region"), params.get("Bucket")
        if region in {configured, "aws-global", None} or bucket is None or bucket in warned:
            return
        warned.add(bucket)
        _log.warning(
            "The bucket %s is in the region %s and not in %s; requests go there. Set AWS_REGION=%s",
            bucket, region, configured, region,
        )  # fmt: skip

    return warn
