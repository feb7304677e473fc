import codecs
import csv
import hashlib
import io
import json
import re
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.links import NO_LINK, links_in
from pipelines.ringcx.reports import csv_body
from pipelines.ringcx.reports.columns import (
    COLUMNS,
    LEDGER_COLUMNS,
    LINK_COLUMN,
    ReportName,
    canonical_name,
    canonical_names,
)
from pipelines.ringcx.reports.csv_body import read_csv_body
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.tables import parse_report

Row = dict[str, str | None]
Parse = Callable[..., pa.Table]

AGENT: Literal["agent_segment_metadata"] = "agent_segment_metadata"
GCTD: Literal["global_call_type_detail"] = "global_call_type_detail"
REPORTS: tuple[ReportName, ...] = (AGENT, GCTD)

DOCUMENTED_HEADING = (
    "Account ID,UII,Session ID,ANI,DNIS,Call Type,Agent ID,Agent Login ID,Agent First Name,Agent Last Name,"
    "Agent Username,Product Type,Product ID,Product Name,Enqueue Dts,Dequeue Dts,Queue Duration,Start Dts,End Dts,"
    "Duration,Wrap Time,Dial Dts,Dial Duration,Hold Duration,Agent Wait Duration,Term Party,Term Reason,"
    "Agent Disposition,Segment Recording File Name,Segment Recording URL"
)
DOCUMENTED_FIELDS = [
    "uii",
    "sourceType",
    "sourceGroupId",
    "sourceGroupName",
    "sourceId",
    "sourceName",
    "sourceDescription",
    "ani",
    "dnis",
    "callStatus",
    "callResult",
    "queueTime",
    "callDuration",
    "callTermParty",
    "callTermReason",
    "billingCode",
    "callNotes",
    "connectId",
    "connectedName",
    "connectedRoute",
    "connectedDuration",
    "connectedDisposition",
    "finalDisposition",
    "connectedTermParty",
    "connectedTermReason",
    "connectedExternId",
    "recordingUrl",
    "dialType",
    "jsonResult",
    "callStartDts",
    "callEndDts",
    "connectedDts",
]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NASTY = st.one_of(
    TEXT, st.text("\",\r\n \t'é漢", max_size=8), st.sampled_from(["NA", "null", "nan", "0012", "true", "-"])
)
ROWS = st.lists(st.lists(NASTY, min_size=4, max_size=4), max_size=8)


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    def parse_bytes(report: ReportName, body: bytes | str, *, framed: bool = True) -> pa.Table:
        return parse_body(report, body, framed=framed, folder=tmp_path)

    return parse_bytes


def parse_body(report: ReportName, body: bytes | str, *, framed: bool = True, folder: Path | None = None) -> pa.Table:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "body")
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        with path.open("rb") as file:
            return parse_report(report, file, framed=framed)


def read_blocks(path: Path, size: int) -> tuple[list[str], pa.Table]:
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_body, "BLOCK_BYTES", size)
        headings, table, _ = read_csv_body(file, framed=False)
    return headings, table


