"""Reader of a CSV body into a table of text: all of it or nothing.

pyarrow reads a regular body (100,000 rows of 32 columns in 0.2 s); the csv module, which takes 1.7 s, reads bodies that
pyarrow would not read whole: with stray quotes, NULs or very long rows.
"""

import codecs
import csv
import io
import mmap
import re
from collections.abc import Iterable
from itertools import chain
from typing import IO, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipelines.ringcx.reports.charset import NotWholeError, text_of

BLOCK_BYTES: Final = 1 << 20
MAX_FIELD_CHARACTERS: Final = 512 << 20

TOTALS: Final = re.compile(r"(?i)\W*(grand\s+|sub-?)?(totals?|sums?)\b|\W*(rows|records|count)\s*:")
"""The beginning of the first field of a line with totals, which is not a row."""

_BATCH_ROWS: Final = 10_000
_END: Final = "\0end of report\0"
# By byte: whether it may precede a quote that opens, and follow a quote that closes.
_MAY_ADJOIN_QUOTE: Final = np.isin(np.arange(256), np.frombuffer(b',\r\n"', np.uint8))
# A field that starts with a quote, up to the quote that ends it. Possessive: an open one fails immediately.
_QUOTED_FIELD: Final = re.compile(rb'(?:\A(?:\xef\xbb\xbf)?|[,\r\n])"[^"]*+(?:""[^"]*+)*+"')


