"""Interaction metadata: windows, request, addresses of recordings, and what an answer is read as."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.auth import ApiToken
from pipelines.ringcx.errors import CredentialsRefused, LinkRefused, ReportInvalid, SourceError
from pipelines.ringcx.http.client import SourceClient, origin_of
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList, SegmentLinks, segment_recording_id
from pipelines.ringcx.media import MediaClient, MediaFault
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.requests import Answer, InteractionSource, Period, interaction_request
from pipelines.ringcx.reports.tables import parse_report
from pipelines.ringcx.reports.times import parse_moment, parse_ms
from pipelines.steps.link.rows import is_flag_unknown, links_of
from pipelines.steps.pull.windows import windows

BASE = "https://ringcx.example/voice/api"
NIGHT = Period(datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 18, 3, tzinfo=UTC))
LINKS = SegmentLinks(BASE, "37439510")
SECONDS = st.integers(0, 4_000_000_000)
ROW = {
    "dialogId": "s-v-1",
    "segmentId": "p-v-1",
    "interactionId": "'202607221348170123",
    "channelClass": "VOICE",
    "hasRecording": True,
    "segmentEvents": None,
    "brandNew": {"b": 1, "a": [12345678901234567890]},
}


@given(SECONDS, st.integers(1, 25 * 3600), st.integers(60, 10_800))
def test_windows_cover_a_period_without_gap_or_overlap_and_none_is_too_long(start: int, length: int, size: int) -> None:
    begun = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=start)
    period = Period(begun, begun + timedelta(seconds=length))
    found = list(windows(period, size))
    assert (found[0].start, found[-1].end) == (period.start, period.end)
    assert all(earlier.end == later.start for earlier, later in pairwise(found))
    assert all(timedelta() < window.end - window.start <= timedelta(seconds=size) for window in found)


def test_a_window_is_asked_for_in_utc_whatever_zone_it_is_given_in() -> None:
    zone = timezone(timedelta(hours=2))
    window = Period(datetime(2024, 7, 22, 10, tzinfo=zone), datetime(2024, 7, 22, 13, tzinfo=zone))
    wanted = {"segmentEndTime": "2024-07-22 08:00:00", "timeInterval": 10800, "timeZone": "UTC"}
    assert interaction_request(window) == wanted


@pytest.fixture
def client_of(tmp_path: Path) -> Iterator[Callable[..., SourceClient]]:
    limiter = RateLimiter(tmp_path / "limits.sqlite")
    opened: list[SourceClient] = []

    def make(handler: Callable[[httpx.Request], httpx.Response]) -> SourceClient:
        transport = httpx.MockTransport(handler)
        opened.append(SourceClient(limiter=limiter, limits={}, transport=transport, attempts=2, sleep=lambda _: None))
        return opened[-1]

    yield make
    for client in opened:
        client.close()
    limiter.close()


def pull(client: SourceClient) -> Answer:
    source = InteractionSource(client, BASE, ApiToken(api_url=BASE, token="aws80:secret"), "37439510")
    return source.pull("15300002", NIGHT)


def test_the_request_goes_to_the_sub_account_of_the_ringcentral_account(
    client_of: Callable[..., SourceClient],
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[ROW])

    pulled = pull(client_of(answer))
    (request,) = seen
    path = "/voice/api/cx/integration/v1/accounts/37439510/sub-accounts/15300002/interaction-metadata"
    assert (request.method, request.url.path, request.url.query) == ("POST", path, b"")
    assert json.loads(request.content) == interaction_request(NIGHT)
    assert pulled.sha256 == sha256(json.dumps([ROW], separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (401, CredentialsRefused, "RINGCX_API_TOKEN"),
        (403, CredentialsRefused, "WEM access right"),
        (400, SourceError, "RINGCX_METADATA_WINDOW"),
        (204, SourceError, "instead of a report"),
    ],
)
def test_a_refusal_says_what_to_check_and_not_what_the_source_wrote(
    client_of: Callable[..., SourceClient], status: int, kind: type[Exception], sentence: str
) -> None:
    body = {"generalMessage": "call of +16025550142", "details": "Jane Doe", "requestUri": "/", "timestamp": 0}
    client = client_of(lambda _: httpx.Response(status, json=None if status == 204 else body))
    with pytest.raises(kind) as caught:
        pull(client)
    assert sentence in str(caught.value)
    for secret in ("6025550142", "Jane", "aws80"):
        assert secret not in str(caught.value)


def parsed(tmp_path: Path, content: bytes) -> Any:
    file = tmp_path / "rows"
    file.write_bytes(content)
    with file.open("rb") as body:
        return parse_report("interaction_metadata", body)


def test_a_row_keeps_nulls_and_unknown_fields_and_is_known_by_dialog_and_segment(tmp_path: Path) -> None:
    table = with_row_identity("interaction_metadata", parsed(tmp_path, json.dumps([ROW]).encode()), "15300002")
    (row,) = table.to_pylist()
    assert row["row_key"] == "15300002|s-v-1|p-v-1"
    assert (row["has_recording"], row["segment_events"], row["agent_notes"]) == ("true", None, None)
    assert row["brandnew"] == '{"a":[12345678901234567890],"b":1}'
    assert row["interaction_id"] == "202607221348170123"


def test_a_changed_flag_is_the_same_row_with_another_hash(tmp_path: Path) -> None:
    bodies = [json.dumps([{**ROW, "hasRecording": flag}]).encode() for flag in (False, True)]
    rows = [with_row_identity("interaction_metadata", parsed(tmp_path, body), "1").to_pylist()[0] for body in bodies]
    assert rows[0]["row_key"] == rows[1]["row_key"]
    assert rows[0]["row_hash"] != rows[1]["row_hash"]


def test_a_flag_that_says_yes_and_no_in_one_row_is_unknown_and_its_recording_is_requested(tmp_path: Path) -> None:
    flags = '"has_recording": false, "hasRecording": true'
    rows = parsed(tmp_path, f'[{{"dialogId": "d", "segmentId": "s", {flags}}}]'.encode())
    (row,) = with_row_identity("interaction_metadata", rows, "15300002").to_pylist()
    cells = {**row, "account_id": "15300002"}
    assert is_flag_unknown(cells)
    assert [link.recording_id for link in links_of("interaction_metadata", cells)] == ["15300002/d/s"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>sign in</html>",
        b'{"generalMessage":"no","details":"Jane Doe"}',
        b'[{"dialogId":"a","segmentId":"b","hasRecording":true},',
        b'[{"dialogId":"a","segmentId":"b","hasRecording":true}',
        b'[{"dialogId":"a","hasRecording":true}]',
        b'[{"dialogId":"a","segmentId":"b","channelClass":"VOICE"}]',
        b"dialogId,segmentId,hasRecording\r\na,b,true\r\n",
        b"Jwt is expired",
    ],
)
def test_what_is_not_the_whole_answer_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ReportInvalid) as caught:
        parsed(tmp_path, content)
    assert "Jane" not in str(caught.value)


def test_a_quiet_window_and_one_with_messages_only_are_whole(tmp_path: Path) -> None:
    assert parsed(tmp_path, b"[]").num_rows == 0
    assert parsed(tmp_path, b'[{"dialogId":"a","segmentId":"b","channelClass":"DIGITAL"}]').num_rows == 1


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_recordings_address_leads_to_its_segment_and_nowhere_else(dialog: str, segment: str) -> None:
    if not dialog or not segment or {dialog, segment} & {".", ".."}:
        with pytest.raises(LinkRefused, match=r"no_segment|malformed"):
            LINKS.link("15300002", dialog, segment)
        return
    link = LINKS.link("15300002", dialog, segment)
    assert LINKS.owns(link, "15300002")
    assert not LINKS.owns(link, "15300003")
    assert not SegmentLinks("https://elsewhere.example/voice/api", "37439510").owns(link, "15300002")
    *_, dialogs, d, segments, s = httpx.URL(link).raw_path.decode().split("/")
    assert (dialogs, unquote(d), segments, unquote(s)) == ("dialogs", dialog, "segments", segment)
    assert segment_recording_id("15300002", dialog, segment).split("/") == ["15300002", d, s]


@pytest.mark.parametrize(
    "link",
    [
        "https://ringcx.example.evil/voice/api/cx/integration/v1/accounts/37439510/sub-accounts/1/recordings/dialogs/a/segments/b",
        f"{BASE}/cx/integration/v1/accounts/37439510/sub-accounts/1/recordings/dialogs/../segments/b",
        f"{BASE}/cx/integration/v1/accounts/37439510/sub-accounts/1/recordings/dialogs/a/segments/b?x=1",
        f"{BASE}/cx/integration/v1/accounts/37439510/sub-accounts/1/../recordings/dialogs/a/segments/b",
        f"{BASE}/v1/admin/accounts/1/reportsStreaming",
    ],
)
def test_no_other_address_is_a_segments(link: str) -> None:
    assert not LINKS.owns(link, "1")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_token_stays_at_the_api_when_a_download_is_redirected_to_a_listed_host(
    client_of: Callable[..., SourceClient], method: Any, tmp_path: Path
) -> None:
    seen: list[tuple[str, str, bool]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.host, "x-auth-token" in request.headers))
        if request.url.host == "ringcx.example":
            return httpx.Response(302, headers={"Location": "https://store.virtualacd.biz/a.wav"})
        return httpx.Response(200, content=b"RIFF", headers={"Content-Type": "audio/wav"})

    media = MediaClient(
        client_of(answer),
        HostList(["ringcx.example:443", "*.virtualacd.biz"]),
        auth=ApiToken(api_url=BASE, token="aws80:secret"),
        method=method,
        limit="download",
        ours=origin_of(LINKS.base_url),
    )
    with (tmp_path / "sink").open("w+b") as sink:
        assert media.fetch(LINKS.link("1", "a", "b"), "1", sink).size == 4
    assert seen == [(method, "ringcx.example", True), ("GET", "store.virtualacd.biz", False)]


def test_a_download_is_not_redirected_to_a_host_that_is_not_listed(
    client_of: Callable[..., SourceClient], tmp_path: Path
) -> None:
    client = client_of(lambda _: httpx.Response(307, headers={"Location": "https://evil.example/a.wav"}))
    media = MediaClient(client, HostList(["ringcx.example:443"]), auth=None, ours=origin_of(LINKS.base_url))
    with (tmp_path / "sink").open("w+b") as sink, pytest.raises(MediaFault, match="redirect_not_allowed"):
        media.fetch(LINKS.link("1", "a", "b"), "1", sink)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-07-22T23:28:17.808Z", datetime(2024, 7, 22, 23, 28, 17, 808_000, tzinfo=UTC)),
        ("1721690897808", datetime(2024, 7, 22, 23, 28, 17, 808_000, tzinfo=UTC)),
        (None, None),
        ("yesterday", None),
    ],
)
def test_times_are_read_as_text_and_as_milliseconds(text: str | None, moment: datetime | None) -> None:
    assert parse_moment(text) == moment


def test_durations_are_milliseconds() -> None:
    assert [parse_ms(text) for text in ("12500", "0", None, "00:00:12", "long")] == [12.5, 0.0, None, None, None]
