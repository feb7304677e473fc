"""Reader of a JSON body into a table of text: all of it or nothing.

Numbers keep their digits (`1.50` is not `1.5`), and nested values become canonical JSON text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any, Final

import pyarrow as pa

from pipelines.ringcx.reports.charset import NotWholeError, text_of
from pipelines.ringcx.reports.columns import ReportName, canonical_name, free_name

_BATCH_ROWS: Final = 1_000
_SEPARATOR: Final = re.compile(r"[ \t\r\n]*([\[,\]])?[ \t\r\n]*")


class _Digits(str):
    """A number as it was written, in which a hash of 0.1.0 has it too; without quotes inside nested JSON."""

    __slots__ = ()


def read_json_body(report: ReportName, body: IO[bytes]) -> pa.Table:
    """Read a JSON array of objects in UTF-8 into text columns with canonical names; null and absent are null.

    The second spelling of a column (`recordingUrl`, `recording_url`) or of a row's key gets the suffix `_2`. Raises
    NotWholeError if the body is cut off, has trailing text, is nested too deeply, or lists anything but objects.
    """
    try:
        with text_of(body) as file:
            rows = _rows(file.read())
        # Rows as Python objects take four times as much memory as their text.
        batches = iter(lambda: list(islice(rows, _BATCH_ROWS)), [])
        names: dict[str, str] = {}
        tables = [_table(report, batch, names) for batch in batches]
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    except (ValueError, RecursionError):
        problem = "the array is cut off, a value is nested too deep, or it is not valid JSON"
    raise NotWholeError(problem)  # outside `except`: the error's context holds the report


def _rows(text: str) -> Iterator[dict[str, object]]:
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits, strict=False
    )
    separator, at = _separator(text, 0)
    if text.startswith("]", at):
        separator, at = _separator(text, at)
    while separator in {"[", ","}:
        row, at = decoder.raw_decode(text, at)
        if not isinstance(row, dict) or not row:
            raise NotWholeError("an element of the array is empty, or not an object")
        yield row
        separator, at = _separator(text, at)
    if separator != "]":
        raise NotWholeError("the array is cut off or not valid JSON")
    if at < len(text):
        raise NotWholeError("there is unexpected data after the array")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}  # a key that comes twice keeps both values, as two spellings of it: the last alone may be null
    for key, value in pairs:
        spelling = key
        while spelling in found:
            spelling += "_"
        found[spelling] = value
    return found


def _separator(text: str, at: int) -> tuple[str, int]:
    """Return the bracket or comma that follows, if any, and where the text after it begins."""
    found = _SEPARATOR.match(text, at)
    return (found[1] or "", found.end()) if found else ("", at)


def _table(report: ReportName, rows: Sequence[dict[str, object]], names: dict[str, str]) -> pa.Table:
    """Return a batch of rows as a table, and add the columns that are new to `names`, by the source's keys."""
    for key in dict.fromkeys(chain.from_iterable(rows)):
        if key not in names:
            name = canonical_name(report, _as_text(key) or "")
            names[key] = free_name(name, names.values())
    columns = {name: _column([row.get(key) for row in rows]) for key, name in names.items()}
    return pa.table(columns)


def _column(values: Sequence[object]) -> "pa.Array[Any]":
    try:
        return pa.array(values, pa.string())
    except (TypeError, UnicodeEncodeError):  # a value that is not text, or half of a surrogate pair
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _canonical(value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _canonical(value: object) -> str:
    """Return JSON with sorted keys, no blanks, and every number as it was written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return value if isinstance(value, _Digits) else json.dumps(value, ensure_ascii=False)
