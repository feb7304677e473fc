"""Where a recording waits between source and bucket: in memory while there is some left, else on disk, both bounded.

Memory: blocks of `BLOCK` bytes that all recordings in flight share and use again and again: what is allocated anew for
each recording stays with the allocator, in every thread. Only what was written to takes real memory. Disk: `Room`.
Not for what is done with the bytes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from pipelines.ringcx.limits import check_stop

__all__ = ["BLOCK", "IN_MEMORY", "ON_DISK", "Room", "Spool"]

BLOCK: Final = 1 << 20
IN_MEMORY: Final = 64 << 20  # an hour of mono, or four minutes of it sixteen times
ON_DISK: Final = 4 << 30
_LOOK_EVERY_S: Final = 1.0


class Room:
    """What the spools of a run share: `in_memory` bytes of blocks, and `on_disk` bytes of disk, plus what the first of
    them needs beyond.

    The first one never waits, so it ends and makes room for the next: no two can wait for each other.
    """

    def __init__(self, stop: threading.Event, *, in_memory: int = IN_MEMORY, on_disk: int = ON_DISK) -> None:
        self._stop = stop
        self._on_disk = on_disk
        self._changed = threading.Condition()
        self._held: dict[Spool, int] = {}
        self._free: list[memoryview] = []
        self._unmade = in_memory // BLOCK

    def lend(self) -> memoryview | None:
        """A block, whatever its bytes are; None where all are lent."""
        with self._changed:
            if self._free:
                return self._free.pop()
            if not self._unmade:
                return None
            self._unmade -= 1
        return _block()

    def lend_beyond(self) -> memoryview:
        """A block though all are lent."""
        return self.lend() or _block()

    def give_back(self, blocks: Sequence[memoryview]) -> None:
        """Blocks that are not used any more; the first of them is lent first again."""
        with self._changed:
            self._free += reversed(blocks)

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
    """A binary file, written from its beginning, that moves to disk when there is no memory left for it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._blocks: list[memoryview] = []  # on disk one: through it the bytes go there and back
        self._file: Any = None
        self._size = self._at = 0

    def space(self, size: int) -> memoryview:
        """Memory to be filled and then written, which then costs no copy; at most so many bytes, perhaps fewer.

        Raises:
            Stopped: it must move to disk, and the stop event is set.
        """
        block, place = self._here()
        return block[place : place + size]

    def write(self, data: bytes | memoryview) -> int:
        """Write where it stands; raises as `space`."""
        left = memoryview(data)
        while left:
            block, place = self._here()
            if self._file is not None:
                self._room.take(self, len(left))
                self._file.seek(self._at)
                written = self._file.write(left)
            else:
                written = min(len(left), BLOCK - place)
                if left.obj is not block.obj:
                    block[place : place + written] = left[:written]
            self._at += written
            self._size = max(self._size, self._at)
            left = left[written:]
        return len(data)

    def blocks(self, start: int, size: int) -> Iterator[memoryview]:
        """So many bytes from `start` on, where they lie or as they are read; each is good until the next one."""
        end = min(self._size, start + size)
        while start < end:
            if self._file is not None:
                block = self._blocks[0][: end - start]
                self._file.seek(start)
                block = block[: self._file.readinto(block)]
            else:
                number, place = divmod(start, BLOCK)
                block = self._blocks[number][place : place + end - start]
            start += len(block)
            yield block

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes from where it stands; all that is left for -1."""
        blocks = self.blocks(self._at, self._size if size < 0 else size)
        data = b"".join(blocks if self._file is None else map(bytes, blocks))
        self._at += len(data)
        return data

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
        self._room.give_back(self._blocks)
        self._blocks = []
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

    def _here(self) -> tuple[memoryview, int]:
        """The block that it stands in, and where; on disk the one that leads there, from its beginning."""
        number, place = divmod(self._at, BLOCK)
        while self._file is None and number >= len(self._blocks):
            if (block := self._room.lend()) is None:
                self._move_to_disk()
            else:
                self._blocks.append(block)
        return (self._blocks[number], place) if self._file is None else (self._blocks[0], 0)

    def _move_to_disk(self) -> None:
        self._room.take(self, self._size)
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        for block in self.blocks(0, self._size):
            while block:
                block = block[file.write(block) :]  # noqa: PLW2901 - what is left of it
        self._file = file
        window, *rest = self._blocks or [self._room.lend_beyond()]
        self._blocks = [window]
        self._room.give_back(rest)


def _block() -> memoryview:
    return memoryview(mmap.mmap(-1, BLOCK))
