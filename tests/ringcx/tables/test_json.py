"""A JSON report becomes its rows or is refused."""

from __future__ import annotations

import codecs
import io
import json
import re
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.links import NO_LINK
from pipelines.ringcx.reports.columns import COLUMNS
from pipelines.ringcx.reports.tables import parse_report
from tests.ringcx.tables.conftest import AGENT, GCTD, NASTY, TEXT, Parse, bare, filled, parse_body

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
def test_every_value_of_a_json_report_is_kept_as_text(rows: list[dict[str, object]], ascii_only: bool) -> None:
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


def test_numbers_keep_their_digits_also_inside_nested_values(parse: Parse) -> None:
    body = (
        '[{"uii": 202004221359490132050000000001, "recordingUrl": true, "callDuration": 1.50, "queueTime": 1E2,'
        ' "jsonResult": {"b": [1.0, 12345678901234567890, null, false], "a": "\\u00e9"}}]'
    )
    assert filled(parse(GCTD, body)) == [
        {"uii": "202004221359490132050000000001", "recording_url": "true", "call_duration": "1.50"}
        | {"queue_time": "1E2", "json_result": '{"a":"é","b":[1.0,12345678901234567890,null,false]}'}
    ]


def test_a_number_of_thousands_of_digits_stops_no_report(parse: Parse) -> None:
    table = parse(GCTD, f'[{{"uii": "1", "recordingUrl": "u", "callNotes": {"9" * 5_000}}}]')
    assert table["call_notes"].to_pylist() == ["9" * 5_000]


def test_an_empty_array_is_a_quiet_day(parse: Parse) -> None:
    for body in ("[]", " \ufeff [ ]\n".strip(), "\n[\n]\n"):
        table = parse(GCTD, body)
        assert table.num_rows == 0
        assert table.column_names == list(COLUMNS[GCTD])


def test_both_reports_may_come_as_json(parse: Parse) -> None:
    table = parse(AGENT, '[{"UII": "\'1", "Segment Recording URL": "u", "Account ID": 7}]')
    assert filled(table) == [{"uii": "1", "segment_recording_url": "u", "report_account_id": "7"}]


@pytest.mark.parametrize("row", ['{"uii": null, "uii": "2", "recordingUrl": "v"}', '{"UII": "2", "recordingUrl": "v"}'])
def test_a_row_keeps_its_call_under_the_second_spelling_of_its_key(parse: Parse, row: str) -> None:
    table = parse(GCTD, f'[{{"uii": "1", "recordingUrl": "u"}}, {row}]')
    assert table["uii"].to_pylist() == ["1", "2"]


def test_the_second_spelling_of_a_column_gets_a_number_over_all_batches(parse: Parse) -> None:
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
def test_a_key_that_comes_twice_loses_no_link(parse: Parse, cells: str, links: str) -> None:
    (row,) = parse(GCTD, f'[{{"uii": "1", {cells}}}]').to_pylist()
    assert (row["uii"], row["recording_url"]) == ("1", links)


def test_a_nested_key_that_comes_twice_is_kept(parse: Parse) -> None:
    (row,) = parse(GCTD, '[{"uii": "1", "recordingUrl": "u", "jsonResult": {"a": 1, "a": 2}}]').to_pylist()
    assert sorted(json.loads(row["json_result"]).values()) == [1, 2]


def test_half_a_surrogate_pair_and_raw_line_breaks_cost_no_report(parse: Parse) -> None:
    table = parse(GCTD, '[{"uii": "1", "recordingUrl": "u", "callNotes": "a\\ud83d b\nc"}]')
    assert table["call_notes"].to_pylist() == ["a\ufffd b\nc"]


def test_rows_over_many_reads_and_batches_come_in_order(parse: Parse) -> None:
    rows = [{"uii": str(n), "recordingUrl": "u", "callNotes": "x" * (n % 7 * 100)} for n in range(11_000)]
    rows[5_000]["onlyHere"] = "y"
    rows[7] = {"uii": "7", "recordingUrl": "u", "callNotes": "é" * 3_000_000}
    table = parse(GCTD, json.dumps(rows))
    assert table["uii"].to_pylist() == [str(n) for n in range(11_000)]
    assert table["onlyhere"].null_count == 10_999
    assert len(table["call_notes"][7].as_py()) == 3_000_000


def test_every_cut_of_a_json_report_is_refused(parse: Parse) -> None:
    whole = json.dumps([{"uii": "1", "recordingUrl": "]"}, {"uii": "2", "recordingUrl": "é", "callNotes": {"a": [1]}}])
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
def test_json_that_is_no_report_is_refused(parse: Parse, body: str) -> None:
    with pytest.raises(ReportInvalid):
        parse(GCTD, body)


def test_a_utf_8_mark_and_bytes_that_are_no_utf_8_cost_no_report(parse: Parse) -> None:
    table = parse(GCTD, codecs.BOM_UTF8 + b'[{"uii": "1", "recordingUrl": "caf\xe9"}]')
    assert table["recording_url"].to_pylist() == ["café"]


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
