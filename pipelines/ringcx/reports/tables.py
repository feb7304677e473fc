"""The body of a report to a table of text columns under our names, or a refusal that says why.

The rule: whatever is not the whole report is refused, since a cut-off day looks exactly like a quiet one; whatever is
the whole report is accepted, however it is written. What came back decides, never what was asked for. Asking is
`reports.py`, comparing with earlier pulls is the ledger's.
"""

import codecs
import re
import shutil
from pathlib import Path
from typing import Any, Final, Never

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.links import NO_LINK
from pipelines.ringcx.reports.columns import COLUMNS, LINK_COLUMN, UII_COLUMN, ReportName, canonical_names, required
from pipelines.ringcx.reports.csv_body import TOTALS, read_csv_body
from pipelines.ringcx.reports.encoding import NotWholeError
from pipelines.ringcx.reports.json_body import read_json_body

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_ONLY_JSON: Final[frozenset[ReportName]] = frozenset({"interaction_metadata"})
_LINKS: Final = frozenset({"segment_recording_url", "recording_url", "interaction_recording_location"})
_BLANKS: Final = b" \t\r\n\x0b\x0c"
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (  # that of UTF-32 begins as that of UTF-16 does
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
# `="0012"` keeps a spreadsheet from reading a number.
_GUARD: Final = re.compile('(?s)^="(.*)"$')
_SKIPPED: Final = b"lines_skipped"


def parse_report(report: ReportName, body: Path, *, framed: bool = True) -> pa.Table:
    """Read a report as CSV or JSON, by its first byte.

    Args:
        report: which report was asked for.
        body: the file that holds the answer; UTF-8, single bytes that are not are read as Windows-1252. One in UTF-16
            or UTF-32 is written again next to it, as UTF-8.
        framed: whether HTTP said where the body ends (length or chunks). A CSV that is not must end in a line break.

    Returns:
        Columns of `pa.string()`: the documented ones in the documented order (null where the report has none), then
        unknown ones under their folded names. Empty is null, in JSON numbers keep their digits, booleans are `true` and
        `false`, nested values canonical JSON. A UII is without its leading apostrophe, a CSV's value without `="…"`,
        which keep spreadsheets from reading numbers. Words for no link are null. A report without rows (a heading
        alone, or `[]`) is a table without rows. Blank lines and totals of a CSV are no rows: see `lines_skipped`.

    Raises:
        ReportInvalid: empty, HTML, a JSON error, cut off, a row of another width than the heading, or a column that the
            report cannot do without is missing. The text never holds content.
    """
    body = _as_utf8(report, body)
    start = _first_byte(body)
    if not start:
        _refuse(report, "the body is empty")
    if start == b"<":
        _refuse(report, "the body is HTML or XML")
    if start == b"{":
        _refuse(report, "the body is a JSON object, as errors are")
    if start != b"[" and report in _ONLY_JSON:
        _refuse(report, "the body is no JSON")
    problem = ""
    try:
        table = _read_json(report, body) if start == b"[" else _read_csv(report, body, framed=framed)
    except NotWholeError as error:
        problem = str(error)
    if problem:
        _refuse(report, problem)
    return _arranged(report, table).replace_schema_metadata({_SKIPPED: str(lines_skipped(table))})


def lines_skipped(table: pa.Table) -> int:
    """Return how many lines of the report were no rows, of a table as `parse_report` gives it."""
    return int((table.schema.metadata or {}).get(_SKIPPED, 0))


def _as_utf8(report: ReportName, body: Path) -> Path:
    with body.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in _WIDE if start.startswith(mark)), "")
    if not encoding and 0 in start[:2]:  # without a mark, as the first character of a report is ASCII
        encoding = "utf-16-be" if start[0] == 0 else "utf-16-le"
    if not encoding:
        return body
    plain = body.with_name(f"{body.name}.utf-8")
    try:
        with body.open(encoding=encoding, newline="") as wide, plain.open("w", encoding="utf-8", newline="") as file:
            shutil.copyfileobj(wide, file)
    except UnicodeError:
        cut_off = True
    else:
        cut_off = False
    if cut_off:  # not within `except`: the error holds content
        _refuse(report, f"its {encoding.upper()} is cut off or damaged")
    return plain


def _first_byte(body: Path) -> bytes:
    with body.open("rb") as file:
        block = file.read(1 << 16).removeprefix(_BOM)
        while block and not block.lstrip(_BLANKS):
            block = file.read(1 << 16)
    return block.lstrip(_BLANKS)[:1]


def _read_csv(report: ReportName, body: Path, *, framed: bool) -> pa.Table:
    headings, table, skipped = read_csv_body(body, framed=framed)
    names = canonical_names(report, (_GUARD.sub(r"\1", heading) for heading in headings))
    table = _without_guards(table.rename_columns(names))
    _require_columns(report, table)
    rows = _without_totals(table, LINK_COLUMN[report])
    return rows.replace_schema_metadata({_SKIPPED: str(skipped + table.num_rows - rows.num_rows)})


def _without_guards(table: pa.Table) -> pa.Table:
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if _compute.any(_compute.starts_with(column, '="'), min_count=0).as_py():
            plain = _compute.replace_substring_regex(column, _GUARD.pattern, r"\1")
            table = table.set_column(place, name, _compute.if_else(_compute.equal(plain, ""), None, plain))
    return table


def _without_totals(table: pa.Table, link: str) -> pa.Table:
    """Leave out last lines that begin as totals do and have no link."""
    left = table.num_rows
    while left:
        (row,) = table.slice(left - 1, 1).to_pylist()
        first = next(iter(row.values())) or ""
        if row[link] or not TOTALS.match(first):
            break
        left -= 1
    return table.slice(0, left)


def _read_json(report: ReportName, body: Path) -> pa.Table:
    table = read_json_body(report, body)
    if table.num_rows:
        _require_columns(report, table)
    return table


def _require_columns(report: ReportName, table: pa.Table) -> None:
    missing = [name for name in required(report) if name not in table.column_names]
    # Messages have no recording, so a source that leaves nulls out has nothing to say of one; others name the file.
    if missing == [LINK_COLUMN["interaction_metadata"]] and (_is_digital(table) or _LINKS & set(table.column_names)):
        return
    if missing:
        _refuse(report, f"the column {' and the column '.join(missing)} is missing")


def _is_digital(table: pa.Table) -> bool:
    if "channel_class" not in table.column_names:
        return False
    digital: bool | None = _compute.all(_compute.equal(table["channel_class"], "DIGITAL"), skip_nulls=False).as_py()
    return digital is True


def _arranged(report: ReportName, table: pa.Table) -> pa.Table:
    absent = pa.nulls(table.num_rows, pa.string())
    columns: dict[str, Any] = dict.fromkeys(COLUMNS[report], absent)
    columns |= {name: table[name] for name in table.column_names}
    # The source guards a UII against spreadsheets with an apostrophe; with and without it is the same call.
    uii = UII_COLUMN[report]
    bare = _compute.replace_substring_regex(columns[uii], "^'", "")
    columns[uii] = _compute.if_else(_compute.equal(bare, ""), None, bare)
    for name in _LINKS.intersection(columns):
        columns[name] = _compute.if_else(_compute.match_substring_regex(columns[name], NO_LINK), None, columns[name])
    return pa.table(columns)


def _refuse(report: ReportName, problem: str) -> Never:
    raise ReportInvalid(
        f"The answer to {report} is not the whole report: {problem}; run the date again, and if it stays so look at "
        "the same report in the RingCX administration."
    )
