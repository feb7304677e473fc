"""How often a put is sent before it is given up: what botocore does for all other calls, for those it does not see."""

import random
from collections.abc import Callable
from typing import TypeVar

from pipelines.archive.errors import StorageError, StorageUnavailable

__all__ = ["Tries"]

_T = TypeVar("_T")
_TRIES = 5
_LONGEST_S = 20.0
_CLASHES = 6  # waits of 0.2, 0.4 … 6.4 s: another put of the same key is in flight


class Tries:
    """Calls something again while the store is not well; `sleep` waits so many seconds."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep

    def __call__(self, once: Callable[[], _T]) -> _T:
        """Call `once` until it returns, or raise what it raised last.

        Raises:
            StorageError: at once when another try would not change it.
        """
        failures = clashes = 0
        while True:
            try:
                return once()
            except StorageUnavailable as error:
                if error.code == "ConditionalRequestConflict":
                    # Another create-only put of the same key is in flight: S3 says 409, and 412 once the other one has
                    # landed.
                    if clashes == _CLASHES:
                        raise
                    self._sleep(0.2 * 2**clashes)
                    clashes += 1
                else:
                    failures += 1
                    if failures == _TRIES:
                        raise
                    longest = min(_LONGEST_S, 2.0 ** (failures - 1))
                    self._sleep(random.uniform(0, longest))  # noqa: S311 - spreads tries, protects nothing
            except StorageError:
                raise
