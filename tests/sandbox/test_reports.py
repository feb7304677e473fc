"""The sandbox's reports come as documented."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from sandbox import Faults, Where
from sandbox.reports import AGENT_COLUMNS, GLOBAL_FIELDS
from tests.sandbox.conftest import Asker, Clock

DAY = ("2026-03-09 00:00:00", "2026-03-10 00:00:00")
DAY_ISO = ("2026-03-09T00:00:00.000-0000", "2026-03-09T23:59:59.999-0000")
URL, NAME = "Segment Recording URL", "Segment Recording File Name"


def table(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


def test_agent_segments_come_as_documented(start: Callable[..., Asker]) -> None:
    answer = start().agents("inbound", *DAY)
    assert answer.headers["content-type"].startswith("text/csv")
    heading, rest = answer.content.decode().split("\r\n", 1)
    assert heading == ",".join(AGENT_COLUMNS)
    assert rest.endswith("\r\n")
    rows = table(answer)
    assert len(rows) > 5
    for row in rows:
        assert re.fullmatch(r"'\d{30}", row["UII"])
        assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", row["Start Dts"])
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", row[name]) for name in ("Duration", "Queue Duration", "Wrap Time"))
        assert bool(row[URL]) == bool(row[NAME])
        assert row["Call Type"] == "INBOUND"


def test_each_direction_has_its_own_report(start: Callable[..., Asker]) -> None:
    source = start()
    inbound, outbound = (table(source.agents(way, *DAY)) for way in ("inbound", "outbound"))
    assert {row["Call Type"] for row in outbound} == {"OUTBOUND"}
    assert not {row["UII"] for row in inbound} & {row["UII"] for row in outbound}
    assert all(row["Dial Dts"] for row in outbound)


@pytest.mark.parametrize("zone", ["US/Arizona", "Asia/Kolkata", "Europe/Berlin", "UTC"])
def test_times_are_read_and_written_in_the_zone_that_was_asked_for(start: Callable[..., Asker], zone: str) -> None:
    source = start()
    local = ZoneInfo(zone)
    begin, end = (datetime(2026, 3, day, tzinfo=UTC).astimezone(local) for day in (8, 9))
    there = table(source.agents("inbound", f"{begin:%Y-%m-%d %H:%M:%S}", f"{end:%Y-%m-%d %H:%M:%S}", zone))
    in_utc = table(source.agents("inbound", "2026-03-08 00:00:00", "2026-03-09 00:00:00"))

    def starts(rows: list[dict[str, str]], at: ZoneInfo) -> set[tuple[str, str, datetime]]:
        form = "%m/%d/%Y %H:%M:%S"
        return {
            (r["UII"], r["Session ID"], datetime.strptime(r["Start Dts"], form).replace(tzinfo=at).astimezone(UTC))
            for r in rows
        }

    assert starts(there, local) == starts(in_utc, ZoneInfo("UTC"))
    assert len(there) > 5


def test_free_text_survives_with_commas_quotes_line_breaks_and_scripts(start: Callable[..., Asker]) -> None:
    source = start(calls_per_day=(200, 200))
    seen = {row["Agent Disposition"] for row in table(source.agents("inbound", *DAY))}
    assert {"Line one\r\nline two, with comma", 'Customer said "no, thanks"', "お客様は満足されました", ""} <= seen


def test_calls_come_as_json_with_the_documented_fields(start: Callable[..., Asker]) -> None:
    answer = start().calls(*DAY_ISO)
    assert answer.headers["content-type"].startswith("application/json")
    rows = answer.json()
    assert all(tuple(row) == GLOBAL_FIELDS for row in rows)
    assert all(re.fullmatch(r"2026-03-09T\d\d:\d\d:\d\d\.000\+0000", row["callStartDts"]) for row in rows)
    assert any(not row["recordingUrl"] for row in rows)


def test_calls_come_as_csv_when_the_source_is_in_that_mood(start: Callable[..., Asker]) -> None:
    source = start()
    as_json = source.calls(*DAY_ISO).json()
    source.sandbox.set_faults({"report_csv": 1})
    rows = table(source.calls(*DAY_ISO))
    assert [row["uii"] for row in rows] == [row["uii"] for row in as_json]
    assert [row["recording_url"] for row in rows] == [row["recordingUrl"] or "" for row in as_json]


def test_a_transferred_call_has_several_rows_that_link_one_recording_in_several_forms(
    start: Callable[..., Asker],
) -> None:
    rows = [row for row in start().calls(*DAY_ISO).json() if row["recordingUrl"]]
    uii, count = Counter(row["uii"] for row in rows).most_common(1)[0]
    assert count >= 2
    urls = {row["recordingUrl"] for row in rows if row["uii"] == uii}
    files = {httpx.URL(url).params["file"] for url in urls}
    assert len(files) < len(urls)


def test_unanswered_outbound_calls_only_come_when_asked_for(start: Callable[..., Asker]) -> None:
    source = start(calls_per_day=(100, 100))
    without = source.calls(*DAY_ISO, includeNoAnswers=False).json()
    with_them = source.calls(*DAY_ISO, includeNoAnswers=True).json()
    extra = [row for row in with_them if row not in without]
    assert extra
    assert {row["callResult"] for row in extra} == {"NOANSWER"}
    assert not any(row["recordingUrl"] for row in extra)


def test_kinds_of_sources_can_be_left_out(start: Callable[..., Asker]) -> None:
    source = start()
    gates = source.calls(*DAY_ISO, containCampaigns=False).json()
    campaigns = source.calls(*DAY_ISO, containGates=False).json()
    assert {row["sourceType"] for row in gates} == {"GATE"}
    assert {row["sourceType"] for row in campaigns} == {"CAMPAIGN"}


@pytest.mark.parametrize("inclusive", [True, False])
def test_whether_a_period_includes_its_end_is_a_knob(start: Callable[..., Asker], *, inclusive: bool) -> None:
    source = start(end_inclusive=inclusive)
    rows = source.calls("2026-03-08T00:00:00.000-0000", "2026-03-09T00:00:00.000-0000").json()
    assert any(row["callStartDts"].startswith("2026-03-09T00:00:00") for row in rows) is inclusive
    assert any(row["callStartDts"].startswith("2026-03-08T00:00:00") for row in rows)


def test_a_segment_is_selected_by_its_own_start(start: Callable[..., Asker]) -> None:
    before = table(start().agents("inbound", "2026-03-08 00:00:00", "2026-03-08 23:59:59"))
    after = table(start().agents("inbound", "2026-03-09 00:00:00", "2026-03-09 23:59:59"))
    both = {row["UII"] for row in before} & {row["UII"] for row in after}
    assert both  # one call, its legs on two days
    pairs = [(row["UII"], row["Session ID"]) for row in before + after]
    assert len(pairs) == len(set(pairs))


def test_a_report_of_today_ends_five_minutes_ago_and_has_no_live_call(
    start: Callable[..., Asker], clock: Clock
) -> None:
    source = start(calls_per_day=(800, 800))
    period = ("2026-03-10T00:00:00.000-0000", "2026-03-10T23:59:59.999-0000")
    rows = source.calls(*period).json()
    assert rows
    newest = max(datetime.fromisoformat(row["callStartDts"]) for row in rows)
    assert clock.now - timedelta(minutes=20) < newest <= clock.now - timedelta(minutes=5)
    clock.advance(900)
    assert len(source.calls(*period).json()) > len(rows)


def test_a_recent_period_can_be_refused(start: Callable[..., Asker]) -> None:
    source = start(recent_periods="refuse")
    refused = source.calls("2026-03-10T00:00:00.000-0000", "2026-03-10T17:56:00.000-0000")
    assert refused.status_code == 400
    assert set(refused.json()) == {"generalMessage", "details", "requestUri", "timestamp"}
    assert source.calls("2026-03-10T00:00:00.000-0000", "2026-03-10T17:54:00.000-0000").status_code == 200


def test_a_call_appears_some_time_after_it_ended(start: Callable[..., Asker], clock: Clock) -> None:
    source = start(rows_after_s=7200, calls_per_day=(300, 300))
    period = ("2026-03-10T00:00:00.000-0000", "2026-03-10T18:00:00.000-0000")
    ends = [datetime.fromisoformat(row["callEndDts"]) for row in source.calls(*period).json()]
    assert max(ends) <= clock.now - timedelta(hours=2)


@pytest.mark.parametrize(
    "change",
    [
        {"reportType": "NONSENSE"},
        {"reportTypeName": "Outbound_Agent_Segment_Metadata_Report"},
        {"reportCriteria": None},
    ],
)
def test_a_body_that_asks_for_no_report_is_refused(start: Callable[..., Asker], change: dict[str, Any]) -> None:
    source = start()
    name = "Inbound_Agent_Segment_Metadata_Report"
    criteria = {"reportName": name, "startTimestamp": DAY[0], "endTimestamp": DAY[1], "timezoneName": "UTC"}
    body = {"reportType": "CASPER_REPORT", "reportTypeName": name, "reportCriteria": criteria}
    assert source.report(body).status_code == 200
    assert source.report(body | change).status_code == 400


@pytest.mark.parametrize("zone", ["Nowhere/Land", "", "../etc"])
def test_an_unknown_zone_is_refused(start: Callable[..., Asker], zone: str) -> None:
    assert start().agents("inbound", *DAY, zone).status_code == 400


def test_links_are_in_the_vendors_form_and_lead_back_here(start: Callable[..., Asker]) -> None:
    source = start()
    mono = [row["recordingUrl"] for row in source.calls(*DAY_ISO).json() if row["recordingUrl"]]
    stereo = [row[URL] for row in table(source.agents("inbound", *DAY)) if row[URL]]
    base = re.escape(source.sandbox.url) + "/api/v1/calls/recordings"
    account = r"15300002/\d{6}/\d\d/\d{30}"
    assert any(re.fullmatch(rf"{base}/\?v=1&accountId=15300002&bucket=.*&file={account}-1\.WAV", url) for url in mono)
    pattern = rf"{base}\?v=1&accountId=15300002&bucket=.*&file=perspective/{account}-session-[234]-stereo\.WAV"
    assert all(re.fullmatch(pattern, url) for url in stereo)
    assert {source.http.get(url).status_code for url in mono + stereo} == {200}


def test_late_rows_are_missing_from_the_first_pulls_only(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(late_rows=Where(share=0.4, first=2)))
    counts = [len(source.calls(*DAY_ISO).json()) for _ in range(4)]
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_late_links_are_empty_on_the_first_pulls_only(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(late_links=Where(share=0.5, first=1)))
    first, second = (table(source.agents("inbound", *DAY)) for _ in range(2))
    assert len(first) == len(second)
    assert sum(bool(row[URL]) for row in first) < sum(bool(row[URL]) for row in second)
    assert all(bool(row[URL]) == bool(row[NAME]) for row in first)


def test_hostile_links_are_as_hostile_as_they_say(start: Callable[..., Asker]) -> None:
    def stereo(knob: str) -> str:
        source = start(faults=Faults.parse({knob: 1}))
        return next(row[URL] for row in table(source.agents("inbound", *DAY)) if row[URL])

    assert httpx.URL(stereo("link_evil_host")).host == "localhost"
    assert httpx.URL(stereo("link_credentials")).userinfo == b"root:toor"
    assert stereo("link_http").startswith("http://c02-recordings.virtualacd.biz/")
    assert " " in stereo("link_stray_blanks")


def test_stray_blanks_must_be_taken_out_of_a_link(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(link_stray_blanks=Where(share=1)))
    link = next(row[URL] for row in table(source.agents("inbound", *DAY)) if row[URL])
    assert source.http.get(link).status_code == 400
    assert source.http.get(link.replace(" ", "")).status_code == 200


def test_columns_can_be_reordered_with_an_unknown_one_among_them(start: Callable[..., Asker]) -> None:
    source = start()
    plain = table(source.agents("inbound", *DAY))
    source.sandbox.set_faults({"report_reordered": 1, "report_bom": 1})
    answer = source.agents("inbound", *DAY)
    assert answer.content.startswith(b"\xef\xbb\xbf")
    changed = table(answer)
    assert list(changed[0]) != list(plain[0])
    assert [{name: row[name] for name in AGENT_COLUMNS} for row in changed] == plain
    assert {row["Future Column"] for row in changed} == {"later"}


def test_the_url_column_can_be_missing(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(report_no_url_column=Where(share=1)))
    assert URL not in table(source.agents("inbound", *DAY))[0]
    assert "recordingUrl" not in source.calls(*DAY_ISO).json()[0]


def test_one_row_can_have_another_width(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(report_wrong_width=Where(paths=("agent_segment_metadata/inbound",))))
    widths = Counter(
        len(line) for line in csv.reader(io.StringIO(source.agents("inbound", *DAY).text, newline="")) if line
    )
    assert min(widths.values()) == 1
    assert set(widths) == {29, 30}
    assert all(None not in row.values() for row in table(source.agents("outbound", *DAY)))


@pytest.mark.parametrize(
    ("knob", "status", "content_type", "beginning"),
    [
        ("report_html_200", 200, "text/html", b"<html"),
        ("report_json_error_200", 200, "application/json", b"{"),
        ("report_empty_body", 200, "text/csv", b""),
        ("report_server_error", 503, "application/json", b"{"),
        ("report_throttled", 429, "application/json", b"{"),
        ("report_unauthorized", 401, "text/plain", b"Jwt is expired"),
        ("report_forbidden", 403, "application/json", b"{"),
    ],
)
def test_a_report_fails_as_told_and_only_so_often(
    start: Callable[..., Asker], knob: str, status: int, content_type: str, beginning: bytes
) -> None:
    source = start(faults=Faults.parse({knob: {"share": 1, "first": 1}}))
    answer = source.agents("inbound", *DAY)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.content.startswith(beginning)
    assert (answer.content == b"") == (knob == "report_empty_body")
    assert len(table(source.agents("inbound", *DAY))) > 5


@pytest.mark.parametrize("knob", ["report_cut_off", "report_cut_off_chunked", "report_reset"])
def test_a_report_is_truly_cut_off(start: Callable[..., Asker], knob: str) -> None:
    source = start(faults=Faults.parse({knob: {"share": 1, "first": 1}}))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        source.calls(*DAY_ISO)
    assert source.calls(*DAY_ISO).json()


def test_an_unframed_report_is_cut_off_without_a_sign(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults.parse({"report_cut_off_unframed": {"share": 1, "first": 1}}))
    half = source.agents("inbound", *DAY)
    whole = source.agents("inbound", *DAY)
    assert "content-length" not in half.headers
    assert "transfer-encoding" not in half.headers
    assert whole.content.startswith(half.content)
    assert len(half.content) == len(whole.content) // 2
