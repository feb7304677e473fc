"""Reader of a JSON body into a table of text: all of it or nothing.

Numbers keep their digits (an id of 19 digits does not fit a float), and nested values become canonical JSON text.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import IO, Any, Final

import pyarrow as pa

from pipelines.ringcx.reports.charset import NotWholeError, text_of
from pipelines.ringcx.reports.columns import ReportName, canonical_name, free_name

MAX_BYTES: Final = 2 << 30  # its text is in memory; a million rows have half of that
_BATCH_ROWS: Final = 1_000
_SPELLED: Final = str.maketrans("01", "-_")
_SEPARATOR: Final = re.compile(r"[ \t\r\n]*([\[,\]])?[ \t\r\n]*")


class _Digits(str):
    """A number with its digits as they were written; a string, but without quotes inside nested JSON."""

    __slots__ = ()


def read_json_body(report: ReportName, body: IO[bytes]) -> pa.Table:
    """Read a JSON array of objects in UTF-8 into text columns with canonical names; null and absent are null.

    Two spellings of one column (`recordingUrl`, `recording_url`), and a key that comes twice, are one column; a row
    that has both with different values keeps the second under the suffix `_2`.

    Raises:
        NotWholeError: the body is cut off, has trailing text, is nested too deeply or too long, or has a non-object.
    """
    if body.seek(0, os.SEEK_END) > MAX_BYTES:
        raise NotWholeError(f"it is longer than {MAX_BYTES >> 30} GiB")
    try:
        with text_of(body) as file:
            rows = _rows(file.read())
        # Rows as Python objects take four times as much memory as their text.
        batches = iter(lambda: list(islice(rows, _BATCH_ROWS)), [])
        tables = [_table(report, batch) for batch in batches]
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    except json.JSONDecodeError:
        problem = "the array is cut off or not valid JSON"
    except RecursionError:
        problem = "a value is nested too deep, or the array is cut off or not valid JSON"
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
        if not isinstance(row, dict):
            raise NotWholeError("an element of the array is not an object")
        if not row:
            raise NotWholeError("an element of the array is empty")
        yield row
        separator, at = _separator(text, at)
    if separator != "]":
        raise NotWholeError("the array is cut off or not valid JSON")
    if at < len(text):
        raise NotWholeError("there is unexpected data after the array")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object with the values of repeated keys: a dict would keep only the last, which may be null."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for number, (key, value) in enumerate(pairs):
        # Hyphens and underscores make it another spelling of the same column (`columns.fold`).
        found[key if key not in found else key + f"{number:b}".translate(_SPELLED)] = value
    return found


def _separator(text: str, at: int) -> tuple[str, int]:
    """Return the bracket or comma that follows, if any, and where the text after it begins."""
    found = _SEPARATOR.match(text, at)
    return (found[1] or "", found.end()) if found else ("", at)


def _table(report: ReportName, rows: Sequence[dict[str, object]]) -> pa.Table:
    spellings: dict[str, list[str]] = {}
    for key in dict.fromkeys(chain.from_iterable(rows)):
        spellings.setdefault(canonical_name(report, _as_text(key) or ""), []).append(key)
    columns: dict[str, pa.Array[Any]] = {}
    for name, keys in spellings.items():
        if len(keys) == 1:
            columns[name] = _column([row.get(keys[0]) for row in rows])
            continue
        values = [_distinct_texts(row, keys) for row in rows]
        for n in range(max(1, *map(len, values))):
            columns[free_name(name, columns)] = _column([row[n] if n < len(row) else None for row in values])
    return pa.table(columns)


def _distinct_texts(row: dict[str, object], keys: Sequence[str]) -> list[str]:
    texts = (_as_text(row.get(key)) for key in keys)
    return list(dict.fromkeys(text for text in texts if text))


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
    """Return JSON with sorted keys, no blanks, and every number as it was written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, _Digits):
        return value
    return _as_text(json.dumps(value, ensure_ascii=False)) or ""
