"""Which column a heading or a field becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.reports.columns import COLUMNS, LEDGER_COLUMNS, ReportName, canonical_name, canonical_names
from tests.ringcx.tables.conftest import AGENT, DOCUMENTED_HEADING, GCTD, REPORTS, TEXT, Parse, filled

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


def test_the_documented_csv_heading_gives_exactly_the_documented_columns(parse: Parse) -> None:
    assert parse(AGENT, DOCUMENTED_HEADING + "\n").column_names == list(COLUMNS[AGENT])


def test_the_documented_json_fields_give_exactly_the_documented_columns() -> None:
    assert canonical_names(GCTD, DOCUMENTED_FIELDS) == list(COLUMNS[GCTD])


@pytest.mark.parametrize(
    "heading", ["recording_url", "recordingUrl", "Recording URL", " RECORDING-URL ", "\ufeffrecording_url"]
)
def test_case_blanks_underscores_and_hyphens_in_a_heading_do_not_matter(parse: Parse, heading: str) -> None:
    assert parse(GCTD, f"uii,{heading}\n1,u\n")["recording_url"].to_pylist() == ["u"]


def test_documented_columns_are_always_there_and_unknown_ones_follow_under_folded_names(parse: Parse) -> None:
    table = parse(GCTD, "New Column,uii,recording_url\nx,1,u\n")
    assert table.column_names == [*COLUMNS[GCTD], "newcolumn"]
    assert table["ani"].null_count == 1


def test_the_second_of_two_equal_headings_gets_a_number(parse: Parse) -> None:
    table = parse(GCTD, "uii,recording_url,Foo Bar,foo_bar,FOOBAR,ani,ANI,\n1,u,a,b,c,d,e,f\n")
    assert filled(table) == [
        {"uii": "1", "recording_url": "u", "foobar": "a", "foobar_2": "b", "foobar_3": "c"}
        | {"ani": "d", "ani_2": "e", "unnamed": "f"}
    ]


@pytest.mark.parametrize("name", LEDGER_COLUMNS)
@pytest.mark.parametrize("report", REPORTS)
def test_a_column_named_like_one_of_the_ledger_s_own_is_kept_apart(report: ReportName, name: str) -> None:
    assert canonical_name(report, name.replace("_", " ").title()) == f"report_{name}"


@given(st.lists(TEXT, max_size=8))
def test_names_are_never_equal_never_empty_and_never_the_ledger_s(headings: list[str]) -> None:
    names = canonical_names(AGENT, headings)
    assert len(set(names)) == len(headings)
    assert all(names)
    assert not set(names) & set(LEDGER_COLUMNS)
