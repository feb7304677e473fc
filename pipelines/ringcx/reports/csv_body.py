"""A CSV body to a table of text: all of it or nothing.

Reading is pyarrow's, which takes 0.7 s for a million rows where `csv.DictReader` takes 6 s and pandas with `dtype=str`
10 s. What pyarrow does not see is looked for here: a quote that is still open at the end, a body that stops before its
line break, rows swallowed by a quote that was never meant as one. Its own errors quote the row, so none of them gets
out. What the columns are called and which must be there is not decided here.
"""

import csv
import io
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipelines.ringcx.reports.encoding import NotWholeError, as_utf8, is_utf8

BLOCK_BYTES: Final = 1 << 20
MAX_ROW_BYTES: Final = 512 << 20  # the longest row that is read: pyarrow holds whole rows in one block

TOTALS: Final = re.compile(r"(?i)\W*(grand\s+|sub-?)?(totals?|sums?)\b|\W*(rows|records|count)\s*:")
"""How the first field of a line begins that sums up the report and is no row of it."""

_BOM: Final = b"\xef\xbb\xbf"
_LAST_ROW: Final = "end of report"
_QUOTE: Final = ord('"')
# pyarrow (26.0) overlooks what stands within a few bytes after a NUL: a control character stands in for it meanwhile.
_STAND_INS: Final = tuple(bytes([code]) for code in (*range(1, 9), *range(14, 26)))
# By byte: whether it may stand before a quote that opens, and after one that closes.
_BESIDE_A_QUOTE: Final = np.isin(np.arange(256), np.frombuffer(b',\r\n"', np.uint8))
# A field that starts with a quote, up to the quote that ends it. Possessive: an open one fails at once.
_QUOTED_FIELD: Final = re.compile(rb'(?:\A(?:\xef\xbb\xbf)?|[,\r\n])"[^"]*+(?:""[^"]*+)*+"')


def read_csv_body(path: Path, *, framed: bool, block_bytes: int = BLOCK_BYTES) -> tuple[list[str], pa.Table, int]:
    """Read a CSV with a heading; blank lines and totals are skipped, empty fields are null.

    Args:
        path: the body: comma-separated, rows end in LF, CRLF or CR, quotes as in RFC 4180; stray quotes inside a field
            that does not start with one are text. With or without a byte order mark.
        framed: whether HTTP said where the body ends. If not, it must end in a line break.
        block_bytes: how much is read at a time; grows by itself up to `MAX_ROW_BYTES` for a longer row.

    Returns:
        The headings, a table of as many columns of text named `0`, `1`, …, and how many lines were skipped.

    Raises:
        NotWholeError: the body is cut off, or a row has another width than the heading.
    """
    _check_ending(path, framed=framed)
    if not _quotes_are_regular(path) and _a_quote_swallows_rows(path):
        raise NotWholeError("text follows the closing quote of a field of several lines, so rows may be hidden in it")
    repair = not is_utf8(_blocks(path))
    headings = _headings(path, repair=repair)
    width = len(headings)
    ending = f"\n{_LAST_ROW}{',' * (width - 1)}\n".encode()
    table, skipped = _read(path, width, ending, repair=repair, block_bytes=block_bytes)
    # Our own row, put after the body, must come out as a row: inside an open quote it would be text.
    last = [column[-1].as_py() for column in table.itercolumns()] if table.num_rows else []
    if last != [_LAST_ROW, *[None] * (width - 1)]:
        raise NotWholeError("a quote is still open at the end")
    first = [column[0].as_py() or "" for column in table.itercolumns()]
    if first != headings:
        raise NotWholeError("the heading can be read in more than one way")
    return headings, table.slice(1, table.num_rows - 2), skipped


