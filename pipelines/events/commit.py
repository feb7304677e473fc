"""Group commit: many requests wait for one write.

Lines that arrive while a batch is being written form the next batch, so that all requests of a batch share the cost of
one sync or one put. No request is answered "stored" before its write has returned.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from pipelines.events.files import Events, Line

_T = TypeVar("_T")

GATHER_SECONDS = 0.02
FULL_BATCH = 256
# Beyond this the storage is slower than the senders: they are asked to try later, and memory stays bounded.
MOST_WAITING_BYTES = 32 << 20


class Overloaded(Exception):  # noqa: N818 - a verdict
    """Too many lines wait to be stored, and no more are accepted."""


class GroupCommit:
    """A writer that makes lines durable in batches, in its own thread. Belongs to one event loop."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._turn = asyncio.Lock()
        self._lines: list[Line] = []
        self._batch: asyncio.Task[None] | None = None  # that will write these lines
        self.waiting_bytes = 0

    async def store(self, line: Line) -> None:
        """Store a line, and return once it is durable.

        Raises EventsUnavailable if the line is not, or may not be, stored; Overloaded if it was not accepted.
        """
        if self.waiting_bytes > MOST_WAITING_BYTES:
            raise Overloaded
        self._lines.append(line)
        self.waiting_bytes += len(line[1])
        if self._batch is None:
            self._batch = asyncio.create_task(self._write())
            # Also where every request of the batch was cancelled somebody asks for its error.
            self._batch.add_done_callback(lambda batch: batch.cancelled() or batch.exception())
        await asyncio.shield(self._batch)

    async def in_turn(self, act: Callable[[], _T]) -> _T:
        """Call a method of the events' storage between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    async def close(self) -> None:
        """Wait until every accepted line is durable."""
        if self._batch is not None:
            await asyncio.wait([self._batch])
        async with self._turn:
            self._thread.shutdown()

    async def _write(self) -> None:
        """Write the lines that gather until the batch before is durable."""
        async with self._turn:
            if len(self._lines) < FULL_BATCH:
                await asyncio.sleep(GATHER_SECONDS)
            lines, self._lines, self._batch = self._lines, [], None
            try:
                await self.in_turn(partial(self._events.write, lines))
            finally:
                self.waiting_bytes -= sum(len(text) for _, text in lines)