def read_csv_body(body: IO[bytes], *, framed: bool) -> tuple[list[str], pa.Table, int]:
    """Read a CSV with a heading, in UTF-8; blank lines and totals are skipped. `framed`: see `parse_report`.

    Rows end in LF, CRLF or CR, quotes are as in RFC 4180; stray ones inside a field that does not start with one are
    text. Raises NotWholeError if the body is cut off, or a row and the heading differ in width.

    Returns:
        The headings, a table with one text column per heading, named `0`, `1`, …, and the number of skipped lines.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not framed and content[-1:] not in {b"\n", b"\r"}:
            raise NotWholeError("it does not end in a line break, and HTTP did not mark where it ends")
        is_regular = _quotes_are_regular(content)
        if not is_regular and _has_text_after_lines(content):
            raise NotWholeError("text follows the closing quote of a field of several lines, so rows may be hidden")
        has_nul = content.find(b"\0") >= 0  # pyarrow (26.0) overlooks what follows within a few bytes
    read = _read_with_pyarrow(body) if is_regular and not has_nul else None
    return read or _read_with_csv_module(body)


def _quotes_are_regular(body: mmap.mmap) -> bool:
    """Return whether quotes are where a correct writer puts them: next to separators in pairs, or doubled."""
    start = len(codecs.BOM_UTF8) if body[:3] == codecs.BOM_UTF8 else 0
    count = 0
    for block_start in range(start, len(body), BLOCK_BYTES):
        # The block and one byte on each side; the ends of the body count as line breaks.
        block_end = block_start + BLOCK_BYTES
        before = body[block_start - 1 : block_start] if block_start > start else b"\n"
        text = before + body[block_start : block_end + 1] + (b"\n" if block_end >= len(body) else b"")
        if b'"' not in text:
            continue
        codes = np.frombuffer(text, np.uint8)
        quotes = np.flatnonzero(codes[1:-1] == ord('"')) + 1
        opening, closing = quotes[count % 2 :: 2], quotes[1 - count % 2 :: 2]
        if not (_MAY_ADJOIN_QUOTE[codes[opening - 1]].all() and _MAY_ADJOIN_QUOTE[codes[closing + 1]].all()):
            return False
        count += len(quotes)
    return count % 2 == 0


def _has_text_after_lines(body: mmap.mmap) -> bool:
    """Return whether text, instead of a separator, follows a quoted field of several lines.

    `"great" service` is read as expected. But if a writer does not double quotes, `,"great,…⏎…,"fine` reads as one row
    of the right width, and a recording would be gone without a trace.
    """
    for field in _QUOTED_FIELD.finditer(body):
        lines = field.group().partition(b'"')[2]
        follower = body[field.end() : field.end() + 1]
        if follower not in {b"", b",", b"\r", b"\n"} and (b"\n" in lines or b"\r" in lines):
            return True
    return False


def _read_with_pyarrow(body: IO[bytes]) -> tuple[list[str], pa.Table, int] | None:
    """Read it, or return None if the body is not UTF-8, or a row has another width or is longer than a block."""
    try:
        with text_of(body, errors="strict") as file:
            headings = next(filter(None, csv.reader(file)), [])
            while file.read(BLOCK_BYTES):  # pyarrow cannot hand a row that is not UTF-8 to `skip_or_fail`
                continue
    except UnicodeDecodeError:
        return None
    names = [str(n) for n in range(len(headings))]
    skipped: list[int] = []

    def skip_or_fail(row: pa_csv.InvalidRow) -> Literal["error", "skip"]:
        if not _is_blank_or_total(row.text):
            return "error"
        skipped.append(row.actual_columns)
        return "skip"

    try:
        table = pa_csv.read_csv(
            cast("IO[bytes]", _Blocks(body)),
            read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip_or_fail),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        return None
    if not table.num_rows or [column[0].as_py() for column in table.itercolumns()] != headings:
        return None
    return headings, table.slice(1), len(skipped)


class _Blocks(io.BufferedIOBase):
    """A reader whose blocks never separate a CR from its LF.

    At the start of a block pyarrow (26.0) skips an LF whose CR ended the block before, also inside quotes, where it is
    text; if the block is nothing but that LF, pyarrow takes it for the end and drops the rest without an error.
    """

    def __init__(self, body: IO[bytes]) -> None:
        # A view of its own: after an error a thread of pyarrow goes on reading, also while the csv module reads.
        self._content = mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        end = len(self._content) if size is None or size < 0 else self._at + max(2, size)
        block = self._content[self._at : end]
        if len(block) > 1 and block.endswith(b"\r"):
            block = block[:-1]
        self._at += len(block)
        return block


def _read_with_csv_module(body: IO[bytes]) -> tuple[list[str], pa.Table, int]:
    with text_of(body) as file:
        # The line that we put after the body must come out as a row: inside an open quote it would be text.
        rows = filter(None, csv.reader(chain(file, ["\n", _END])))
        try:
            return _read_rows(next(rows), rows)
        except csv.Error:
            limit = MAX_FIELD_CHARACTERS >> 20
            raise NotWholeError(f"a field is longer than {limit} Mi characters, or its quote is still open") from None


def _read_rows(headings: list[str], rows: Iterable[list[str]]) -> tuple[list[str], pa.Table, int]:
    tables: list[pa.Table] = []
    batch: list[list[str]] = []
    skipped = 0
    is_complete = False
    for number, row in enumerate(rows, start=2):
        is_complete = row == [_END]
        if is_complete:
            continue
        if len(row) == len(headings):
            batch.append(row)
        elif _is_blank_or_total(",".join(row)):
            skipped += 1
        else:
            raise NotWholeError(f"row {number} has {len(row)} fields where the heading has {len(headings)}")
        if len(batch) == _BATCH_ROWS:
            tables.append(_table(headings, batch))
            batch = []
    if not is_complete:
        raise NotWholeError("a quote is still open at the end")
    return headings, pa.concat_tables([*tables, _table(headings, batch)]), skipped


def _table(headings: list[str], rows: list[list[str]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(headings)
    names = [str(n) for n in range(len(headings))]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=names)


def _is_blank_or_total(text: str) -> bool:
    """Return whether a line that differs from the heading in width is blank, or a total without a link."""
    return not text.strip(' \t\r\n\x1a,"\0') or (TOTALS.match(text) is not None and "://" not in text)
