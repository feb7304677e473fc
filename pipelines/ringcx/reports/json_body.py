"""A JSON body to rows: all of it or nothing, row by row, so that memory follows the table and not the text.

Numbers keep their digits (an id of 19 digits is no float), and what is nested becomes canonical JSON text. Which
columns must be there is not decided here.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.reports.columns import ReportName, canonical_name, free_name
from pipelines.ringcx.reports.encoding import NotWholeError, install_repair

MAX_ROW_CHARACTERS: Final = 64 << 20
_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_BATCH_ROWS: Final = 5_000
_READ_CHARACTERS: Final = 1 << 20
_BLANKS: Final = re.compile(r"[ \t\r\n]*")


class _Digits(str):
    """A number as it was written: text for us, but without quotes inside nested JSON."""

    __slots__ = ()


def read_json_body(report: ReportName, path: Path) -> pa.Table:
    """Read a JSON array of objects into columns of text under our names; null, absent and `""` are null.

    Two spellings of one column (`recordingUrl`, `recording_url`) are one column; a row that has both with different
    values keeps the second under the suffix `_2`.

    Raises:
        NotWholeError: cut off, followed by something else, nested too deep, or an element is not an object.
    """
    try:
        return _read(report, path)
    except RecursionError:  # of a nesting that the decoder still took
        raise NotWholeError("a value is nested too deep") from None


def _read(report: ReportName, path: Path) -> pa.Table:
    tables: list[pa.Table] = []
    names: dict[str, str] = {}
    batch: list[dict[str, object]] = []
    with path.open(encoding="utf-8-sig", errors=install_repair(), newline="") as file:
        for row in _rows(file):
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                tables.append(_table(report, batch, names))
                batch = []
    tables.append(_table(report, batch, names))
    return pa.concat_tables(tables, promote_options="default")


def _rows(file: TextIO) -> Iterator[dict[str, object]]:
    text = _Text(file)
    if text.next_character() != "[":
        raise NotWholeError("it is no JSON array")
    text.at += 1
    if text.next_character() == "]":
        text.at += 1
    else:
        while True:
            yield text.element()
            mark = text.next_character()
            text.at += 1
            if mark == "]":
                break
            if mark != ",":
                raise NotWholeError("the array is cut off" if not mark else "the array is no valid JSON")
    if text.next_character():
        raise NotWholeError("something follows the array")


class _Text:
    """A window on the text: what is read and not yet used begins at `at`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits, strict=False)
        self._text = ""
        self.at = 0

    def next_character(self) -> str:
        """Skip blanks; the next character stays unused. Empty at the end."""
        while True:
            blanks = _BLANKS.match(self._text, self.at)
            self.at = blanks.end() if blanks else self.at
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def element(self) -> dict[str, object]:
        """The object that starts here."""
        start = self.next_character()
        if not start:
            raise NotWholeError("the array is cut off")
        if start != "{":
            raise NotWholeError("an element of the array is not an object")
        while True:
            found = self._try_element()
            if found == {}:
                raise NotWholeError("an element of the array is empty")
            if found is not None:
                return found
            if len(self._text) - self.at > MAX_ROW_CHARACTERS:
                raise NotWholeError(f"an element is longer than {MAX_ROW_CHARACTERS >> 20} Mi characters or no JSON")
            if not self._more():
                raise NotWholeError("the array is cut off or no valid JSON")

    def _try_element(self) -> dict[str, object] | None:
        try:
            found, self.at = self._decoder.raw_decode(self._text, self.at)
        except (json.JSONDecodeError, RecursionError):  # not yet whole, or never
            return None
        return dict(found)

    def _more(self) -> bool:
        """Read as much again as is unused (at least a block): an element over many blocks stays linear."""
        self._text = self._text[self.at :]
        self.at = 0
        more = self._file.read(max(_READ_CHARACTERS, len(self._text)))
        self._text += more
        return bool(more)


def _table(report: ReportName, rows: list[dict[str, object]], names: dict[str, str]) -> pa.Table:
    """A batch of rows as columns; `names` remembers what the keys met so far are called."""
    values = _by_key(rows)
    spellings: dict[str, list[str]] = {}
    for key in values:
        if key not in names:
            names[key] = canonical_name(report, _text(key) or "")
        spellings.setdefault(names[key], []).append(key)
    columns: dict[str, pa.Array[Any]] = {}
    for name, keys in spellings.items():
        if len(keys) == 1:
            columns[name] = _column(values[keys[0]])
            continue
        alternatives = zip(*(map(_text, values[key]) for key in keys), strict=True)
        merged = [list(dict.fromkeys(filter(None, row))) for row in alternatives]
        for n in range(max(1, *map(len, merged))):
            columns[free_name(name, columns)] = _column([row[n] if n < len(row) else None for row in merged])
    return pa.table(columns)


def _by_key(rows: list[dict[str, object]]) -> dict[str, Sequence[object]]:
    shapes = dict.fromkeys(map(tuple, rows))
    if len(shapes) == 1:  # the common case, three times as fast
        return dict(zip(rows[0], zip(*(row.values() for row in rows), strict=True), strict=True))
    return {key: [row.get(key) for row in rows] for key in dict.fromkeys(chain.from_iterable(shapes))}


def _column(values: Sequence[object]) -> "pa.Array[Any]":
    try:
        array = pa.array(values, pa.string())
    except (TypeError, UnicodeEncodeError):  # a value that is not text, or half of a surrogate pair
        array = pa.array([_text(value) for value in values], pa.string())
    filled: pa.Array[Any] = _compute.if_else(_compute.equal(array, ""), None, array)
    return filled


def _text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _canonical(value)


def _canonical(value: object) -> str:
    """JSON with sorted keys, without blanks, and with every number as it was written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, _Digits):
        return value
    return _text(json.dumps(value, ensure_ascii=False)) or ""
