"""Answers that need a whole recording, for waveforms and checks: a few at once, and one per person.

A waiting request holds no thread: threads are for pages, audio and health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from starlette.responses import Response

from pipelines.browser.guard import AtOnce

_AT_ONCE: Final = 2
_MOST_OF_A_PERSON: Final = 4  # a call's page may show several waveforms


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer for one person that needs a whole recording."""

    person: str
    read: Callable[[], Response]


class Readings:
    """The queue that makes such answers in turn. Belongs to one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="reading")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked = AtOnce(
            _MOST_OF_A_PERSON,
            "Other waveforms or checks of yours are still running: try again in a minute.",
            retry_after_s=60,
        )

    async def answer(self, reading: Reading) -> Response:
        """Wait for the reading's turn and return its answer; raise HTTPException (429) if the person has too many."""
        with self._asked.one(reading.person):
            async with self._turns.setdefault(reading.person, asyncio.Lock()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, reading.read)
