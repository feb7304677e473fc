"""Reader of a CSV body into a table of text: all of it or nothing.

pyarrow reads a regular body (100,000 rows of 32 columns in 0.2 s). A body that it would not read whole, with stray
quotes, NULs or bytes that are not UTF-8, is first rewritten by the csv module, which takes ten times as long.
"""

import csv
import mmap
import os
import re
import tempfile
from itertools import chain
from typing import IO, Final, Literal, cast

import pyarrow as pa
import pyarrow.csv as pa_csv

from pipelines.ringcx.reports.charset import NotWholeError, text_of

BLOCK_BYTES: Final = 2 << 20  # no row is longer

TOTALS: Final = re.compile(r"(?i)\W*(grand\s+|sub-?)?(totals?|sums?)\b|\W*(rows|records|count)\s*:")
"""The beginning of the first field of a line with totals, which is not a row."""

_END: Final = "\0end of report\0"
# No NUL, which makes pyarrow (26.0) overlook what follows, and quotes where a correct writer puts them: next to
# separators in pairs, or doubled. Possessive, as is the next: 100 MB take 0.3 s.
_REGULAR: Final = re.compile(
    rb"""(?:[^"\0]*+(?:(?<![^,\r\n"])|(?<=\A\xef\xbb\xbf))"[^"\0]*+"(?![^,\r\n"]))*+[^"\0]*+"""
)
# A field that starts with a quote, up to the quote that ends it, and what follows if that is not a separator.
_QUOTED_FIELD: Final = re.compile(rb'(?:\A(?:\xef\xbb\xbf)?|[,\r\n])"([^"]*+(?:""[^"]*+)*+)"([^,\r\n])?')


def read_csv_body(body: IO[bytes], *, framed: bool) -> tuple[list[str], pa.Table, int]:
    """Read a CSV with a heading, in UTF-8; blank lines and totals are skipped. `framed`: see `parse_report`.

    Rows end in LF, CRLF or CR, quotes are as in RFC 4180; stray ones inside a field that does not start with one are
    text, and NULs are dropped. Raises NotWholeError if the body is cut off, a row is longer than `BLOCK_BYTES`, or a
    row and the heading differ in width.

    Returns:
        The headings, a table with one text column per heading, named `0`, `1`, …, and the number of skipped lines.
    """
    csv.field_size_limit(BLOCK_BYTES)
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not framed and content[-1:] not in {b"\n", b"\r"}:
            raise NotWholeError("it does not end in a line break, and HTTP did not mark where it ends")
        is_regular = _REGULAR.fullmatch(content) is not None
        if not is_regular and _has_text_after_lines(content):
            raise NotWholeError("text follows the closing quote of a field of several lines, so rows may be hidden")
    if is_regular and _is_utf8(body):
        return _read_regular(body)
    with tempfile.TemporaryFile() as copy:
        _write_regular(body, copy)
        return _read_regular(copy)


def _has_text_after_lines(body: mmap.mmap) -> bool:
    """Return whether text, instead of a separator, follows a quoted field of several lines.

    `"great" service` is read as expected. But if a writer does not double quotes, `,"great,…⏎…,"fine` reads as one row
    of the right width, and a recording would be gone without a trace.
    """
    fields = _QUOTED_FIELD.finditer(body)
    return any(field[2] and (b"\n" in field[1] or b"\r" in field[1]) for field in fields)


def _is_utf8(body: IO[bytes]) -> bool:
    try:
        with text_of(body, errors="strict") as text:
            while text.read(BLOCK_BYTES):
                continue
    except UnicodeDecodeError:
        return False
    return True


def _write_regular(body: IO[bytes], copy: IO[bytes]) -> None:
    """Write the rows of `body` to `copy`, all fields in quotes."""
    with text_of(body) as file, text_of(copy) as regular:
        writer = csv.writer(regular, quoting=csv.QUOTE_ALL)
        # The line that we put after the body must come out as a row: inside an open quote it would be text.
        lines = chain(file, ["\n", _END])
        row: list[str] = []
        try:
            for following in csv.reader(lines):
                # NULs are dropped only now: before, a stray quote after one would open a field that swallows rows.
                writer.writerow([cell.replace("\0", "") for cell in row])
                row = following
        except csv.Error:
            limit = BLOCK_BYTES >> 20
            raise NotWholeError(f"a field is longer than {limit} Mi characters, or its quote is still open") from None
    if row != [_END]:
        raise NotWholeError("a quote is still open at the end")


def _read_regular(body: IO[bytes]) -> tuple[list[str], pa.Table, int]:
    with text_of(body) as file:
        headings = next(filter(None, csv.reader(file)), [])
    names = [str(n) for n in range(len(headings))]
    odd_widths: list[int] = []
    skipped: list[int] = []

    def skip_or_fail(row: pa_csv.InvalidRow) -> Literal["error", "skip"]:
        is_blank = not row.text.strip(' \t\r\n\x1a,"')
        if not is_blank and (TOTALS.match(row.text) is None or "://" in row.text):  # a total has no link
            odd_widths.append(row.actual_columns)
            return "error"
        skipped.append(row.actual_columns)
        return "skip"

    try:
        table = pa_csv.read_csv(
            cast("IO[bytes]", _Blocks(body.fileno(), 0, access=mmap.ACCESS_READ)),
            read_options=pa_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip_or_fail),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        problem = f"a row is longer than {BLOCK_BYTES >> 20} MiB"
        if odd_widths:
            problem = f"a row has {odd_widths[0]} fields where the heading has {len(headings)}"
        raise NotWholeError(problem) from None
    return headings, table.slice(1), len(skipped)


class _Blocks(mmap.mmap):
    """A body whose blocks never separate a CR from its LF.

    At the start of a block pyarrow (26.0) skips an LF whose CR ended the block before, also inside quotes, where it is
    text; if the block is nothing but that LF, pyarrow takes it for the end and drops the rest without an error.
    """

    def read(self, size: int | None = None) -> bytes:
        block = super().read(size)
        if len(block) > 1 and block.endswith(b"\r"):
            self.seek(-1, os.SEEK_CUR)
            return block[:-1]
        return block
