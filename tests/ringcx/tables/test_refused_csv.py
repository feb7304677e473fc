"""A CSV report that is cut off, or is none, is refused."""

from __future__ import annotations

import csv
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.reports.columns import COLUMNS, LINK_COLUMN, ReportName
from tests.ringcx.tables.conftest import (
    AGENT,
    DOCUMENTED_HEADING,
    GCTD,
    ROWS,
    Parse,
    as_csv,
    expected_rows,
    filled,
    parse_body,
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.data())
def test_a_report_cut_at_any_byte_is_refused_or_ends_with_a_whole_row(
    rows: list[list[str]], quoting: Literal[0, 1], data: st.DataObject
) -> None:
    whole = as_csv(["uii", "recording_url", "callNotes", "other"], rows, quoting).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        table = parse_body(GCTD, cut, framed=False)
    except ReportInvalid:
        return
    everything = expected_rows(rows, ["uii", "recording_url", "call_notes", "other"])
    assert filled(table) == everything[: table.num_rows]
    assert cut.endswith((b"\r", b"\n"))


def test_every_single_cut_of_a_nasty_report_is_refused_or_ends_with_a_whole_row(parse: Parse) -> None:
    rows = [["1", 'say "hi"\n', 'a\r\n"b",\n', "é漢"], ["2", "", '"', "\n"], ["3", '"\n"', "x", '""']]
    whole = as_csv(["uii", "recording_url", "callNotes", "other"], rows).encode()
    expected = expected_rows(rows, ["uii", "recording_url", "call_notes", "other"])
    counts = set()
    for end in range(len(whole)):
        try:
            table = parse(GCTD, whole[:end], framed=False)
        except ReportInvalid:
            continue
        assert filled(table) == expected[: table.num_rows]
        counts.add(table.num_rows)
    assert counts == {0, 1, 2, 3}  # three: only the last byte of the last CRLF is missing


@pytest.mark.parametrize("end", ['1,"u', '1,"u\n', '1,"u""\n', '"', '"\n', '1,u\n"2,v\n', '1,u\n2,x"y,"v\n'])
@pytest.mark.parametrize("framed", [True, False])
def test_a_quote_that_is_open_at_the_end_is_refused(parse: Parse, end: str, framed: bool) -> None:
    with pytest.raises(ReportInvalid):
        parse(GCTD, "uii,recording_url\n" + end, framed=framed)


def test_an_open_quote_in_a_body_of_many_blocks_is_refused(parse: Parse) -> None:
    with pytest.raises(ReportInvalid, match="quote is still open"):
        parse(GCTD, 'uii,recording_url\n1,"u\n' + "2,v\n" * 3_000_000)


@pytest.mark.parametrize("body", ["uii,recording_url", "uii,recording_url\n1,u", "uii,recording_url\n1,u\n "])
def test_a_body_without_frame_must_end_in_a_line_break(parse: Parse, body: str) -> None:
    with pytest.raises(ReportInvalid, match="does not end in a line break"):
        parse(GCTD, body, framed=False)


def test_rows_swallowed_by_undoubled_quotes_are_not_lost_in_silence(parse: Parse) -> None:
    body = 'uii,call_notes,recording_url\n1,"great,u\n2,"fine,v\n3,x,w\n'
    with pytest.raises(ReportInvalid, match="rows may be hidden"):
        parse(GCTD, body)


@pytest.mark.parametrize(("row", "width"), [("1", 1), ("1,u,x", 3), ('"2\n",v\n\n3', 1)])
def test_a_row_of_another_width_is_refused_with_its_width(parse: Parse, row: str, width: int) -> None:
    body = f"uii,recording_url\n1,u\n{row}\n"
    with pytest.raises(ReportInvalid, match=f"a row has {width} fields where the heading has 2"):
        parse(GCTD, body)


@pytest.mark.parametrize("cell", ['\0"great\n2,v,y"', '"good"\0"x\n2,v,fine"'])
def test_a_nul_beside_a_stray_quote_hides_no_row(parse: Parse, cell: str) -> None:
    table = parse(GCTD, f"uii,recording_url,call_notes\n1,u,{cell}\n3,w,z\n")
    assert table["uii"].to_pylist() == ["1", "2", "3"]


def test_an_error_said_after_the_first_rows_is_refused(parse: Parse) -> None:
    with pytest.raises(ReportInvalid):
        parse(GCTD, 'uii,recording_url\n1,u\n{"generalMessage": "Internal error", "details": "x", "more": 1}\n')


@pytest.mark.parametrize(
    "body",
    [
        *("", " \r\n\t\n", "\ufeff", "\ufeff\n", "<html><body>Log in</body></html>", "\n <!DOCTYPE html>"),
        *('{"generalMessage": "no"}', "null", '"error"', "123", "Jwt is expired", "Too many requests, try again\n"),
        *("uii\n1\n", "recording_url\nu\n", "uii;recording_url\n1;u\n", "1,u\n2,v\n", '"uii,recording_url\n1,u\n'),
        "x" * 200_000,
    ],
)
@pytest.mark.parametrize("framed", [True, False])
def test_a_body_that_is_no_report_is_refused(parse: Parse, body: str, framed: bool) -> None:
    with pytest.raises(ReportInvalid):
        parse(GCTD, body, framed=framed)


@pytest.mark.parametrize(
    ("report", "missing"), [(AGENT, "uii"), (GCTD, "uii"), (AGENT, LINK_COLUMN[AGENT]), (GCTD, LINK_COLUMN[GCTD])]
)
@pytest.mark.parametrize("rows", [0, 1])
def test_a_report_without_its_uii_or_link_column_is_refused_by_name(
    parse: Parse, report: ReportName, missing: str, rows: int
) -> None:
    heading = [name for name in COLUMNS[report] if name != missing]
    with pytest.raises(ReportInvalid, match=f"the column {missing} is missing"):
        parse(report, as_csv(heading, [["x"] * len(heading)] * rows))


def test_one_report_is_not_taken_for_the_other(parse: Parse) -> None:
    with pytest.raises(ReportInvalid):
        parse(GCTD, DOCUMENTED_HEADING + "\n")


@pytest.mark.parametrize(
    "body",
    [
        *(
            "uii,recording_url\nSECRET,SECRET,SECRET\n",
            'uii,recording_url\n1,"SECRET\n',
            "SECRET,uii\n1,2\n",
            "SECRET",
        ),
        *(
            'uii,recording_url\n1,"SECRET\n"SECRET\n',
            '{"a": "SECRET"}',
            "<p>SECRET",
            '[{"uii": "SECRET", ',
            "[1, SECRET]",
        ),
        *('[{"uii": "1", "recording_url": "SECRET"}] SECRET', '["SECRET"]', '[{"SECRET": 1}]'),
    ],
)
def test_no_refusal_quotes_or_carries_what_the_report_says(parse: Parse, body: str) -> None:
    with pytest.raises(ReportInvalid) as refused:
        parse(GCTD, body)
    assert "SECRET" not in str(refused.value)
    assert refused.value.__context__ is None
    assert refused.value.__cause__ is None
