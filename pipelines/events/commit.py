"""Group commit: many requests wait for one write.

Lines that arrive while a batch is being written form the next batch, so that all requests of a batch share the cost of
one sync or one put. No request is answered "stored" before its write has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pipelines.events.files import Events, Line

_T = TypeVar("_T")

GATHER_SECONDS = 0.02
FULL_BATCH = 256
# Beyond this the place of the events is slower than the senders: they are told to come back, and memory stays bounded.
MOST_WAITING_BYTES = 32 << 20


class Overloaded(Exception):  # noqa: N818 - a verdict
    """So much waits to be stored that no more is taken."""


class _Batch:
    """Lines that become durable together, and what those who wait for it wait for."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Read although everybody who waited may have gone: else asyncio reports an error that nobody retrieved.
        self.done.add_done_callback(lambda done: done.exception())


class GroupCommit:
    """Makes lines durable in batches, in a thread of its own. Belongs to one event loop."""

    def __init__(self, events: Events, *, gather_seconds: float = GATHER_SECONDS) -> None:
        self._events = events
        self._gather = gather_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self._next: _Batch | None = None
        self._full = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.waiting_bytes = 0

    async def store(self, line: Line) -> None:
        """Return once the line is durable.

        Raises:
            EventsUnavailable: it is not stored, or that is unknown.
            Overloaded: it was not taken.
        """
        if self.waiting_bytes > MOST_WAITING_BYTES:
            raise Overloaded
        batch = self._next
        if batch is None:
            batch = self._next = _Batch()
        batch.lines.append(line)
        self.waiting_bytes += len(line[1])
        if len(batch.lines) >= FULL_BATCH:
            self._full.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        # Shielded: one who goes away must not take the others' batch along.
        await asyncio.shield(batch.done)

    async def in_turn(self, act: Callable[[], _T]) -> _T:
        """Call a method of the events' place between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    async def close(self) -> None:
        """Wait until everything taken is durable, then close the place."""
        if self._writer is not None:
            self._full.set()
            await self._writer
        await self.in_turn(self._events.close)
        self._thread.shutdown()

    async def _write(self) -> None:
        """Batch after batch, until there is none."""
        while self._next is not None:
            if len(self._next.lines) < FULL_BATCH:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._gather)
            batch, self._next = self._next, None
            self._full.clear()
            try:
                await self.in_turn(partial(self._events.write, batch.lines))
            except Exception as error:  # noqa: BLE001 - handed to everybody who waits, none of whom is told "stored"
                batch.done.set_exception(error)
            else:
                batch.done.set_result(None)
            self.waiting_bytes -= sum(len(line) for _, line in batch.lines)
