"""Reader of a report's body into a table of text columns with canonical names; a body that is not whole is refused.

Only a whole report is accepted, since a cut-off day looks exactly like a quiet one. Its format does not matter: what
came back decides, never what was requested.
"""

import codecs
import re
from itertools import chain
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.errors import NotAReport
from pipelines.ringcx.links import NO_LINK, links_in
from pipelines.ringcx.reports.charset import NotWholeError, as_utf8
from pipelines.ringcx.reports.columns import COLUMNS, LINK_COLUMN, UII_COLUMN, ReportName, canonical_names, required
from pipelines.ringcx.reports.csv_body import TOTALS, read_csv_body
from pipelines.ringcx.reports.identity import KEY_COLUMNS
from pipelines.ringcx.reports.json_body import read_json_body

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_LINKS: Final = frozenset({"segment_recording_url", "recording_url", "interaction_recording_location"})
_RECORDING: Final = r"(?i)^\s*https?://\S+/recordings/?\?(\S*&)?file="
_IS_ADDRESS: Final = re.compile(r"(?i)\s*https?://").match
# `="0012"` keeps a spreadsheet from reading a number.
_GUARD: Final = re.compile('(?s)^="(.*)"$')
_SKIPPED: Final = b"lines_skipped"


def parse_report(report: ReportName, body: IO[bytes], *, framed: bool = True) -> pa.Table:
    """Read a report as CSV or JSON, depending on its first byte.

    `body` is in UTF-8 or UTF-16; bytes that are not UTF-8 are read as Windows-1252. `framed`: whether HTTP marked its
    end (length or chunks). If not, a CSV must end in a line break.

    Returns:
        Columns of `pa.string()`: the documented ones in the documented order (null where the report has none), then
        unknown ones under their folded names. Empty is null, in JSON numbers keep their digits, booleans are `true` and
        `false`, nested values canonical JSON. A UII is without its leading apostrophe, a CSV's value without `="…"`,
        which keep spreadsheets from reading numbers. Words for no link are null. A report without rows (a heading
        alone, or `[]`) is a table without rows. Blank lines and totals of a CSV are not rows: see `lines_skipped`.

    Raises:
        NotAReport: the body is empty, HTML, a JSON error or cut off, a row and the heading differ in width, or a
            required column is missing. The text never holds content.
    """
    try:
        with as_utf8(body) as text:
            return _read(report, text, framed=framed)
    except NotWholeError as error:
        problem = str(error)
    raise NotAReport(  # outside `except`: the error's context may hold content of the report
        f"The response to {report} is not the whole report: {problem}; run the date again, and if this persists, look "
        "at the same report in the RingCX admin console."
    )


def lines_skipped(table: pa.Table) -> int:
    """Return how many lines of the report were not rows; `table` comes from `parse_report`."""
    return int((table.schema.metadata or {}).get(_SKIPPED, 0))


def _read(report: ReportName, body: IO[bytes], *, framed: bool) -> pa.Table:
    body.seek(0)
    start = body.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if problem := {b"": "empty", b"<": "HTML or XML", b"{": "a JSON object, as errors are"}.get(start):
        raise NotWholeError(f"the body is {problem}")
    if start == b"[":
        table = read_json_body(report, body)
        if table.num_rows:
            _require_columns(report, table)
        return _arranged(report, table)
    if report == "interaction_metadata":
        raise NotWholeError("the body is not JSON")
    headings, table, skipped = read_csv_body(body, framed=framed)
    names = canonical_names(report, (_GUARD.sub(r"\1", heading) for heading in headings))
    table = _without_guards(table.rename_columns(names))
    _require_columns(report, table)
    rows = _without_totals(table, LINK_COLUMN[report])
    skipped += table.num_rows - rows.num_rows
    return _arranged(report, rows).replace_schema_metadata({_SKIPPED: str(skipped)})


