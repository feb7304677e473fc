"""Bytes to text without losing a report to one bad byte.

The source promises UTF-8 and forwards what agents typed into older systems: some bytes are Windows-1252, and a name cut
in the middle of a character leaves half of it. Each byte that is not UTF-8 is read as Windows-1252 for itself (and as
Latin-1 where that has a hole), so that one such byte does not change how the rest of the report reads. The refusal that
both readers of bodies share stands here too. What the text means is not decided here.
"""

import codecs
from collections.abc import Iterable, Iterator
from typing import Final

REPAIR: Final = "ringcx-windows-1252"
"""Name of the codec error handler; `install_repair` must have run."""


class NotWholeError(Exception):
    """A body is not a whole report. The text says what is wrong, as half a sentence without any of its content."""


def _byte_as_text(byte: int) -> str:
    try:
        return bytes((byte,)).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


def _repair(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(map(_byte_as_text, error.object[error.start : error.end])), error.end


def install_repair() -> str:
    """Make the handler known to Python's codecs (again is harmless) and return its name."""
    codecs.register_error(REPAIR, _repair)
    return REPAIR


def is_utf8(blocks: Iterable[bytes]) -> bool:
    """Whether the blocks together are UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in blocks:
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def as_utf8(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks with every byte that is not UTF-8 repaired."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors=install_repair())
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()