def _blocks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """The body without its byte order mark."""
    with path.open("rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        while block := file.read(size):
            yield block


def _check_ending(path: Path, *, framed: bool) -> None:
    if framed:
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        if file.read() not in {b"\n", b"\r"}:
            raise NotWholeError("it does not end in a line break, and HTTP did not say where it ends")


def _quotes_are_regular(path: Path) -> bool:
    """Whether quotes stand as a correct writer puts them: in turn after and before a separator, or doubled."""
    count = 0
    for window in _windows(path):
        if b'"' not in window:
            continue
        text = np.frombuffer(window, np.uint8)
        at = np.flatnonzero(text[1:-1] == _QUOTE) + 1
        opens, closes = at[count % 2 :: 2], at[1 - count % 2 :: 2]
        if not (_BESIDE_A_QUOTE[text[opens - 1]].all() and _BESIDE_A_QUOTE[text[closes + 1]].all()):
            return False
        count += len(at)
    return True


def _windows(path: Path) -> Iterator[bytes]:
    """Overlapping windows in which every byte of the body is once neither first nor last; the ends are line breaks."""
    kept = b"\n"
    for block in _blocks(path):
        window = kept + block
        yield window
        kept = window[-2:]
    yield kept + b"\n"


def _a_quote_swallows_rows(path: Path) -> bool:
    """Whether a quoted field of several lines is followed by text instead of a separator.

    `"great" service` is read as everybody reads it. But a writer that does not double quotes makes one row of
    `,"great,…⏎…,"fine` that has the right width, and a recording would be gone without a trace.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return _has_text_after_lines(body)


def _has_text_after_lines(body: mmap.mmap) -> bool:
    for field in _QUOTED_FIELD.finditer(body):
        lines = field.group().partition(b'"')[2]
        follower = body[field.end() : field.end() + 1]
        if follower not in {b"", b",", b"\r", b"\n"} and (b"\n" in lines or b"\r" in lines):
            return True
    return False


def _headings(path: Path, *, repair: bool) -> list[str]:
    text = io.TextIOWrapper(_open(path, b"", repair=repair), "utf-8", newline="")
    headings: list[str] = []
    with text, suppress(csv.Error):  # a field longer than the csv module takes
        headings = next((row for row in csv.reader(text) if row), [])
    if not headings:
        raise NotWholeError("its heading is no CSV")
    return headings


def _read(path: Path, width: int, ending: bytes, *, repair: bool, block_bytes: int) -> tuple[pa.Table, int]:
    """All rows, the heading and our ending among them, as columns `0`, `1`, … of text; and the lines that are none."""
    names = [str(n) for n in range(width)]
    nul = _stand_in(path)
    most = min(MAX_ROW_BYTES, path.stat().st_size + len(ending) + 1)
    threads = True
    while True:
        wrong: list[pa_csv.InvalidRow] = []
        read = _try_read(
            path, names, ending, repair=repair, nul=nul, block_bytes=block_bytes, threads=threads, wrong=wrong
        )
        if read is not None:
            return read
        if wrong and not threads:
            row = wrong[0]
            raise NotWholeError(f"row {row.number} has {row.actual_columns} fields where the heading has {width}")
        if wrong:
            threads = False  # only then does pyarrow count rows
        elif block_bytes >= most:
            raise NotWholeError(f"a row is longer than {MAX_ROW_BYTES >> 20} MiB, or a quote is still open at the end")
        else:
            block_bytes = min(most, block_bytes * 8)


def _try_read(
    path: Path,
    names: list[str],
    ending: bytes,
    *,
    repair: bool,
    nul: bytes,
    block_bytes: int,
    threads: bool,
    wrong: list[pa_csv.InvalidRow],
) -> tuple[pa.Table, int] | None:
    skipped: list[int] = []

    def judge(row: pa_csv.InvalidRow) -> Literal["error", "skip"]:
        if not row.text.strip(f' \t\r\n\x1a,"{nul.decode()}') or TOTALS.match(row.text):
            skipped.append(row.actual_columns)
            return "skip"
        wrong.append(row)
        return "error"

    try:
        table = pa_csv.read_csv(
            _open(path, ending, repair=repair, nul=nul),
            read_options=pa_csv.ReadOptions(use_threads=threads, block_size=block_bytes, column_names=names),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=judge),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid:  # a row of another width (then `wrong` knows it), or one longer than the block
        return None
    if nul != b"\0":
        back = [pc.replace_substring(column, nul.decode(), "\0") for column in table.itercolumns()]
        table = pa.table(back, names=names)
    return table, len(skipped)


def _stand_in(path: Path) -> bytes:
    """A control character that the body does not have, where it has a NUL; else NUL."""
    if not any(b"\0" in block for block in _blocks(path)):
        return b"\0"
    return next((one for one in _STAND_INS if not any(one in block for block in _blocks(path))), b"\0")


def _open(path: Path, ending: bytes, *, repair: bool, nul: bytes = b"\0") -> "_Reader":
    return _Reader(_Body(path, ending, repair=repair, nul=nul), 1 << 20)


class _Reader(io.BufferedReader):
    """Reads in full blocks that never part a CR from its LF.

    At the start of a block pyarrow (26.0) skips an LF whose CR ended the block before, also inside quotes, where it is
    text; and when the block is nothing else, it takes it for the end and drops what follows without an error.
    """

    _kept = b""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None or size < 0 else max(2, size) - len(self._kept)
        block = self._kept + super().read(wanted)
        self._kept = b"\r" if len(block) > 1 and block.endswith(b"\r") else b""
        return block[:-1] if self._kept else block


class _Body(io.RawIOBase):
    """The body as UTF-8 without its byte order mark, and our ending behind it."""

    def __init__(self, path: Path, ending: bytes, *, repair: bool, nul: bytes) -> None:
        super().__init__()
        blocks = _blocks(path)
        text = as_utf8(blocks) if repair else blocks
        self._blocks = chain((block.replace(b"\0", nul) for block in text), (ending,))
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]  # typeshed knows buffers only by private names
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        size = min(len(into), len(self._left))
        into[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
