"""Group commit: many requests wait for one write.

Lines that arrive while a batch is being written form the next batch, so that all requests of a batch share the cost of
one sync or one put. No request is answered "stored" before its write has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from pipelines.events.files import Events, Line

_T = TypeVar("_T")

GATHER_SECONDS = 0.02
FULL_BATCH = 256
# Beyond this the storage is slower than the senders: they are asked to come back, and memory stays bounded.
MOST_WAITING_BYTES = 32 << 20


class Overloaded(Exception):  # noqa: N818 - a verdict
    """So much waits to be stored that no more is taken."""


class GroupCommit:
    """Makes lines durable in batches, in a thread of its own. Belongs to one event loop."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._waiting: list[tuple[Line, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self.waiting_bytes = 0

    async def store(self, line: Line) -> None:
        """Return once the line is durable.

        Raises EventsUnavailable where it is not stored or that is unknown, Overloaded where it was not taken.
        """
        if self.waiting_bytes > MOST_WAITING_BYTES:
            raise Overloaded
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((line, stored))
        self.waiting_bytes += len(line[1])
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await stored

    async def in_turn(self, act: Callable[[], _T]) -> _T:
        """Call a method of the events' storage between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    async def close(self) -> None:
        """Wait until everything taken is durable, then close the storage."""
        if self._writer is not None:
            await self._writer
        await self.in_turn(self._events.close)
        self._thread.shutdown()

    async def _write(self) -> None:
        """Write batch after batch, until nothing waits."""
        while self._waiting:
            if len(self._waiting) < FULL_BATCH:
                await asyncio.sleep(GATHER_SECONDS)
            batch, self._waiting = self._waiting, []
            failure: Exception | None = None
            try:
                await self.in_turn(partial(self._events.write, [line for line, _ in batch]))
            except Exception as error:  # noqa: BLE001 - raised in every request of the batch
                failure = error
            for (_, text), stored in batch:
                self.waiting_bytes -= len(text)
                if stored.done():  # the request was cancelled
                    continue
                if failure:
                    stored.set_exception(failure)
                else:
                    stored.set_result(None)
