"""A whole CSV report becomes its rows, with nothing added and nothing lost."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.links import links_in
from pipelines.ringcx.reports.columns import COLUMNS, LINK_COLUMN, ReportName
from tests.ringcx.tables.conftest import (
    GCTD,
    LINKS,
    REPORTS,
    ROWS,
    Parse,
    as_csv,
    expected_rows,
    filled,
    parse_body,
    read_blocks,
)


@settings(max_examples=250, deadline=None)
@given(
    ROWS,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["", "\ufeff", "\n\r\n"]),
    st.booleans(),
)
def test_whatever_the_csv_module_writes_is_read_back(
    rows: list[list[str]], quoting: Literal[0, 1], start: str, framed: bool
) -> None:
    text = start + as_csv(["uii", "recording_url", "callNotes", "Other One"], rows, quoting)
    names = ["uii", "recording_url", "call_notes", "otherone"]
    table = parse_body(GCTD, text, framed=framed)
    assert filled(table) == expected_rows(rows, names)
    assert all(field.type == pa.string() for field in table.schema)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(150, 500))
def test_the_size_of_the_blocks_that_are_read_never_matters(rows: list[list[str]], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "body")
        path.write_bytes(as_csv(["a", "b", "c", "d"], rows).encode())
        headings, table = read_blocks(path, size)
    assert headings == ["a", "b", "c", "d"]
    assert [[cell or "" for cell in row.values()] for row in table.to_pylist()] == rows


def test_a_line_break_of_two_bytes_may_fall_between_two_blocks(tmp_path: Path) -> None:
    body = tmp_path / "body"
    text = "x\r\ny\r\n\r\r\n"
    body.write_bytes(b"a,b,c\r\n" + f'1,"{text}",3\r\n12,xyz,3\r\n'.encode() * 3)
    for size in range(60, 200):  # pyarrow loses the LF, or all that follows
        table = read_blocks(body, size)[1]
        assert table["1"].to_pylist() == [text, "xyz"] * 3


def test_a_nul_is_dropped_and_parts_no_row_at_the_end_of_a_block(tmp_path: Path) -> None:
    body = tmp_path / "body"
    rows = [["w", "", "", ""]] * 4 + [["", 'total,"ax\n', "", ""], ["", "y", "'", ""]]
    body.write_bytes(as_csv(["a", "b", "c", "d"], rows).encode().replace(b"total", b"total\0"))
    for size in range(40, 80):
        table = read_blocks(body, size)[1]
        assert [[cell or "" for cell in row.values()] for row in table.to_pylist()] == rows


@settings(max_examples=100, deadline=None)
@given(st.text('ab",\n\r', max_size=40), st.booleans())
def test_any_scribble_is_read_as_the_csv_module_reads_it_or_refused(scribble: str, framed: bool) -> None:
    text = "uii,recording_url\n" + scribble
    try:
        table = parse_body(GCTD, text, framed=framed)
    except ReportInvalid:
        return
    # Lines of another width that hold nothing but separators and quotes are blank ones.
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    rows = [row for row in rows if len(row) == 2 or "".join(row).strip(', "\r\n')]
    assert filled(table) == expected_rows(rows, ["uii", "recording_url"])


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n", "\n\n"])
@pytest.mark.parametrize("last", [True, False])
def test_rows_may_end_in_any_line_break_and_the_last_in_none(parse: Parse, ending: str, last: bool) -> None:
    body = ending.join(["uii,recording_url", "1,u", "2,v"]) + (ending if last else "")
    assert parse(GCTD, body)["uii"].to_pylist() == ["1", "2"]


def test_blank_lines_are_no_rows_but_a_row_of_empty_fields_is_one(parse: Parse) -> None:
    assert parse(GCTD, "\nuii,recording_url\n\n1,u\n\n,\n\n").num_rows == 2


def test_a_quote_inside_a_field_that_does_not_start_with_one_is_text(parse: Parse) -> None:
    table = parse(GCTD, 'uii,recording_url,call_notes\n1,u,a 5" pipe\n2,v,"x"\n')
    assert table["call_notes"].to_pylist() == ['a 5" pipe', "x"]


def test_undoubled_quotes_on_one_line_cost_no_report(parse: Parse) -> None:
    table = parse(GCTD, 'uii,recording_url,call_notes\n1,u,"great" service\n2,v,fine\n')
    assert table["uii"].to_pylist() == ["1", "2"]


def test_an_empty_field_is_null_also_in_quotes_and_words_for_nothing_are_words(parse: Parse) -> None:
    table = parse(GCTD, 'uii,recording_url,ani,dnis\n1,"",NA,null\n2,,nan,#N/A\n')
    assert table["recording_url"].to_pylist() == [None, None]
    assert table["ani"].to_pylist() == ["NA", "nan"]
    assert table["dnis"].to_pylist() == ["null", "#N/A"]


def test_one_leading_apostrophe_of_a_uii_is_dropped_and_no_other(parse: Parse) -> None:
    table = parse(GCTD, "uii,recording_url,call_notes\n'1,u,'quoted'\n''2,v,\n',w,\n3,x,\n")
    assert table["uii"].to_pylist() == ["1", "'2", None, "3"]
    assert table["call_notes"].to_pylist() == ["'quoted'", None, None, None]


@pytest.mark.parametrize("text", ["Not Recorded", "20200718-1.WAV", "yes"])
@pytest.mark.parametrize("names", ["Recording URL,recording_url", "recording_url,Recording URL"])
def test_what_is_no_address_in_the_other_spelling_spoils_no_link(parse: Parse, names: str, text: str) -> None:
    for cells in (f"{LINKS[0]},{text}", f"{text},{LINKS[0]}"):
        (cell,) = parse(GCTD, f"uii,{names}\n1,{cells}\n")["recording_url"].to_pylist()
        assert LINKS[0] in links_in(cell)


def test_blanks_around_a_uii_make_no_other_call_of_it(parse: Parse) -> None:
    assert parse(GCTD, "uii,recording_url\n 'A1 ,u\nA1\t,v\n")["uii"].to_pylist() == ["A1", "A1"]


@pytest.mark.parametrize(
    "body",
    [
        (
            "uii,Recording URL,recording_url\n"
            f"1,{LINKS[0]},\n2,null,{LINKS[1]}\n3,{LINKS[0]},{LINKS[1]}\n4,{LINKS[0]},{LINKS[0]}\n"
        ),
        json.dumps(
            [
                {"uii": "1", "recordingUrl": LINKS[0]},
                {"uii": "2", "recordingUrl": "null", "recording_url": LINKS[1]},
                {"uii": "3", "recordingUrl": LINKS[0], "recording_url": LINKS[1]},
                {"uii": "4", "recordingUrl": LINKS[0], "recording_url": LINKS[0]},
            ]
        ),
    ],
    ids=["csv", "json"],
)
def test_a_link_column_that_comes_in_two_spellings_loses_no_link(parse: Parse, body: str) -> None:
    links = parse(GCTD, body)["recording_url"].to_pylist()
    assert [links_in(cell) for cell in links] == [[LINKS[0]], [LINKS[1]], [LINKS[0], LINKS[1]], [LINKS[0]]]


@pytest.mark.parametrize("report", REPORTS)
def test_a_heading_without_rows_is_an_empty_table(parse: Parse, report: ReportName) -> None:
    table = parse(report, f"uii,{LINK_COLUMN[report]}")
    assert table.num_rows == 0
    assert table.column_names == list(COLUMNS[report])


def test_a_row_of_a_megabyte_is_read_and_a_much_longer_one_refused(parse: Parse) -> None:
    body = 'uii,recording_url,call_notes\n1,u,x\n2,v,"' + "long\n" * 200_000 + '"\n3,w,y\n'
    assert [len(note) for note in parse(GCTD, body)["call_notes"].to_pylist()] == [1, 1_000_000, 1]
    with pytest.raises(ReportInvalid, match="a row is longer than 2 MiB"):
        parse(GCTD, body.replace("long", "x" * 40))


def test_bytes_that_are_no_utf_8_are_windows_1252_and_change_nothing_beside_them(parse: Parse) -> None:
    body = "uii,recording_url,call_notes\n1,u,漢 é".encode() + b" caf\xe9 \x93x\x94 \x81\n" + "2,v,Zoë\n".encode()
    assert parse(GCTD, body)["call_notes"].to_pylist() == ["漢 é café “x” \x81", "Zoë"]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=30).filter(lambda noise: not set(noise) & set(b'",\r\n')))
def test_no_bytes_in_a_field_cost_the_report(noise: bytes) -> None:
    table = parse_body(GCTD, b"uii,recording_url,call_notes\n1,u,x" + noise + b"\n2,v,y\n")
    assert table["uii"].to_pylist() == ["1", "2"]
    assert table["call_notes"][1].as_py() == "y"
