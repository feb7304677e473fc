"""What the page hands out and must get back unchanged: links to audio, and the fields of a search in an address.

A link to audio is signed, is good for 60 seconds, and only for the person it was made for. A search is encrypted,
because addresses end up in the logs of proxies and in histories, and a search may hold a telephone number; it is good
for a day, and only for the person who made it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Final

from cryptography.fernet import Fernet, InvalidToken
from itsdangerous import BadData, SignatureExpired, TimestampSigner, URLSafeTimedSerializer

LINK_SECONDS: Final = 60
SEARCH_SECONDS: Final = 24 * 3600


class LinkExpired(Exception):  # noqa: N818 - its name says what happened
    """A link was made more than 60 seconds ago."""


class LinkInvalid(Exception):  # noqa: N818 - likewise
    """A link was not made here, or for somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The recording that a link is to: `key` and `size` of the object, `sha256` as sealed, the call it is of, and the
    agents and queues by which rights to it are given.
    """

    day: str
    account_id: str
    uii: str
    recording_id: str
    key: str
    size: int
    sha256: str
    agent_id: str
    queue_id: str


class Tokens:
    """Makes and reads both, with keys that are derived from one secret."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._clock = clock
        self._links = URLSafeTimedSerializer(secret, salt="browse.audio", signer=Signer)
        self._searches = Fernet(base64.urlsafe_b64encode(hashlib.sha256(f"browse.search\n{secret}".encode()).digest()))

    def link(self, link: Link, person: str) -> str:
        """Return a link for a person."""
        token = self._links.dumps([person, asdict(link)])
        return token if isinstance(token, str) else token.decode()

    def read_link(self, token: str, person: str) -> Link:
        """Return what a person's link is to.

        Raises:
            LinkExpired: it is too old.
            LinkInvalid: it is not one of ours, or somebody else's.
        """
        try:
            owner, fields = self._links.loads(token, max_age=LINK_SECONDS)
        except SignatureExpired:
            raise LinkExpired from None
        except BadData:
            raise LinkInvalid from None
        if owner != person:
            raise LinkInvalid
        return Link(**fields)

    def search(self, fields: Mapping[str, str], person: str) -> str:
        """Return the fields of a person's search as text that says nothing."""
        document = json.dumps([person, dict(fields)]).encode()
        return self._searches.encrypt_at_time(document, int(self._clock())).decode()

    def read_search(self, token: str, person: str) -> dict[str, str] | None:
        """Return the fields of a search; None for one that is not ours, is older than a day, or is another person's."""
        try:
            document = self._searches.decrypt_at_time(
                token.encode("utf-8", "replace"), ttl=SEARCH_SECONDS, current_time=int(self._clock())
            )
        except (InvalidToken, ValueError):
            return None
        owner, fields = json.loads(document)
        return dict(fields) if owner == person else None


def day_of(text: str) -> date | None:
    """Read a date as forms and addresses hold it; None for anything else."""
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
