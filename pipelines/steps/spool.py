"""Where a recording waits between source and bucket: in memory while it is small, else on disk, both within bounds.

Memory: as many buffers of `IN_MEMORY` bytes as recordings are in flight, used again and again: what is allocated anew
for each recording stays with the allocator, in every thread. Only what was written to takes real memory. Disk: `Room`.
Not for what is done with the bytes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from types import TracebackType
from typing import Any, Final, Self

from pipelines.ringcx.limits import check_stop

__all__ = ["IN_MEMORY", "ON_DISK", "Room", "Spool"]

IN_MEMORY: Final = 3 << 20  # three minutes of mono; with 16 in flight at most 48 MiB
ON_DISK: Final = 4 << 30
_LOOK_EVERY_S: Final = 1.0


class Room:
    """What the spools of a run share: buffers, and `on_disk` bytes of disk, plus what the first of them needs beyond.

    The first one never waits, so it ends and makes room for the next: no two can wait for each other.
    """

    def __init__(self, stop: threading.Event, *, on_disk: int = ON_DISK) -> None:
        self._stop = stop
        self._on_disk = on_disk
        self._changed = threading.Condition()
        self._held: dict[Spool, int] = {}
        self._buffers: list[mmap.mmap] = []

    def lend(self) -> mmap.mmap:
        """A buffer of `IN_MEMORY` bytes, whatever they are."""
        with self._changed:
            return self._buffers.pop() if self._buffers else mmap.mmap(-1, IN_MEMORY)

    def give_back(self, buffer: mmap.mmap) -> None:
        """A buffer that is not used any more."""
        with self._changed:
            self._buffers.append(buffer)

    def take(self, spool: Spool, size: int) -> None:
        """Let a spool hold so many bytes more on disk, as soon as there is room.

        Raises:
            Stopped: the stop event is set.
        """
        with self._changed:
            self._held.setdefault(spool, 0)
            while next(iter(self._held)) is not spool and sum(self._held.values()) + size > self._on_disk:
                check_stop(self._stop)
                self._changed.wait(_LOOK_EVERY_S)
            self._held[spool] += size

    def leave(self, spool: Spool) -> None:
        """Free what a spool holds on disk."""
        with self._changed:
            self._held.pop(spool, None)
            self._changed.notify_all()


class Spool:
    """A binary file, written from its beginning, that moves to disk when it grows above `IN_MEMORY`."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._buffer: mmap.mmap | None = room.lend()
        self._file: Any = None
        self._size = self._at = 0

    def space(self, size: int) -> memoryview | None:
        """So many bytes of its memory from where it stands, to be filled and then written: that costs no copy. None
        where they go to disk.
        """
        end = self._at + size
        fits = self._file is None and self._buffer is not None and end <= IN_MEMORY
        return memoryview(self._buffer)[self._at : end] if fits and self._buffer is not None else None

    def write(self, block: bytes | memoryview) -> int:
        """Write where it stands."""
        end = self._at + len(block)
        if self._file is None and end > IN_MEMORY:
            self._move_to_disk()
        if self._file is not None:
            self._room.take(self, len(block))
            self._file.seek(self._at)
            self._file.write(block)
        elif self._buffer is not None and not (isinstance(block, memoryview) and block.obj is self._buffer):
            self._buffer[self._at : end] = block
        self._at, self._size = end, max(self._size, end)
        return len(block)

    def view(self, start: int, size: int) -> memoryview | None:
        """So many bytes of it from `start` on, where they lie, until it is written to or closed; None on disk."""
        return None if self._buffer is None else memoryview(self._buffer)[start : start + size]

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes from where it stands; all that is left for -1."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        if self._file is not None:
            self._file.seek(self._at)
            block: bytes = self._file.read(max(0, end - self._at))
        else:
            block = b"" if self._buffer is None else self._buffer[self._at : end]
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Stand elsewhere: from the beginning, from here, or from the end."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def truncate(self) -> int:
        """Forget what is behind."""
        self._size = min(self._size, self._at)
        if self._file is not None:
            self._file.truncate(self._size)
            if self._size == 0:
                self._room.leave(self)
        return self._size

    def close(self) -> None:
        """Free the memory and the disk that it held."""
        if self._buffer is not None:
            self._room.give_back(self._buffer)
            self._buffer = None
        if self._file is not None:
            self._file.close()
            self._file = None
            self._room.leave(self)
        self._size = self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _move_to_disk(self) -> None:
        self._room.take(self, self._size)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        if self._buffer is not None:
            self._file.write(self._buffer[: self._size])
            self._room.give_back(self._buffer)
            self._buffer = None
