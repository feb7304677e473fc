"""What an S3 server that is not Amazon's does with a put: found out by two small ones, not believed from its name.

`{prefix}probes/checksum` is sent with a checksum that is not its own. A server that checks refuses it and keeps
nothing; one that does not keeps it, and from then on the object is the memory of that. `{prefix}probes/create-only` is
put twice on the condition that nothing lies there: the second must be refused. Later runs find it and ask once.

Where the answers are not plain, the less is believed.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipelines.archive.errors import KeyExists, StorageRefused, StorageUnavailable, StoreDamaged
from pipelines.archive.sender import Answer, Part

__all__ = ["Manners", "find_out"]

_BODY = b"What this server checks is found out with this object; see docs/storage.md.\n"
_OTHER = b"Not what was sent."


@dataclass(frozen=True, slots=True)
class Manners:
    """`conditions`: `If-None-Match: *` is honoured. `checksums`: a body that differs from its SHA-256 is refused."""

    conditions: bool
    checksums: bool


class _Send(Protocol):
    def __call__(self, key: str, body: bytes | Part, headers: dict[str, str]) -> Answer: ...


def find_out(send: _Send, head: Callable[[str], object | None], prefix: str) -> Manners:
    """Ask the server.

    Raises:
        StorageUnavailable: it does not answer; nothing is known then.
    """
    return Manners(
        conditions=_honours_conditions(send, f"{prefix}probes/create-only"),
        checksums=_checks(send, head, f"{prefix}probes/checksum"),
    )


def _honours_conditions(send: _Send, key: str) -> bool:
    try:
        for _ in range(2):
            send(key, _BODY, {**_headers(_BODY), "if-none-match": "*"})
    except KeyExists:
        return True
    except StorageUnavailable:
        raise
    except (StorageRefused, StoreDamaged):  # also 501, for a condition that is not known
        return False
    return False


def _checks(send: _Send, head: Callable[[str], object | None], key: str) -> bool:
    try:
        if head(key) is not None:
            return False
        send(key, _BODY, _headers(_OTHER) | {"x-amz-content-sha256": hashlib.sha256(_BODY).hexdigest()})
    except StoreDamaged:
        return True
    except StorageUnavailable:
        raise
    except StorageRefused:  # no right to write there, or a refusal for another reason: no proof
        return False
    return False


def _headers(body: bytes) -> dict[str, str]:
    digest = hashlib.sha256(body)
    return {
        "content-type": "text/plain",
        "x-amz-content-sha256": digest.hexdigest(),
        "x-amz-checksum-sha256": base64.b64encode(digest.digest()).decode(),
        "x-amz-sdk-checksum-algorithm": "SHA256",
    }
