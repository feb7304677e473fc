"""The body of a report to a table of text columns under our names, or a refusal that says why.

The rule: whatever is not the whole report is refused, since a cut-off day looks exactly like a quiet one; whatever is
the whole report is accepted, however it is written. What came back decides, never what was asked for. Asking is
`reports.py`, comparing with earlier pulls is the ledger's.
"""

from pathlib import Path
from typing import Any, Final, Never

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ringcx.columns import COLUMNS, LINK_COLUMN, UII_COLUMN, ReportName, canonical_names, required
from pipelines.ringcx.csv_body import read_csv_body
from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.identity import with_row_identity
from pipelines.ringcx.json_body import read_json_body
from pipelines.ringcx.links import NO_LINK
from pipelines.ringcx.text import NotWholeError

__all__ = ["ReportName", "parse_report", "with_row_identity"]

_compute: Any = pc  # the stubs know few of the argument kinds that the kernels take
_ONLY_JSON: Final[frozenset[ReportName]] = frozenset({"interaction_metadata"})
_LINKS: Final = frozenset({"segment_recording_url", "recording_url", "interaction_recording_location"})
_BLANKS: Final = b" \t\r\n\x0b\x0c"
_BOM: Final = b"\xef\xbb\xbf"


def parse_report(report: ReportName, body: Path, *, framed: bool = True) -> pa.Table:
    """Read a report as CSV or JSON, by its first byte.

    Args:
        report: which report was asked for.
        body: the file that holds the answer; UTF-8, single bytes that are not are read as Windows-1252.
        framed: whether HTTP said where the body ends (length or chunks). A CSV that is not must end in a line break.

    Returns:
        Columns of `pa.string()`: the documented ones in the documented order (null where the report has none), then
        unknown ones under their folded names. Empty is null, in JSON numbers keep their digits, booleans are `true` and
        `false`, nested values canonical JSON. A UII is without its leading apostrophe. A report without rows (a heading
        alone, or `[]`) is a table without rows.

    Raises:
        ReportInvalid: empty, HTML, a JSON error, cut off, a row of another width than the heading, or a column that the
            report cannot do without is missing. The text never holds content.
    """
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
    return _arranged(report, table)


def _first_byte(body: Path) -> bytes:
    with body.open("rb") as file:
        block = file.read(1 << 16).removeprefix(_BOM)
        while block and not block.lstrip(_BLANKS):
            block = file.read(1 << 16)
    return block.lstrip(_BLANKS)[:1]


def _read_csv(report: ReportName, body: Path, *, framed: bool) -> pa.Table:
    headings, table = read_csv_body(body, framed=framed)
    table = table.rename_columns(canonical_names(report, headings))
    _require_columns(report, table)
    return table


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
