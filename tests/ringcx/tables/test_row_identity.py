"""Which rows are the same row, and which have changed."""

from __future__ import annotations

import hashlib
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.reports.columns import COLUMNS, LINK_COLUMN, ReportName
from pipelines.ringcx.reports.identity import with_row_identity
from tests.ringcx.tables.conftest import AGENT, DOCUMENTED_HEADING, GCTD, NASTY, REPORTS, Parse, Row, as_csv


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


def test_values_of_very_different_lengths_have_the_hash_of_the_definition() -> None:
    rows: list[Row] = [{"uii": "1", "notes": "n" * length} for length in (1, 9, 10, 5_000, 70_000)]
    assert [digest for _, digest in identity(AGENT, *rows)] == [hash_by_definition(row) for row in rows]


def test_the_definition_of_key_and_hash_is_what_old_ledgers_hold() -> None:
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
def test_the_hash_is_what_its_definition_says(rows: list[Row]) -> None:
    rows = [{"uii": None} | row for row in rows]
    assert {found for _, found in identity(AGENT, *rows)} == {hash_by_definition(row) for row in rows}


def test_neither_the_order_of_columns_nor_an_empty_column_changes_a_hash() -> None:
    row: Row = {"uii": "1", "session_id": "2", "ani": "3"}
    assert identity(AGENT, row) == identity(AGENT, dict(reversed(row.items())) | {"new": None})


def test_what_stands_in_which_column_is_part_of_the_hash() -> None:
    rows: list[Row] = [
        {"uii": "1", "a": "x", "b": None},
        {"uii": "1", "a": None, "b": "x"},
        {"uii": "1", "a": "x1:b,1:x,", "b": None},
    ]
    rows.append({"uii": "1", "a": "x", "b": "x"})
    assert len({found for _, found in identity(AGENT, *rows)}) == 4


def test_equal_rows_are_one_row() -> None:
    row: Row = {"uii": "1", "session_id": "2"}
    assert identity(AGENT, row, row | {"session_id": "3"}, row) == identity(AGENT, row, row | {"session_id": "3"})


def test_rows_that_share_a_key_are_numbered_in_the_order_of_their_hashes_whatever_their_own_order() -> None:
    rows: list[Row] = [{"uii": "1", "session_id": "2", "ani": str(n)} for n in range(5)]
    found = identity(AGENT, *rows, {"uii": "9", "session_id": "2"})
    assert found[-1][0] == "15300002|9|2"
    assert sorted(found[:-1], key=lambda pair: pair[1]) == sorted(found[:-1])
    assert {key for key, _ in found[:-1]} == {f"15300002|1|2#{n}" for n in range(1, 6)}
    assert dict(identity(AGENT, *reversed(rows))) == dict(found[:-1])


def test_rows_without_a_uii_have_keys_too() -> None:
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
def test_no_two_rows_ever_share_a_key(rows: list[Row]) -> None:
    rows = [{name: value or None for name, value in row.items()} for row in rows]
    if rows:
        found = identity(AGENT, *rows)
        assert len({key for key, _ in found}) == len(found) == len({frozenset(row.items()) for row in rows})


@pytest.mark.parametrize("report", REPORTS)
def test_an_empty_table_gets_the_columns_too(parse: Parse, report: ReportName) -> None:
    table = with_row_identity(report, parse(report, "uii," + LINK_COLUMN[report]), "1")
    assert table.num_rows == 0
    assert table.column_names == ["row_key", "row_hash", *COLUMNS[report]]
    assert table.schema.field("row_key").type == table.schema.field("row_hash").type == pa.string()


def test_identity_does_not_depend_on_how_the_table_is_cut_into_blocks(parse: Parse) -> None:
    rows = [[str(n % 30_000), "u", "x" * 90, str(n % 40_000)] for n in range(80_000)]
    table = parse(GCTD, as_csv(["uii", "recording_url", "callNotes", "ani"], rows))
    assert table["uii"].num_chunks > 1
    whole = with_row_identity(GCTD, table.combine_chunks(), "1")
    assert with_row_identity(GCTD, table, "1").equals(whole)


def test_a_hundred_thousand_rows_are_read_and_identified_in_seconds(parse: Parse) -> None:
    rows = [[f"20200828131938013212{n:010}", str(n % 3), *["some text"] * 27, f"https://x/{n}"] for n in range(100_000)]
    body = as_csv(DOCUMENTED_HEADING.split(","), [[row[2], row[0], row[1], *row[3:]] for row in rows])
    started = time.process_time()
    table = with_row_identity(AGENT, parse(AGENT, body), "1")
    assert table.num_rows == 100_000
    assert time.process_time() - started < 10  # 1.5 s on a quiet machine; csv and a loop over rows take 15 s
