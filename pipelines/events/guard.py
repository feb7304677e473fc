"""Who may send, and how fast: the fixed header, and a bucket of tokens."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256


class HeaderCheck:
    """Compares a request's header with the values that are accepted, in a time that tells nothing about them.

    Args:
        name: the header's name.
        accepted: the values; none lets everybody in.
    """

    def __init__(self, name: str, accepted: Sequence[str]) -> None:
        self._name = name.lower().encode("ascii")
        self._accepted = tuple(sha256(value.encode()).digest() for value in accepted)

    def __repr__(self) -> str:
        return f"HeaderCheck({self._name.decode()!r}, {len(self._accepted)} values)"

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the header is there, once, with an accepted value. `headers`: as ASGI has them, names in lower case.

        Digests of one length are compared, all of them each time, also when the header is missing.
        """
        if not self._accepted:
            return True
        given = [value for name, value in headers if name == self._name]
        digest = sha256(given[0] if given else b"").digest()
        same = [hmac.compare_digest(digest, accepted) for accepted in self._accepted]
        return (len(given) == 1) & any(same)


class TokenBucket:
    """So many a second, and twice as many at once after a quiet time. For one thread."""

    def __init__(self, per_second: int, clock: Callable[[], float]) -> None:
        self._rate = per_second
        self._most = 2.0 * per_second
        self._clock = clock
        self._tokens = self._most
        self._at = clock()

    def take(self) -> int:
        """Take a token: 0, or the whole seconds after which there is one."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self._rate))
