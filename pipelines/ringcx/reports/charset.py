"""The bytes of a report or an event as UTF-8, without losing a report to one bad byte.

The source promises UTF-8 and forwards what agents typed into older systems: some bytes are Windows-1252, and a name cut
in the middle of a character leaves half of it. Each byte that is not UTF-8 is read by itself as Windows-1252 (or as
Latin-1 if Windows-1252 does not define it), so that the other bytes read the same.
"""

import codecs
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, TextIO

REPAIR: Final = "ringcx-windows-1252"
"""The codec error handler that repairs bytes which are not UTF-8."""
_CHARACTER_OF_BYTE: Final = [bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in range(256)]


class NotWholeError(Exception):
    """A body is not a whole report. The text is a clause with the fault, and none of the body's content."""


def _repair(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(_CHARACTER_OF_BYTE[byte] for byte in error.object[error.start : error.end]), error.end


codecs.register_error(REPAIR, _repair)


@contextmanager
def as_utf8(body: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield `body`, or a copy in UTF-8 if a mark says that it is UTF-16; raise NotWholeError if that is cut off."""
    body.seek(0)
    if body.read(2) not in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        yield body
        return
    with tempfile.TemporaryFile() as copy:
        try:
            with text_of(body, "utf-16", "strict") as source:
                while text := source.read(1 << 20):
                    copy.write(text.encode())
        except UnicodeError:
            raise NotWholeError("its UTF-16 is cut off or damaged") from None
        copy.flush()
        yield copy


@contextmanager
def text_of(body: IO[bytes], encoding: str = "utf-8-sig", errors: str = REPAIR) -> Iterator[TextIO]:
    """Yield a reader of a file's text from its start, and leave the file open."""
    body.seek(0)
    text = io.TextIOWrapper(body, encoding=encoding, errors=errors, newline="")
    try:
        yield text
    finally:
        text.detach()
