"""What the host of a request says: which endpoint it is, its region, and the bucket in its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from sandbox.strict_s3.messages import Request

Kind = Literal["regional", "global", "access point", "vpc", "express", "direct"]

_PARTITION: Final = r"\.amazonaws\.com(?:\.cn)?"
_REGION: Final = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)"
_BUCKET: Final = r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]*)\.)??"
_FORMS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("vpc", re.compile(rf"bucket\.vpce-[a-z0-9-]+\.s3\.{_REGION}\.vpce{_PARTITION}")),
    (
        "access point",
        re.compile(
            rf"(?P<bucket>[a-z0-9-]+-\d{{12}})\.s3-accesspoint(?:-fips)?(?:\.dualstack)?\.{_REGION}{_PARTITION}"
        ),
    ),
    ("express", re.compile(rf"{_BUCKET}s3express(?:-fips)?-(?:[a-z0-9-]+)(?:\.dualstack)?\.{_REGION}{_PARTITION}")),
    ("regional", re.compile(rf"{_BUCKET}s3(?:-fips)?(?:\.dualstack)?[.-]{_REGION}{_PARTITION}")),
    ("global", re.compile(rf"{_BUCKET}s3{_PARTITION}")),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes.

    Attributes:
        kind: The endpoint's kind; `direct` for a name that is not Amazon's.
        region: The endpoint's; the global one's is us-east-1.
        bucket: The bucket, or for an access point `<name>-<account>`; empty for none.
        key: The key, decoded; empty for the bucket itself.
        in_path: Whether the bucket stands in the path.
    """

    kind: Kind
    region: str
    bucket: str
    key: str
    in_path: bool


def is_amazon(host: str) -> bool:
    """Whether the name is one of Amazon's."""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def address_of(request: Request, region: str) -> Address:
    """Read host and path; `region` is that of an endpoint that is not Amazon's."""
    path = unquote(request.path, errors="surrogateescape")[1:]
    for kind, form in _FORMS:
        if match := form.fullmatch(request.host):
            found = match.groupdict()
            at = found.get("region") or "us-east-1"
            if found.get("bucket"):
                return Address(kind, at, found["bucket"], path, in_path=False)
            bucket, _, key = path.partition("/")
            return Address(kind, at, bucket, key, in_path=bool(bucket))
    bucket, _, key = path.partition("/")
    return Address("direct", region, bucket, key, in_path=bool(bucket))


def host_of(bucket: str, region: str) -> str:
    """The name a bucket is to be asked under."""
    suffix = ".amazonaws.com.cn" if region.startswith("cn-") else ".amazonaws.com"
    return f"{bucket}.s3.{region}{suffix}"
