"""What a bucket's owner asks of each request, as bucket policies do: encryption, owner, payer, TLS, rights."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Request

_ENCRYPTION = "x-amz-server-side-encryption"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """A policy, in words.

    Attributes:
        kms_key: Each object must be sent with `aws:kms` and this key.
        owner: Each request must name the bucket's owner as the one it expects.
        payer: Each request must say that the requester pays.
        tls: Nothing over plain HTTP.
        denied: Actions that are refused, such as `s3:DeleteObject`.
    """

    kms_key: str = ""
    owner: bool = False
    payer: bool = False
    tls: bool = False
    denied: frozenset[str] = frozenset()


def require_allowed(request: Request, demands: Demands, *, owner: str, action: str) -> None:
    """Require that the bucket's owner allows a request.

    Raises:
        S3Error: AccessDenied, which names what the policy denies.
    """
    expected = request.headers.get("x-amz-expected-bucket-owner")
    if expected not in {None, owner} or (demands.owner and expected is None):
        raise S3Error("AccessDenied")
    denied = (
        action in demands.denied
        or (demands.payer and request.headers.get("x-amz-request-payer") != "requester")
        or (demands.tls and not request.secure)
        or (
            bool(demands.kms_key)
            and action == "s3:PutObject"
            and "uploadId" not in request.query
            and not _encrypts(request, demands.kms_key)
        )
    )
    if denied:
        raise S3Error(
            "AccessDenied",
            f"User: arn:aws:iam::{owner}:user/archiver is not authorized to perform: {action} "
            "with an explicit deny in a resource-based policy",
        )


def _encrypts(request: Request, key: str) -> bool:
    sent = request.headers.get(f"{_ENCRYPTION}-aws-kms-key-id", "")
    return request.headers.get(_ENCRYPTION) == "aws:kms" and sent.rpartition("/")[2] == key.rpartition("/")[2]