def as_csv(heading: Sequence[str], rows: Sequence[Sequence[str]], quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def filled(table: pa.Table) -> list[Row]:
    """The rows without their empty columns."""
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


LINKS = [f"https://c01-recordings.vacd.biz/api?file=1/{name}.WAV" for name in "ab"]


def bare(uii: str) -> str:
    return re.sub(r"\A[ \t\r\n\f]*'?[ \t\r\n\f]*|[ \t\r\n\f]+\Z", "", uii)


def expected_rows(rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[Row]:
    found = []
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        cells["uii"] = bare(cells["uii"])
        if re.match(NO_LINK, cells["recording_url"]):
            cells["recording_url"] = ""
        found.append({name: value for name, value in cells.items() if value})
    return found


class TestNames:
    def test_the_documented_csv_heading_gives_exactly_the_documented_columns(self, parse: Parse) -> None:
        assert parse(AGENT, DOCUMENTED_HEADING + "\n").column_names == list(COLUMNS[AGENT])

    def test_the_documented_json_fields_give_exactly_the_documented_columns(self) -> None:
        assert canonical_names(GCTD, DOCUMENTED_FIELDS) == list(COLUMNS[GCTD])

    @pytest.mark.parametrize(
        "heading", ["recording_url", "recordingUrl", "Recording URL", " RECORDING-URL ", "\ufeffrecording_url"]
    )
    def test_case_blanks_underscores_and_hyphens_in_a_heading_do_not_matter(self, parse: Parse, heading: str) -> None:
        assert parse(GCTD, f"uii,{heading}\n1,u\n")["recording_url"].to_pylist() == ["u"]

    def test_documented_columns_are_always_there_and_unknown_ones_follow_under_folded_names(self, parse: Parse) -> None:
        table = parse(GCTD, "New Column,uii,recording_url\nx,1,u\n")
        assert table.column_names == [*COLUMNS[GCTD], "newcolumn"]
        assert table["ani"].null_count == 1

    def test_the_second_of_two_equal_headings_gets_a_number(self, parse: Parse) -> None:
        table = parse(GCTD, "uii,recording_url,Foo Bar,foo_bar,FOOBAR,ani,ANI,\n1,u,a,b,c,d,e,f\n")
        assert filled(table) == [
            {"uii": "1", "recording_url": "u", "foobar": "a", "foobar_2": "b", "foobar_3": "c"}
            | {"ani": "d", "ani_2": "e", "unnamed": "f"}
        ]

    @pytest.mark.parametrize("name", LEDGER_COLUMNS)
    @pytest.mark.parametrize("report", REPORTS)
    def test_a_column_named_like_one_of_the_ledger_s_own_is_kept_apart(self, report: ReportName, name: str) -> None:
        assert canonical_name(report, name.replace("_", " ").title()) == f"report_{name}"

    @given(st.lists(TEXT, max_size=8))
    def test_names_are_never_equal_never_empty_and_never_the_ledger_s(self, headings: list[str]) -> None:
        names = canonical_names(AGENT, headings)
        assert len(set(names)) == len(headings)
        assert all(names)
        assert not set(names) & set(LEDGER_COLUMNS)


class TestWholeCsv:
    @settings(max_examples=250, deadline=None)
    @given(
        ROWS,
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        st.sampled_from(["", "\ufeff", "\n\r\n"]),
        st.booleans(),
    )
    def test_whatever_the_csv_module_writes_is_read_back(
        self, rows: list[list[str]], quoting: Literal[0, 1], start: str, framed: bool
    ) -> None:
        text = start + as_csv(["uii", "recording_url", "callNotes", "Other One"], rows, quoting)
        names = ["uii", "recording_url", "call_notes", "otherone"]
        table = parse_body(GCTD, text, framed=framed)
        assert filled(table) == expected_rows(rows, names)
        assert all(field.type == pa.string() for field in table.schema)

    @settings(max_examples=100, deadline=None)
    @given(ROWS, st.integers(150, 500))
    def test_the_size_of_the_blocks_that_are_read_never_matters(self, rows: list[list[str]], size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "body")
            path.write_bytes(as_csv(["a", "b", "c", "d"], rows).encode())
            headings, table = read_blocks(path, size)
        assert headings == ["a", "b", "c", "d"]
        assert [[cell or "" for cell in row.values()] for row in table.to_pylist()] == rows

    def test_a_line_break_of_two_bytes_may_fall_between_two_blocks(self, tmp_path: Path) -> None:
        body = tmp_path / "body"
        text = "x\r\ny\r\n\r\r\n"
        body.write_bytes(b"a,b,c\r\n" + f'1,"{text}",3\r\n12,xyz,3\r\n'.encode() * 3)
        for size in range(60, 200):  # pyarrow loses the LF, or all that follows
            table = read_blocks(body, size)[1]
            assert table["1"].to_pylist() == [text, "xyz"] * 3

    def test_a_nul_is_dropped_and_parts_no_row_at_the_end_of_a_block(self, tmp_path: Path) -> None:
        body = tmp_path / "body"
        rows = [["w", "", "", ""]] * 4 + [["", 'total,"ax\n', "", ""], ["", "y", "'", ""]]
        body.write_bytes(as_csv(["a", "b", "c", "d"], rows).encode().replace(b"total", b"total\0"))
        for size in range(40, 80):
            table = read_blocks(body, size)[1]
            assert [[cell or "" for cell in row.values()] for row in table.to_pylist()] == rows

    @settings(max_examples=100, deadline=None)
    @given(st.text('ab",\n\r', max_size=40), st.booleans())
    def test_any_scribble_is_read_as_the_csv_module_reads_it_or_refused(self, scribble: str, framed: bool) -> None:
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
    def test_rows_may_end_in_any_line_break_and_the_last_in_none(self, parse: Parse, ending: str, last: bool) -> None:
        body = ending.join(["uii,recording_url", "1,u", "2,v"]) + (ending if last else "")
        assert parse(GCTD, body)["uii"].to_pylist() == ["1", "2"]

    def test_blank_lines_are_no_rows_but_a_row_of_empty_fields_is_one(self, parse: Parse) -> None:
        assert parse(GCTD, "\nuii,recording_url\n\n1,u\n\n,\n\n").num_rows == 2

    def test_a_quote_inside_a_field_that_does_not_start_with_one_is_text(self, parse: Parse) -> None:
        table = parse(GCTD, 'uii,recording_url,call_notes\n1,u,a 5" pipe\n2,v,"x"\n')
        assert table["call_notes"].to_pylist() == ['a 5" pipe', "x"]

    def test_undoubled_quotes_on_one_line_cost_no_report(self, parse: Parse) -> None:
        table = parse(GCTD, 'uii,recording_url,call_notes\n1,u,"great" service\n2,v,fine\n')
        assert table["uii"].to_pylist() == ["1", "2"]

    def test_an_empty_field_is_null_also_in_quotes_and_words_for_nothing_are_words(self, parse: Parse) -> None:
        table = parse(GCTD, 'uii,recording_url,ani,dnis\n1,"",NA,null\n2,,nan,#N/A\n')
        assert table["recording_url"].to_pylist() == [None, None]
        assert table["ani"].to_pylist() == ["NA", "nan"]
        assert table["dnis"].to_pylist() == ["null", "#N/A"]

    def test_one_leading_apostrophe_of_a_uii_is_dropped_and_no_other(self, parse: Parse) -> None:
        table = parse(GCTD, "uii,recording_url,call_notes\n'1,u,'quoted'\n''2,v,\n',w,\n3,x,\n")
        assert table["uii"].to_pylist() == ["1", "'2", None, "3"]
        assert table["call_notes"].to_pylist() == ["'quoted'", None, None, None]

    @pytest.mark.parametrize("text", ["Not Recorded", "20200718-1.WAV", "yes"])
    @pytest.mark.parametrize("names", ["Recording URL,recording_url", "recording_url,Recording URL"])
    def test_what_is_no_address_in_the_other_spelling_spoils_no_link(self, parse: Parse, names: str, text: str) -> None:
        for cells in (f"{LINKS[0]},{text}", f"{text},{LINKS[0]}"):
            (cell,) = parse(GCTD, f"uii,{names}\n1,{cells}\n")["recording_url"].to_pylist()
            assert LINKS[0] in links_in(cell)

    def test_blanks_around_a_uii_make_no_other_call_of_it(self, parse: Parse) -> None:
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
    def test_a_link_column_that_comes_in_two_spellings_loses_no_link(self, parse: Parse, body: str) -> None:
        links = parse(GCTD, body)["recording_url"].to_pylist()
        assert [links_in(cell) for cell in links] == [[LINKS[0]], [LINKS[1]], [LINKS[0], LINKS[1]], [LINKS[0]]]

    @pytest.mark.parametrize("report", REPORTS)
    def test_a_heading_without_rows_is_an_empty_table(self, parse: Parse, report: ReportName) -> None:
        table = parse(report, f"uii,{LINK_COLUMN[report]}")
        assert table.num_rows == 0
        assert table.column_names == list(COLUMNS[report])

    def test_a_row_of_a_megabyte_is_read_and_a_much_longer_one_refused(self, parse: Parse) -> None:
        body = 'uii,recording_url,call_notes\n1,u,x\n2,v,"' + "long\n" * 200_000 + '"\n3,w,y\n'
        assert [len(note) for note in parse(GCTD, body)["call_notes"].to_pylist()] == [1, 1_000_000, 1]
        with pytest.raises(ReportInvalid, match="a row is longer than 2 MiB"):
            parse(GCTD, body.replace("long", "x" * 40))

    def test_bytes_that_are_no_utf_8_are_windows_1252_and_change_nothing_beside_them(self, parse: Parse) -> None:
        body = "uii,recording_url,call_notes\n1,u,漢 é".encode() + b" caf\xe9 \x93x\x94 \x81\n" + "2,v,Zoë\n".encode()
        assert parse(GCTD, body)["call_notes"].to_pylist() == ["漢 é café “x” \x81", "Zoë"]

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=30).filter(lambda noise: not set(noise) & set(b'",\r\n')))
    def test_no_bytes_in_a_field_cost_the_report(self, noise: bytes) -> None:
        table = parse_body(GCTD, b"uii,recording_url,call_notes\n1,u,x" + noise + b"\n2,v,y\n")
        assert table["uii"].to_pylist() == ["1", "2"]
        assert table["call_notes"][1].as_py() == "y"


