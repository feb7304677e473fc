"""The strict S3: who may ask, where the bucket is, what its policy says, and only then the answer."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from xml.etree import ElementTree as ET

from sandbox.strict_s3.addresses import Address, address_of, host_of, is_amazon
from sandbox.strict_s3.bucket_calls import bucket_answer, require_name, wanted_region, xml_answer
from sandbox.strict_s3.certificates import Authority
from sandbox.strict_s3.demands import Demands, require_allowed
from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.http import Listener
from sandbox.strict_s3.identity import Identity
from sandbox.strict_s3.messages import Answer, AnsweredRequest, Request
from sandbox.strict_s3.object_calls import NotModified, object_answer
from sandbox.strict_s3.objects import OWNER, Bucket
from sandbox.strict_s3.payload import Payload, payload_of
from sandbox.strict_s3.signatures import Key, Keyring, require_signature
from sandbox.strict_s3.upload_calls import upload_answer

_SESSION: Final = timedelta(minutes=5)
_REMEMBERED: Final = 50_000


@dataclass(slots=True)
class _Order:
    """An answer that is to be given instead of the right one, some times."""

    code: str
    method: str
    under: str
    subresource: str
    times: int
    after: bool


class StrictS3:
    """An S3 for the length of a `with` block: plain, over TLS, and through its own proxy under Amazon's names.

    Under Amazon's names the bucket must be in the name; under 127.0.0.1 it is in the path, as behind a VPC endpoint.
    Everything is in memory and gone at the end.

    Args:
        folder: Where `ca.pem` is written.
        region: Of an endpoint that is not Amazon's.
        clock: What time it is.
        port: Of plain HTTP and the proxy; 0 takes a free one.
        proxy_log_in: `user:password` that the proxy asks for.
        redirect_global: Answer 307 to a bucket asked for at the global endpoint, as in the first hours of its life.

    Attributes:
        clock: What time it is.
        keys: Whose signatures count.
        identity: Where other credentials come from.
        access_points: `<name>-<account>` -> bucket.
        answered: The last requests, each with how it was answered.
    """

    def __init__(
        self,
        folder: Path,
        *,
        region: str = "us-east-1",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        port: int = 0,
        proxy_log_in: str = "",
        redirect_global: bool = False,
    ) -> None:
        self.region = region
        self.keys = Keyring()
        self.authority = Authority(folder)
        self.identity = Identity(self.keys, self.authority, clock=clock)
        self.access_points: dict[str, str] = {}
        self.answered: deque[AnsweredRequest] = deque(maxlen=_REMEMBERED)
        self.proxy_log_in = proxy_log_in
        self.clock = clock
        self._redirect_global = redirect_global
        self._buckets: dict[str, Bucket] = {}
        self._orders: list[_Order] = []
        self._lock = threading.Lock()
        self._running = ExitStack()
        self._plain = Listener(self, self.authority, port=port, proxy_log_in=proxy_log_in)
        self._tls = Listener(self, self.authority, tls=True)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`: the endpoint, bucket in the path; also the proxy."""
        return self._plain.url

    @property
    def tls_url(self) -> str:
        """`https://127.0.0.1:<port>`: the same endpoint over TLS."""
        return self._tls.url

    @property
    def proxy_url(self) -> str:
        """The proxy's address, with its log-in."""
        scheme, separator, rest = self.url.partition("://")
        return f"{scheme}{separator}{self.proxy_log_in}{'@' if self.proxy_log_in else ''}{rest}"

    def environment(self, *, region: str | None = None) -> dict[str, str]:
        """Variables that lead a client to Amazon's names, which the proxy leads here; `region` as AWS_REGION alone."""
        return {
            **self.credentials(),
            **({} if region is None else {"AWS_REGION": region}),
            "HTTPS_PROXY": self.proxy_url,
            "HTTP_PROXY": self.proxy_url,
            "NO_PROXY": "127.0.0.1,localhost",
            "AWS_CA_BUNDLE": str(self.authority.file),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def credentials(self) -> dict[str, str]:
        """The variables of a key that lasts."""
        return {"AWS_ACCESS_KEY_ID": self.keys.forever.id, "AWS_SECRET_ACCESS_KEY": self.keys.forever.secret}

    def make_bucket(
        self, name: str, *, region: str | None = None, locked: bool = False, demands: Demands | None = None
    ) -> Bucket:
        """A new, empty bucket; one whose name ends in `--x-s3` is a directory bucket."""
        require_name(name)
        made = Bucket(
            name, region or self.region, locked=locked, demands=demands or Demands(), express=name.endswith("--x-s3")
        )
        with self._lock:
            if name in self._buckets:
                raise S3Error("BucketAlreadyOwnedByYou", BucketName=name)
            self._buckets[name] = made
        return made

    def fail(
        self,
        code: str,
        *,
        method: str = "",
        under: str = "",
        subresource: str = "",
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Answer with an error instead, or hang up.

        Args:
            code: Amazon's; `hang up` for a connection that ends without an answer.
            method: Only of this method.
            under: Only where the key holds this.
            subresource: Only with this name in the query, such as `uploadId`.
            times: How often.
            after: Carry the request out first. With a code the answer to a completed upload is 200 with the error in
                its body.
        """
        with self._lock:
            self._orders.append(_Order(code, method, under, subresource, times, after))

    def obey(self) -> None:
        """Forget what was ordered by `fail` and has not been used."""
        with self._lock:
            self._orders.clear()

    def __enter__(self) -> Self:
        for listener in (self._plain, self._tls, self.identity):
            self._running.enter_context(listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def serves(self, host: str) -> bool:
        """Whether the proxy leads this name here."""
        return is_amazon(host) or self.identity.serves(host)

    def refusal(self, request: Request) -> Answer | None:
        """What a client that waits with its body is told at once: a wrong signature or region."""
        if self.identity.serves(request.host):
            return None
        try:
            self._admitted(request)
        except S3Error as error:
            return self._noted(request, error.answer())
        return None

    def answer(self, request: Request) -> Answer | None:
        """The answer; None hangs up."""
        if self.identity.serves(request.host):
            return self.identity.answer(request)
        order = self._order(request)
        if order and not order.after:
            return None if order.code == "hang up" else self._noted(request, S3Error(order.code).answer())
        try:
            answer = self._answered(request)
        except S3Error as error:
            answer = error.answer()
        except NotModified:
            answer = Answer(304)
        except ET.ParseError:
            answer = S3Error("MalformedXML").answer()
        if order:
            return None if order.code == "hang up" else self._noted(request, S3Error(order.code).answer(status=200))
        return self._noted(request, answer)

    def _noted(self, request: Request, answer: Answer) -> Answer:
        names = {"x-amz-request-id": secrets.token_hex(8).upper(), "x-amz-id-2": secrets.token_hex(32)}
        self.answered.append(
            AnsweredRequest(
                request.method, request.host, request.path, request.query, request.headers, request.secure,
                answer.status, answer.code,
            )
        )  # fmt: skip
        return replace(answer, headers={**names, **answer.headers})

    def _order(self, request: Request) -> _Order | None:
        with self._lock:
            for order in self._orders:
                if (
                    order.times > 0
                    and order.method in {"", request.method}
                    and order.under in request.path
                    and (not order.subresource or order.subresource in request.query)
                ):
                    order.times -= 1
                    return order
        return None

    def _admitted(self, request: Request) -> tuple[Address, Bucket | None, Key]:
        """Where a request goes, once its signature holds and it has come to the right place."""
        address = address_of(request, self.region)
        name = self.access_points.get(address.bucket, "") if address.kind == "access point" else address.bucket
        bucket = self._buckets.get(name)
        region = bucket.region if bucket and address.kind == "global" else address.region
        now = self.clock()
        service = "s3express" if address.kind == "express" else "s3"
        key = require_signature(request, self.keys, region=region, service=service, now=now)
        creates = request.method == "PUT" and not address.key and not request.query
        if bucket is None:
            if address.bucket and not creates:
                raise S3Error("NoSuchBucket", BucketName=address.bucket)
            return address, None, key
        here = {"x-amz-bucket-region": bucket.region}
        right = {"Endpoint": host_of(bucket.name, bucket.region), "Bucket": bucket.name}
        if address.kind == "global" and self._redirect_global and bucket.region != "us-east-1":
            location = {"location": f"https://{right['Endpoint']}{request.target}"}
            raise S3Error("TemporaryRedirect", headers=here | location, **right)
        elsewhere = region != bucket.region
        in_path = address.in_path and address.kind in {"regional", "global"} and "." not in bucket.name
        if elsewhere or (in_path and not creates):
            raise S3Error("PermanentRedirect", headers=here, **right)
        if bucket.express != (address.kind == "express"):
            raise S3Error("NoSuchBucket", BucketName=bucket.name)
        if bucket.express and key.bucket != bucket.name and "session" not in request.query:
            raise S3Error("AccessDenied")
        return address, bucket, key

    def _answered(self, request: Request) -> Answer:
        address, bucket, _ = self._admitted(request)
        payload = payload_of(request)
        request = replace(request, body=payload.data)
        if bucket is None:
            return self._without_bucket(request, address)
        if bucket.express and request.method == "GET" and "session" in request.query:
            return self._session(bucket)
        action, call = self._call(request, address, bucket, payload)
        require_allowed(request, bucket.demands, owner=bucket.owner, action=action)
        return call()

    def _call(
        self, request: Request, address: Address, bucket: Bucket, payload: Payload
    ) -> tuple[str, Callable[[], Answer]]:
        if not address.key:
            if request.method == "PUT" and not request.query:
                raise S3Error("BucketAlreadyOwnedByYou", BucketName=bucket.name)
            return bucket_answer(bucket, request)
        if "uploadId" in request.query or "uploads" in request.query:
            return upload_answer(bucket, address.key, request, payload, self.clock())
        return object_answer(bucket, address.key, request, payload, self.clock())

    def _without_bucket(self, request: Request, address: Address) -> Answer:
        if address.bucket:
            locked = request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true"
            self.make_bucket(address.bucket, region=wanted_region(request, address.region), locked=locked)
            return Answer(200, {"location": f"/{address.bucket}"})
        if request.method != "GET":
            raise S3Error("MethodNotAllowed")
        buckets = [("Bucket", [("Name", name)]) for name in sorted(self._buckets)]
        return xml_answer("ListAllMyBucketsResult", [("Owner", [("ID", OWNER)]), ("Buckets", buckets)])

    def _session(self, bucket: Bucket) -> Answer:
        key = self.keys.issue(_SESSION, now=self.clock(), bucket=bucket.name)
        until = key.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if key.expires else ""
        found = [
            ("SessionToken", key.token or ""),
            ("SecretAccessKey", key.secret),
            ("AccessKeyId", key.id),
            ("Expiration", until),
        ]
        return xml_answer("CreateSessionResult", [("Credentials", found)])