def _require_columns(report: ReportName, table: pa.Table) -> None:
    missing = [name for name in required(report) if name not in table.column_names]
    if missing == [LINK_COLUMN["interaction_metadata"]]:
        # Messages have no recording, so a source that omits nulls omits the column; others name the file.
        columns = set(table.column_names)
        if _LINKS & columns or ("channel_class" in columns and set(table["channel_class"].to_pylist()) == {"DIGITAL"}):
            return
    if missing:
        raise NotWholeError(f"the column {' and the column '.join(missing)} is missing")


def _without_guards(table: pa.Table) -> pa.Table:
    for index, name in enumerate(table.column_names):
        column = table.column(index)
        if _compute.any(_compute.starts_with(column, '="')).as_py():
            table = table.set_column(index, name, _compute.replace_substring_regex(column, _GUARD.pattern, r"\1"))
    return table


def _without_totals(table: pa.Table, link: str) -> pa.Table:
    """Return the table without its last lines that begin like totals and have no link, in whichever column."""
    count = table.num_rows
    while count:
        (row,) = table.slice(count - 1, 1).to_pylist()
        cells = [cell or "" for cell in row.values()]
        if row[link] or not TOTALS.match(cells[0]) or any("://" in cell for cell in cells):
            break
        count -= 1
    return table.slice(0, count)


def _arranged(report: ReportName, table: pa.Table) -> pa.Table:
    """Return the documented columns, then the others; placeholders are null."""
    absent = pa.nulls(table.num_rows, pa.string())
    columns: dict[str, Any] = dict.fromkeys(COLUMNS[report], absent)
    columns |= {name: table[name] for name in table.column_names}
    # The source guards a UII against spreadsheets with an apostrophe; with and without it is the same call.
    uii = UII_COLUMN[report]
    columns[uii] = _compute.replace_substring_regex(columns[uii], r"^\s*'?\s*|\s+$", "")
    for name, column in columns.items():
        empty = _compute.match_substring_regex(column, NO_LINK) if name in _LINKS else _compute.equal(column, "")
        columns[name] = _compute.if_else(empty, None, column)
    _merge_spellings(report, columns)
    return pa.table(columns)


def _merge_spellings(report: ReportName, columns: dict[str, Any]) -> None:
    """Merge into one column what came twice, in two spellings or under a new name: links, flags and a row's key."""
    unknown = columns.keys() - {*COLUMNS[report]}
    with_links = {name for name in unknown if _has_links(columns[name])}
    keys = {UII_COLUMN[report], *KEY_COLUMNS[report]}
    for name in (_LINKS | {LINK_COLUMN[report]} | keys) & columns.keys():
        others = [other for other in columns if re.fullmatch(f"{name}_[0-9]+", other)]
        if name == LINK_COLUMN[report] and name in _LINKS:
            others += sorted(with_links - {*others})
        if not others:
            continue
        spellings = [columns[spelling].to_pylist() for spelling in (name, *others)]
        if name in _LINKS:
            merged = map(_in_one_cell, *spellings)
        elif name in keys:
            merged = map(_first, *spellings)
        else:
            merged = map(_as_one_flag, *spellings)
        columns[name] = pa.array(merged, pa.string())


def _has_links(column: Any) -> bool:  # noqa: ANN401 - the stubs know few kinds of arrays
    return bool(_compute.any(_compute.match_substring_regex(column, _RECORDING)).as_py())


def _first(*values: str | None) -> str | None:
    return next(filter(None, values), None)


def _as_one_flag(*flags: str | None) -> str | None:
    """Return the flags of a row as one text; two that differ mean neither yes nor no."""
    return " ".join(dict.fromkeys(filter(None, flags))) or None


def _in_one_cell(own: str | None, *others: str | None) -> str | None:
    """Return a row's links as one cell that holds several; of `others` only addresses count."""
    links = dict.fromkeys([*links_in(own), *filter(_IS_ADDRESS, chain.from_iterable(map(links_in, others)))])
    # A link ends where the next address begins: text that is not an address comes first.
    return " ".join(sorted(links, key=lambda link: _IS_ADDRESS(link) is not None)) or None
