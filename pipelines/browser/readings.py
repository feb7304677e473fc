"""Readings of whole recordings, for waveforms and checks: few at once, one for each person; nothing waits for them.

Who waits holds no thread: those are for pages, audio and health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

_AT_ONCE: Final = 2
_MOST_OF_A_PERSON: Final = 4  # a call's page may show several waveforms


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer that takes reading a whole recording, for a person."""

    person: str
    read: Callable[[], Response]


class Readings:
    """Makes such answers, in turn. For one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="reading")
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def answer(self, reading: Reading) -> Response:
        """Return the answer when it is its turn.

        Raises:
            HTTPException: 503, the person has too many readings already.
        """
        lock, count = self._turns.get(reading.person, (asyncio.Lock(), 0))
        if count >= _MOST_OF_A_PERSON:
            raise HTTPException(
                503,
                "Other waveforms or checks of yours are still running: try again in a minute.",
                {"Retry-After": "60"},
            )
        self._turns[reading.person] = lock, count + 1
        try:
            async with lock:
                return await asyncio.get_running_loop().run_in_executor(self._threads, reading.read)
        finally:
            _, count = self._turns.pop(reading.person)
            if count > 1:
                self._turns[reading.person] = lock, count - 1
