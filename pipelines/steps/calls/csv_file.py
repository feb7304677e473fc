"""Calls as CSV that a spreadsheet may open: no cell is a formula."""

from __future__ import annotations

import csv
from datetime import date, datetime
from typing import TextIO

import pyarrow as pa

from pipelines.steps.calls.table import SEPARATOR

_BATCH = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: object) -> object:
    """Return a value as a cell. A text that a spreadsheet could take for a formula gets a leading apostrophe."""
    if isinstance(value, list):
        value = SEPARATOR.join(map(str, value))
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, str):
        # Excel skips what comes before the sign; a NUL ends a cell for some.
        text = value.replace("\x00", "")
        return f"'{text}" if text.lstrip(" \n\x0b\x0c\ufeff").startswith(_FORMULA) else text
    return value


def write_csv(table: pa.Table, into: TextIO) -> None:
    """Write calls with a heading; open the file with `newline=""`, so that line breaks in notes stay as they are."""
    writer = csv.writer(into, lineterminator="\r\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches(_BATCH):
        writer.writerows([csv_cell(value) for value in row.values()] for row in batch.to_pylist())
