"""The access log: who searched, viewed, played or downloaded, when, from where and why. Append-only, in S3.

Each action is one create-only object, `access/date=<UTC day>/<ULID>-<16 hex of the call>.json`. The part after the ULID
is a hash of account and call id, so that a call's entries are found by name; it is absent if the action concerns no
single call. An action happens only after its entry is stored. Entries hold personal data.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Final, Literal, get_args

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import access_prefix
from pipelines.archive.proof.manifest import canonical_json
from pipelines.calendar import dates_between

FORMAT: Final = "ringcx-archive/access/1"
Action = Literal[
    "sign_in", "sign_in_failed", "search", "view", "waveform", "play", "check", "download", "export", "refused"
]
_NAME: Final = re.compile(r"([0-9A-HJKMNP-TV-Z]{26})(?:-([0-9a-f]{16}))?\.json", re.ASCII)
_AT_ONCE: Final = 8
_TEXTS: Final = ("user", "address", "account_id", "uii", "recording_id", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One action of one person.

    Attributes:
        at: aware.
        user: the name signed in with; for a failed attempt, the name given; for a command, the operating system's user.
        address: where the request came from; for a command, the name of its host.
        from_s, to_s: for `play`, the seconds of audio that were sent.
        details: any other facts by name, such as the fields of a search.
    """

    at: datetime
    user: str
    address: str
    action: Action
    account_id: str = ""
    uii: str = ""
    recording_id: str = ""
    from_s: float | None = None
    to_s: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    @classmethod
    def of_command(cls, at: datetime, action: Action, details: Mapping[str, str], why: str = "") -> Access:
        """Return the entry for an action on the command line."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # in a container a user may have no name
            user = f"uid {os.getuid()}"
        return cls(at=at, user=user, address=socket.gethostname(), action=action, details=details, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedAccess:
    """An entry that is not what was written, or was removed while it was read; `at` is according to its key."""

    at: datetime
    key: str


class AccessLog:
    """The access log of one bucket. Safe to share between threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def record(self, access: Access) -> str:
        """Store an entry and return its key; after a StorageError the action must not happen."""
        document = {name: value for name, value in asdict(access).items() if value or value == 0}
        document |= {"format": FORMAT, "at": access.at.astimezone(UTC).isoformat(timespec="milliseconds")}
        call = f"-{_call_hash(access.account_id, access.uii)}" if access.uii else ""
        day = access.at.astimezone(UTC).date()
        key = f"{access_prefix(self._bucket.prefix, day)}{ULID.from_datetime(access.at)}{call}.json"
        self._bucket.put_new(key, canonical_json(document), content_type="application/json")
        return key

    def record_all(self, accesses: Iterable[Access]) -> None:
        """Store entries in parallel; raise the error of `record` if at least one is not stored."""
        with ThreadPoolExecutor(_AT_ONCE) as writers:
            list(writers.map(self.record, accesses))

    def read(self, first: date, last: date, *, call: tuple[str, str] | None = None) -> Iterator[Access | DamagedAccess]:
        """Yield the entries of UTC days, both included, ordered by time; yield a damaged one as such.

        `call`, an account and a call id, selects the entries about this call; no other is read.
        """
        suffix = None if call is None else _call_hash(*call)
        with ThreadPoolExecutor(_AT_ONCE) as readers:
            for names in readers.map(lambda day: self._names(day, suffix), dates_between(first, last)):
                yield from readers.map(self._read, names)

    def _names(self, day: date, suffix: str | None) -> list[str]:
        names = []
        for key, _ in self._bucket.list_keys(access_prefix(self._bucket.prefix, day)):
            match = _NAME.fullmatch(key.rpartition("/")[2])
            if match and suffix in {None, match[2]}:
                names.append(key)
        return names

    def _read(self, key: str) -> Access | DamagedAccess:
        try:
            return _parse(self._bucket.get_bytes(key))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, KeyMissing):
            return DamagedAccess(at=_written_at(key), key=key)


def _parse(body: bytes) -> Access:
    document = json.loads(body)
    if document.pop("format") != FORMAT or document["action"] not in get_args(Action):
        raise ValueError("not an entry of the access log")
    entry = Access(**document | {"at": datetime.fromisoformat(document["at"])})
    texts = [getattr(entry, name) for name in _TEXTS]
    texts += [*entry.details, *entry.details.values()]
    span = [entry.from_s, entry.to_s]
    is_span = span == [None, None] or all(isinstance(s, int | float) and math.isfinite(s) for s in span)
    if entry.at.tzinfo is None or not is_span or not all(isinstance(text, str) for text in texts):
        raise ValueError("a field of the entry has a different type from the one written")
    return entry


def _written_at(key: str) -> datetime:
    folder, _, name = key.rpartition("/")
    try:
        return ULID.from_str(name[:26]).datetime
    except (ValueError, OverflowError, OSError):  # a name that encodes no valid time
        return datetime.fromisoformat(folder[-10:]).replace(tzinfo=UTC)


def _call_hash(account_id: str, uii: str) -> str:
    return hashlib.sha256(f"{account_id}\n{uii}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