class TestCutOffCsv:
    @settings(max_examples=150, deadline=None)
    @given(ROWS, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.data())
    def test_a_report_cut_at_any_byte_is_refused_or_ends_with_a_whole_row(
        self, rows: list[list[str]], quoting: Literal[0, 1], data: st.DataObject
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

    def test_every_single_cut_of_a_nasty_report_is_refused_or_ends_with_a_whole_row(self, parse: Parse) -> None:
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
    def test_a_quote_that_is_open_at_the_end_is_refused(self, parse: Parse, end: str, framed: bool) -> None:
        with pytest.raises(ReportInvalid):
            parse(GCTD, "uii,recording_url\n" + end, framed=framed)

    def test_an_open_quote_in_a_body_of_many_blocks_is_refused(self, parse: Parse) -> None:
        with pytest.raises(ReportInvalid, match="quote is still open"):
            parse(GCTD, 'uii,recording_url\n1,"u\n' + "2,v\n" * 3_000_000)

    @pytest.mark.parametrize("body", ["uii,recording_url", "uii,recording_url\n1,u", "uii,recording_url\n1,u\n "])
    def test_a_body_without_frame_must_end_in_a_line_break(self, parse: Parse, body: str) -> None:
        with pytest.raises(ReportInvalid, match="does not end in a line break"):
            parse(GCTD, body, framed=False)

    def test_rows_swallowed_by_undoubled_quotes_are_not_lost_in_silence(self, parse: Parse) -> None:
        body = 'uii,call_notes,recording_url\n1,"great,u\n2,"fine,v\n3,x,w\n'
        with pytest.raises(ReportInvalid, match="rows may be hidden"):
            parse(GCTD, body)


class TestRefusedCsv:
    @pytest.mark.parametrize(("row", "width"), [("1", 1), ("1,u,x", 3), ('"2\n",v\n\n3', 1)])
    def test_a_row_of_another_width_is_refused_with_its_width(self, parse: Parse, row: str, width: int) -> None:
        body = f"uii,recording_url\n1,u\n{row}\n"
        with pytest.raises(ReportInvalid, match=f"a row has {width} fields where the heading has 2"):
            parse(GCTD, body)

    @pytest.mark.parametrize("cell", ['\0"great\n2,v,y"', '"good"\0"x\n2,v,fine"'])
    def test_a_nul_beside_a_stray_quote_hides_no_row(self, parse: Parse, cell: str) -> None:
        table = parse(GCTD, f"uii,recording_url,call_notes\n1,u,{cell}\n3,w,z\n")
        assert table["uii"].to_pylist() == ["1", "2", "3"]

    def test_an_error_said_after_the_first_rows_is_refused(self, parse: Parse) -> None:
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
    def test_a_body_that_is_no_report_is_refused(self, parse: Parse, body: str, framed: bool) -> None:
        with pytest.raises(ReportInvalid):
            parse(GCTD, body, framed=framed)

    @pytest.mark.parametrize(
        ("report", "missing"), [(AGENT, "uii"), (GCTD, "uii"), (AGENT, LINK_COLUMN[AGENT]), (GCTD, LINK_COLUMN[GCTD])]
    )
    @pytest.mark.parametrize("rows", [0, 1])
    def test_a_report_without_its_uii_or_link_column_is_refused_by_name(
        self, parse: Parse, report: ReportName, missing: str, rows: int
    ) -> None:
        heading = [name for name in COLUMNS[report] if name != missing]
        with pytest.raises(ReportInvalid, match=f"the column {missing} is missing"):
            parse(report, as_csv(heading, [["x"] * len(heading)] * rows))

    def test_one_report_is_not_taken_for_the_other(self, parse: Parse) -> None:
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
    def test_no_refusal_quotes_or_carries_what_the_report_says(self, parse: Parse, body: str) -> None:
        with pytest.raises(ReportInvalid) as refused:
            parse(GCTD, body)
        assert "SECRET" not in str(refused.value)
        assert refused.value.__context__ is None
        assert refused.value.__cause__ is None


JSON_VALUES = st.one_of(
    NASTY,
    st.none(),
    st.booleans(),
    st.integers(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(TEXT, TEXT, max_size=2),
)


def as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class TestJson:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.fixed_dictionaries(
                {"recordingUrl": JSON_VALUES}, optional={"uii": TEXT, "callNotes": JSON_VALUES, "Own": JSON_VALUES}
            ),
            max_size=6,
        ),
        st.booleans(),
    )
    def test_every_value_of_a_json_report_is_kept_as_text(
        self, rows: list[dict[str, object]], ascii_only: bool
    ) -> None:
        rows = [{"uii": "1", "recordingUrl": "u"}, *rows]
        names = {"uii": "uii", "recordingUrl": "recording_url", "callNotes": "call_notes", "Own": "own"}
        table = parse_body(GCTD, json.dumps(rows, ensure_ascii=ascii_only, indent=None if ascii_only else 1))
        expected = [{names[key]: text for key, value in row.items() if (text := as_text(value))} for row in rows]
        for row in expected:
            if uii := bare(row.pop("uii", "")):
                row["uii"] = uii
            if re.match(NO_LINK, row.get("recording_url", "")):
                row.pop("recording_url", None)
        assert filled(table) == expected
        assert all(field.type == pa.string() for field in table.schema)

    def test_numbers_keep_their_digits_also_inside_nested_values(self, parse: Parse) -> None:
        body = (
            '[{"uii": 202004221359490132050000000001, "recordingUrl": true, "callDuration": 1.50, "queueTime": 1E2,'
            ' "jsonResult": {"b": [1.0, 12345678901234567890, null, false], "a": "\\u00e9"}}]'
        )
        assert filled(parse(GCTD, body)) == [
            {"uii": "202004221359490132050000000001", "recording_url": "true", "call_duration": "1.50"}
            | {"queue_time": "1E2", "json_result": '{"a":"é","b":[1.0,12345678901234567890,null,false]}'}
        ]

    def test_a_number_of_thousands_of_digits_stops_no_report(self, parse: Parse) -> None:
        table = parse(GCTD, f'[{{"uii": "1", "recordingUrl": "u", "callNotes": {"9" * 5_000}}}]')
        assert table["call_notes"].to_pylist() == ["9" * 5_000]

    def test_an_empty_array_is_a_quiet_day(self, parse: Parse) -> None:
        for body in ("[]", " \ufeff [ ]\n".strip(), "\n[\n]\n"):
            table = parse(GCTD, body)
            assert table.num_rows == 0
            assert table.column_names == list(COLUMNS[GCTD])

    def test_both_reports_may_come_as_json(self, parse: Parse) -> None:
        table = parse(AGENT, '[{"UII": "\'1", "Segment Recording URL": "u", "Account ID": 7}]')
        assert filled(table) == [{"uii": "1", "segment_recording_url": "u", "report_account_id": "7"}]

    @pytest.mark.parametrize(
        "row", ['{"uii": null, "uii": "2", "recordingUrl": "v"}', '{"UII": "2", "recordingUrl": "v"}']
    )
    def test_a_row_keeps_its_call_under_the_second_spelling_of_its_key(self, parse: Parse, row: str) -> None:
        table = parse(GCTD, f'[{{"uii": "1", "recordingUrl": "u"}}, {row}]')
        assert table["uii"].to_pylist() == ["1", "2"]

    def test_the_second_spelling_of_a_column_gets_a_number_over_all_batches(self, parse: Parse) -> None:
        rows = [{"uii": str(n), "recordingUrl": "u", ("callNotes", "call_notes")[n % 2]: str(n)} for n in range(3_000)]
        table = parse(GCTD, json.dumps(rows))
        assert table["call_notes"].to_pylist()[:3] == ["0", None, "2"]
        assert table["call_notes_2"].to_pylist()[-2:] == [None, "2999"]

    @pytest.mark.parametrize(
        ("cells", "links"),
        [
            ('"recordingUrl": "https://a/1.WAV", "recordingUrl": null', "https://a/1.WAV"),
            ('"recordingUrl": null, "recordingUrl": "https://a/1.WAV"', "https://a/1.WAV"),
            (
                '"recordingUrl": "https://a/1.WAV", "recordingUrl": "https://a/2.WAV"',
                "https://a/1.WAV https://a/2.WAV",
            ),
            ('"recordingUrl": "https://a/1.WAV", "recordingUrl": "", "recording_url": "no"', "https://a/1.WAV"),
        ],
    )
    def test_a_key_that_comes_twice_loses_no_link(self, parse: Parse, cells: str, links: str) -> None:
        (row,) = parse(GCTD, f'[{{"uii": "1", {cells}}}]').to_pylist()
        assert (row["uii"], row["recording_url"]) == ("1", links)

    def test_a_nested_key_that_comes_twice_is_kept(self, parse: Parse) -> None:
        (row,) = parse(GCTD, '[{"uii": "1", "recordingUrl": "u", "jsonResult": {"a": 1, "a": 2}}]').to_pylist()
        assert sorted(json.loads(row["json_result"]).values()) == [1, 2]

    def test_half_a_surrogate_pair_and_raw_line_breaks_cost_no_report(self, parse: Parse) -> None:
        table = parse(GCTD, '[{"uii": "1", "recordingUrl": "u", "callNotes": "a\\ud83d b\nc"}]')
        assert table["call_notes"].to_pylist() == ["a\ufffd b\nc"]

    def test_rows_over_many_reads_and_batches_come_in_order(self, parse: Parse) -> None:
        rows = [{"uii": str(n), "recordingUrl": "u", "callNotes": "x" * (n % 7 * 100)} for n in range(11_000)]
        rows[5_000]["onlyHere"] = "y"
        rows[7] = {"uii": "7", "recordingUrl": "u", "callNotes": "é" * 3_000_000}
        table = parse(GCTD, json.dumps(rows))
        assert table["uii"].to_pylist() == [str(n) for n in range(11_000)]
        assert table["onlyhere"].null_count == 10_999
        assert len(table["call_notes"][7].as_py()) == 3_000_000

    def test_every_cut_of_a_json_report_is_refused(self, parse: Parse) -> None:
        whole = json.dumps(
            [{"uii": "1", "recordingUrl": "]"}, {"uii": "2", "recordingUrl": "é", "callNotes": {"a": [1]}}]
        )
        for end in range(len(whole)):
            with pytest.raises(ReportInvalid):
                parse(GCTD, whole[:end])
        assert parse(GCTD, whole).num_rows == 2

    @pytest.mark.parametrize(
        "body",
        [
            *("[1]", "[null]", '["uii"]', "[[]]", "[{}]", "[,]", '[{"uii": "1"}]', '[{"recordingUrl": "u"}]', "[] []"),
            *(
                '[{"uii": "1", "recordingUrl": "u"}',
                '[{"uii": "1", "recordingUrl": "u"},]',
                '[{"uii": "1", "recordingUrl": "u"}] x',
            ),
            *(
                '[{"uii": "1", "recordingUrl": "u"} {"uii": "2"}]',
                '[{"uii": "1" "recordingUrl": "u"}]',
                '[{"generalMessage": "no"}]',
            ),
            '[{"uii": "1", "recordingUrl": ' + "[" * 100_000,
        ],
    )
    def test_json_that_is_no_report_is_refused(self, parse: Parse, body: str) -> None:
        with pytest.raises(ReportInvalid):
            parse(GCTD, body)

    def test_a_utf_8_mark_and_bytes_that_are_no_utf_8_cost_no_report(self, parse: Parse) -> None:
        table = parse(GCTD, codecs.BOM_UTF8 + b'[{"uii": "1", "recordingUrl": "caf\xe9"}]')
        assert table["recording_url"].to_pylist() == ["café"]


