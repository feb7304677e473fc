"""Calls as CSV that is safe in a spreadsheet: no cell is a formula."""

import csv
import re
from datetime import date, datetime
from typing import TextIO

import pyarrow as pa

from pipelines.steps.calls.table import SEPARATOR

_BATCH = 1000
# The sign of a formula, also full-width, where a cell begins or begins for who splits at semicolons; spreadsheets skip
# the blanks before it.
_FORMULA = re.compile(r"((?:^|;)[ \n\x0b\x0c\ufeff\xa0]*)(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")


def csv_cell(value: object) -> object:
    """Return a value as a cell, with an apostrophe before text that a spreadsheet could take for a formula."""
    if isinstance(value, list):
        value = SEPARATOR.join(map(str, value))
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'", value.replace("\x00", ""))  # a NUL ends a cell for some
    return value


def write_csv(table: pa.Table, into: TextIO) -> None:
    """Write calls with a heading; open the file with `newline=""`, so that line breaks in notes stay as they are."""
    writer = csv.writer(into, lineterminator="\r\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches(_BATCH):
        writer.writerows([csv_cell(value) for value in row.values()] for row in batch.to_pylist())
