"""Tokens that the page hands out and must get back unchanged: links to audio, and the fields of a search.

Tokens are encrypted, because addresses end up in proxy logs and browser histories, and a search may hold a telephone
number. A link to audio is valid for 60 seconds, a search for a day, and each only for the person who was given it.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final, Literal

from cryptography.fernet import Fernet, InvalidToken

Kind = Literal["audio", "search"]
_SECONDS: Final[Mapping[Kind, int]] = {"audio": 60, "search": 24 * 3600}


class Tokens:
    """A maker and reader of tokens, with a key for each kind, derived from one secret."""

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        digests = {kind: hashlib.sha256(f"browse.{kind}\n{secret}".encode()).digest() for kind in _SECONDS}
        self._keys = {kind: Fernet(base64.urlsafe_b64encode(digest)) for kind, digest in digests.items()}

    def make(self, kind: Kind, fields: Mapping[str, Any], person: str) -> str:
        """Return fields for a person as an encrypted token; dates in them become text."""
        document = json.dumps([person, dict(fields)], default=str).encode()
        return self._keys[kind].encrypt_at_time(document, int(self._clock())).decode()

    def read(self, kind: Kind, token: str, person: str) -> dict[str, Any] | None:
        """Return the fields of a token; None if it was not made here, is too old, or is another person's."""
        try:
            document = self._keys[kind].decrypt_at_time(
                token.encode("utf-8", "replace"), ttl=_SECONDS[kind], current_time=int(self._clock())
            )
        except (InvalidToken, ValueError):
            return None
        owner, fields = json.loads(document)
        return dict(fields) if owner == person else None


def parse_date(text: str) -> date | None:
    """Return the date in the text of a form or address; None if the text is not a date."""
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
