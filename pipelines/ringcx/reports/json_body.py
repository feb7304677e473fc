"""Read a JSON body into a table of text: all of it or nothing, in batches, so that memory follows the table.

Numbers keep their digits (an id of 19 digits is no float), and what is nested becomes canonical JSON text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any, Final, TextIO

import pyarrow as pa

from pipelines.ringcx.reports.columns import ReportName, canonical_name, free_name
from pipelines.ringcx.reports.encoding import NotWholeError, text_of

MAX_ROW_CHARACTERS: Final = 64 << 20
_BATCH_ROWS: Final = 5_000
_READ_CHARACTERS: Final = 1 << 20
_BLANKS: Final = re.compile(r"[ \t\r\n]*")


class _Digits(str):
    """A number as it was written: text for us, but without quotes inside nested JSON."""

    __slots__ = ()


def read_json_body(report: ReportName, body: IO[bytes]) -> pa.Table:
    """Read a JSON array of objects in UTF-8 into columns of text under our names; null and absent are null.

    Two spellings of one column (`recordingUrl`, `recording_url`) are one column; a row that has both with different
    values keeps the second under the suffix `_2`.

    Raises:
        NotWholeError: cut off, followed by something else, nested too deep, or an element is not an object.
    """
    names: dict[str, str] = {}
    try:
        with text_of(body) as file:
            rows = _Reader(file).rows()
            batches = iter(lambda: list(islice(rows, _BATCH_ROWS)), [])
            tables = [_table(report, batch, names) for batch in batches]
    except RecursionError:  # of a nesting that the decoder still took
        raise NotWholeError("a value is nested too deep") from None
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


class _Reader:
    """Reads the elements of an array one after another. What is read and not yet used begins at `_at` in `_text`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits, strict=False)
        self._text = ""
        self._at = 0

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the elements; the array ends the body."""
        if self._take() != "[":
            raise NotWholeError("it is no JSON array")
        separator = "," if self._peek() != "]" else self._take()
        while separator == ",":
            yield self._element()
            separator = self._take()
        if separator != "]":
            raise NotWholeError("the array is no valid JSON" if separator else "the array is cut off")
        if self._peek():
            raise NotWholeError("something follows the array")

    def _peek(self) -> str:
        """Skip blanks and return the next character without using it; empty at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text) or not self._read_more():
                return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += len(character)
        return character

    def _element(self) -> dict[str, object]:
        if (start := self._peek()) != "{":
            raise NotWholeError("an element of the array is not an object" if start else "the array is cut off")
        while True:
            try:
                element, self._at = self._decoder.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError):  # not yet whole, or never
                if len(self._text) - self._at > MAX_ROW_CHARACTERS:
                    limit = MAX_ROW_CHARACTERS >> 20
                    raise NotWholeError(f"an element is longer than {limit} Mi characters or no JSON") from None
                if not self._read_more():
                    raise NotWholeError("the array is cut off or no valid JSON") from None
                continue
            if not element:
                raise NotWholeError("an element of the array is empty")
            return dict(element)

    def _read_more(self) -> bool:
        """Read as much again as is unused (at least a block): an element over many blocks stays linear."""
        unused = self._text[self._at :]
        more = self._file.read(max(_READ_CHARACTERS, len(unused)))
        self._text, self._at = unused + more, 0
        return bool(more)


def _table(report: ReportName, rows: Sequence[dict[str, object]], names: dict[str, str]) -> pa.Table:
    """Return a batch of rows as columns; `names` keeps our name of every key met so far."""
    spellings: dict[str, list[str]] = {}
    for key in dict.fromkeys(chain.from_iterable(rows)):
        if key not in names:
            names[key] = canonical_name(report, _as_text(key) or "")
        spellings.setdefault(names[key], []).append(key)
    columns: dict[str, pa.Array[Any]] = {}
    for name, keys in spellings.items():
        if len(keys) == 1:
            columns[name] = _column([row.get(keys[0]) for row in rows])
            continue
        values = [list(dict.fromkeys(filter(None, (_as_text(row.get(key)) for key in keys)))) for row in rows]
        for n in range(max(1, *map(len, values))):
            columns[free_name(name, columns)] = _column([row[n] if n < len(row) else None for row in values])
    return pa.table(columns)


def _column(values: Sequence[object]) -> "pa.Array[Any]":
    try:
        return pa.array(values, pa.string())
    except (TypeError, UnicodeEncodeError):  # a value that is not text, or half of a surrogate pair
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _canonical(value)


def _canonical(value: object) -> str:
    """Return JSON with sorted keys, without blanks, and with every number as it was written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, _Digits):
        return value
    return _as_text(json.dumps(value, ensure_ascii=False)) or ""
