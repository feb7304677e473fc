"""The bytes of a report or an event as UTF-8, without losing a report to one bad byte.

The source promises UTF-8 and forwards what agents typed into older systems: some bytes are Windows-1252, and a name cut
in the middle of a character leaves half of it. Each byte that is not UTF-8 is read as Windows-1252 for itself (as
Latin-1 where that has a hole), so that it does not change how the rest reads.
"""

import codecs
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, TextIO

_REPAIR: Final = "ringcx-windows-1252"
_OF_BYTE: Final = [bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in range(256)]
_BOMS: Final = (  # that of UTF-32 begins as that of UTF-16 does
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)


class NotWholeError(Exception):
    """A body is not a whole report. The text says what is wrong, as half a sentence without any of its content."""


def repair_handler() -> str:
    """Register the codec error handler that repairs bytes which are not UTF-8, and return its name."""
    codecs.register_error(_REPAIR, _repair)
    return _REPAIR


def _repair(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(_OF_BYTE[byte] for byte in error.object[error.start : error.end]), error.end


@contextmanager
def as_utf8(body: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield `body` if it is UTF-8, else a file that is: of UTF-16, UTF-32, or with its bytes repaired.

    Raises:
        NotWholeError: a body in UTF-16 or UTF-32 is cut off.
    """
    body.seek(0)
    start = body.read(4)
    encoding = next((name for bom, name in _BOMS if start.startswith(bom)), "")
    if not encoding and 0 in start[:2]:  # without a mark, as the first character of a report is ASCII
        encoding = "utf-16-be" if start[0] == 0 else "utf-16-le"
    if not encoding and _is_utf8(body):
        yield body
        return
    with tempfile.TemporaryFile() as copy:
        try:
            with text_of(body, encoding or "utf-8", "strict" if encoding else repair_handler()) as source:
                while text := source.read(1 << 20):
                    copy.write(text.encode())
        except UnicodeError:
            raise NotWholeError(f"its {encoding.upper()} is cut off or damaged") from None
        copy.flush()
        yield copy


@contextmanager
def text_of(body: IO[bytes], encoding: str = "utf-8-sig", errors: str = "strict") -> Iterator[TextIO]:
    """Yield a reader of the text of a file from its start, and leave the file open."""
    body.seek(0)
    text = io.TextIOWrapper(body, encoding=encoding, errors=errors, newline="")
    try:
        yield text
    finally:
        text.detach()


def _is_utf8(body: IO[bytes]) -> bool:
    with text_of(body) as text:
        try:
            while text.read(1 << 20):
                continue
        except UnicodeDecodeError:
            return False
    return True
