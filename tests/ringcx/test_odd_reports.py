"""Reports as other programs write them: whole ones are read, and what is no row is counted."""

import codecs
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.ringcx.errors import ReportInvalid
from pipelines.ringcx.reports.columns import ReportName, canonical_name
from pipelines.ringcx.reports.tables import lines_skipped, parse_report

GCTD: ReportName = "global_call_type_detail"
META: ReportName = "interaction_metadata"
HEADING = "uii,call_start_dts,recording_url,call_notes\r\n"
ROW = "202611171200000001,2026-11-17 12:00:00,https://x.example/?file=a.WAV,naïve\r\n"
CSV = HEADING + ROW


def parse(tmp_path: Path, body: str | bytes, report: ReportName = GCTD, *, framed: bool = True) -> pa.Table:
    path = tmp_path / "body"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    with path.open("rb") as file:
        return parse_report(report, file, framed=framed)


def uiis(table: pa.Table) -> list[object]:
    return table["uii"].to_pylist()


@pytest.mark.parametrize(
    ("last", "skipped"),
    [
        ("\r\n", 0),
        ("   \r\n", 1),
        ("   ", 1),
        ("\t\r\n  \r\n", 2),
        (",,,,,\r\n", 1),
        ("\x1a", 1),
        ("Total,1\r\n", 1),
        ("TOTALS: 1 row\r\n", 1),
        ('"Grand Total",,,\r\n', 1),
        ("Total,,,1\r\n", 1),
        ("Total,,,1\r\n\r\n  \r\n", 2),
        ("Rows: 1\r\n", 1),
    ],
)
def test_last_lines_that_are_no_rows_are_skipped_and_counted(tmp_path: Path, last: str, skipped: int) -> None:
    table = parse(tmp_path, CSV + last)
    assert uiis(table) == ["202611171200000001"]
    assert lines_skipped(table) == skipped


@pytest.mark.parametrize(
    "last",
    [
        *("Total,,https://x.example/?file=b.WAV,\r\n", "2026,,,Total\r\n", "Totally,,,x\r\n"),
        "Total,,,https://x.example/?file=b.WAV\r\n",  # in a column of another name
    ],
)
def test_a_last_row_that_is_a_call_is_kept(tmp_path: Path, last: str) -> None:
    assert parse(tmp_path, CSV + last).num_rows == 2


def test_a_total_of_another_width_is_a_row_that_is_not_whole_if_it_holds_a_link(tmp_path: Path) -> None:
    with pytest.raises(ReportInvalid, match="a row has 5 fields where the heading has 4"):
        parse(tmp_path, CSV + "Total, Inc,2026-11-17 12:00:00,https://x.example/?file=b.WAV,\r\n")


def test_recordings_under_a_new_name_are_links_and_other_addresses_are_not(tmp_path: Path) -> None:
    link = "https://c02-recordings.virtualacd.biz/api/v1/calls/recordings/?v=1&file=1/a.WAV"
    other = "https://survey.example.com/answers?file=1"
    body = f"UII,Recording URL,Media Link,Survey\r\n1,,{link},{other}\r\n2,{link}b,,{other}\r\n3,{link}c,{link}c,\r\n"
    assert parse(tmp_path, body)["recording_url"].to_pylist() == [link, f"{link}b", f"{link}c"]


def test_a_row_that_is_cut_off_is_refused_still(tmp_path: Path) -> None:
    with pytest.raises(ReportInvalid, match="fields where the heading has"):
        parse(tmp_path, CSV + "202611171300000001,2026-11")


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
    ],
)
@pytest.mark.parametrize("body", [CSV, json.dumps([{"uii": "202611171200000001", "recordingUrl": "", "x": "naïve"}])])
def test_a_report_in_utf_16_is_read(tmp_path: Path, encoding: str, mark: bytes, body: str) -> None:
    table = parse(tmp_path, mark + body.encode(encoding))
    assert uiis(table) == ["202611171200000001"]
    assert "naïve" in table.to_pylist()[0].values()


@pytest.mark.parametrize("cut", [1, 3])
def test_a_report_in_utf_16_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ReportInvalid):
        parse(tmp_path, CSV.encode("utf-16")[:-cut], framed=False)


@pytest.mark.parametrize("guarded", ['="{}"', '"=""{}"""'])
def test_the_guards_of_spreadsheets_are_stripped(tmp_path: Path, guarded: str) -> None:
    row = ",".join(guarded.format(text) for text in ("0012", "2026-11-17 12:00:00", "", "a"))
    table = parse(tmp_path, f"{','.join(map(guarded.format, HEADING.strip().split(',')))}\r\n{row}\r\n")
    (cells,) = table.select(["uii", "call_start_dts", "recording_url", "call_notes"]).to_pylist()
    assert list(cells.values()) == ["0012", "2026-11-17 12:00:00", None, "a"]


@pytest.mark.parametrize("word", ["null", "N/A", "-", "None", "  "])
def test_a_word_for_no_link_is_null(tmp_path: Path, word: str) -> None:
    assert parse(tmp_path, CSV.replace("https://x.example/?file=a.WAV", word))["recording_url"].null_count == 1


def test_version_2_of_interaction_metadata_is_read_under_the_names_of_version_1(tmp_path: Path) -> None:
    row = {
        "dialogId": "s-v-1",
        "segmentId": "p-v-1",
        "uii": "'2024",
        "interactionStartTimeMs": "1721690897808",
        "interactionEndTimeMs": "1721690997808",
        "callType": "INBOUND",
        "ani": "1",
        "dnis": "2",
        "agentId": "7",
        "hasRecording": True,
        "agentFullName": "Ada",
        "termParty": "AGENT",
    }
    (read,) = parse(tmp_path, json.dumps([row]), META).to_pylist()
    assert (read["interaction_id"], read["dialog_start_time_ms"]) == ("2024", "1721690897808")
    assert (read["contact_endpoint_address"], read["channel_endpoint_address"]) == ("1", "2")
    assert (read["dialog_origination"], read["segment_participant_id"]) == ("INBOUND", "7")
    assert (read["agentfullname"], read["termparty"]) == ("Ada", "AGENT")
    assert canonical_name(GCTD, "ani") == "ani"