def table_of(*rows: Row) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})


def identity(report: ReportName, *rows: Row, account_id: str = "15300002") -> list[tuple[str, str]]:
    table = with_row_identity(report, table_of(*rows), account_id)
    return list(zip(table["row_key"].to_pylist(), table["row_hash"].to_pylist(), strict=True))


def hash_by_definition(row: Row) -> str:
    text = b""
    for name in sorted(row):
        value = row[name]
        if value is not None:
            for part in (name.encode(), value.encode()):
                text += f"{len(part)}:".encode() + part + b","
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class TestIdentity:
    def test_values_of_very_different_lengths_have_the_hash_of_the_definition(self) -> None:
        rows: list[Row] = [{"uii": "1", "notes": "n" * length} for length in (1, 9, 10, 5_000, 70_000)]
        assert [digest for _, digest in identity(AGENT, *rows)] == [hash_by_definition(row) for row in rows]

    def test_the_definition_of_key_and_hash_is_what_old_ledgers_hold(self) -> None:
        row: Row = {"uii": "202008281319380132120000030797", "session_id": "2", "agent_disposition": 'Zoë, "ok"\n'}
        assert identity(AGENT, row) == [
            ("15300002|202008281319380132120000030797|2", "5ff21b48ce5f33afa7edbebc11b7d400"),
        ]
        call: Row = {
            "uii": "202004221359490132050000000001",
            "source_type": "GATE",
            "source_id": "7",
            "connect_id": None,
        }
        assert identity(GCTD, call | {"connected_dts": "2020-04-22T13:59:49.000+0000"}) == [
            (
                "15300002|202004221359490132050000000001|GATE|7||2020-04-22T13:59:49.000+0000",
                "4af1c0bc0fe89ba470e8f7d98d710970",
            ),
        ]

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.dictionaries(st.sampled_from(["uii", "session_id", "ani", "é", "a b"]), st.none() | NASTY.filter(bool)),
            min_size=1,
            max_size=6,
        )
    )
    def test_the_hash_is_what_its_definition_says(self, rows: list[Row]) -> None:
        rows = [{"uii": None} | row for row in rows]
        assert {found for _, found in identity(AGENT, *rows)} == {hash_by_definition(row) for row in rows}

    def test_neither_the_order_of_columns_nor_an_empty_column_changes_a_hash(self) -> None:
        row: Row = {"uii": "1", "session_id": "2", "ani": "3"}
        assert identity(AGENT, row) == identity(AGENT, dict(reversed(row.items())) | {"new": None})

    def test_what_stands_in_which_column_is_part_of_the_hash(self) -> None:
        rows: list[Row] = [
            {"uii": "1", "a": "x", "b": None},
            {"uii": "1", "a": None, "b": "x"},
            {"uii": "1", "a": "x1:b,1:x,", "b": None},
        ]
        rows.append({"uii": "1", "a": "x", "b": "x"})
        assert len({found for _, found in identity(AGENT, *rows)}) == 4

    def test_equal_rows_are_one_row(self) -> None:
        row: Row = {"uii": "1", "session_id": "2"}
        assert identity(AGENT, row, row | {"session_id": "3"}, row) == identity(AGENT, row, row | {"session_id": "3"})

    def test_rows_that_share_a_key_are_numbered_in_the_order_of_their_hashes_whatever_their_own_order(self) -> None:
        rows: list[Row] = [{"uii": "1", "session_id": "2", "ani": str(n)} for n in range(5)]
        found = identity(AGENT, *rows, {"uii": "9", "session_id": "2"})
        assert found[-1][0] == "15300002|9|2"
        assert sorted(found[:-1], key=lambda pair: pair[1]) == sorted(found[:-1])
        assert {key for key, _ in found[:-1]} == {f"15300002|1|2#{n}" for n in range(1, 6)}
        assert dict(identity(AGENT, *reversed(rows))) == dict(found[:-1])

    def test_rows_without_a_uii_have_keys_too(self) -> None:
        found = identity(AGENT, {"uii": None, "ani": "1"}, {"uii": None, "ani": "2"})
        assert [key for key, _ in found] == [f"15300002||{row_hash}" for _, row_hash in found]

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "uii": st.none() | st.text("1|#%2", max_size=4),
                    "session_id": st.none() | st.text("1|#%2", max_size=4),
                    "ani": st.sampled_from(["x", "y"]),
                }
            ),
            max_size=12,
        )
    )
    def test_no_two_rows_ever_share_a_key(self, rows: list[Row]) -> None:
        rows = [{name: value or None for name, value in row.items()} for row in rows]
        if rows:
            found = identity(AGENT, *rows)
            assert len({key for key, _ in found}) == len(found) == len({frozenset(row.items()) for row in rows})

    @pytest.mark.parametrize("report", REPORTS)
    def test_an_empty_table_gets_the_columns_too(self, parse: Parse, report: ReportName) -> None:
        table = with_row_identity(report, parse(report, "uii," + LINK_COLUMN[report]), "1")
        assert table.num_rows == 0
        assert table.column_names == ["row_key", "row_hash", *COLUMNS[report]]
        assert table.schema.field("row_key").type == table.schema.field("row_hash").type == pa.string()

    def test_identity_does_not_depend_on_how_the_table_is_cut_into_blocks(self, parse: Parse) -> None:
        rows = [[str(n % 30_000), "u", "x" * 90, str(n % 40_000)] for n in range(80_000)]
        table = parse(GCTD, as_csv(["uii", "recording_url", "callNotes", "ani"], rows))
        assert table["uii"].num_chunks > 1
        whole = with_row_identity(GCTD, table.combine_chunks(), "1")
        assert with_row_identity(GCTD, table, "1").equals(whole)

    def test_a_hundred_thousand_rows_are_read_and_identified_in_seconds(self, parse: Parse) -> None:
        rows = [
            [f"20200828131938013212{n:010}", str(n % 3), *["some text"] * 27, f"https://x/{n}"] for n in range(100_000)
        ]
        body = as_csv(DOCUMENTED_HEADING.split(","), [[row[2], row[0], row[1], *row[3:]] for row in rows])
        started = time.process_time()
        table = with_row_identity(AGENT, parse(AGENT, body), "1")
        assert table.num_rows == 100_000
        assert time.process_time() - started < 10  # 1.5 s on a quiet machine; csv and a loop over rows take 15 s


def test_a_long_json_report_takes_less_python_memory_than_thrice_its_text() -> None:
    values = ({f"column{at}": f"{n} of {at}" for at in range(12)} for n in range(20_000))
    rows = [{"uii": str(n), "recordingUrl": None, **more} for n, more in enumerate(values)]
    body = io.BytesIO(json.dumps(rows).encode())
    tracemalloc.start()
    table = parse_report(GCTD, body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table["uii"].to_pylist() == [str(n) for n in range(20_000)]
    assert most < 3 * body.seek(0, io.SEEK_END)
