"""Reports are requested as documented, and a failure ends in a sentence that says what to do."""

import errno
import hashlib
import io
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest

from pipelines.errors import TemporaryDiskFull
from pipelines.ringcx.auth import ApiToken
from pipelines.ringcx.errors import (
    CredentialsRefused,
    NotAReport,
    ReportInvalid,
    SourceError,
    SourceUnavailable,
    Stopped,
)
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.reports.requests import (
    Answer,
    Period,
    ReportSource,
    agent_segment_request,
    global_call_type_request,
)

BASE = "https://ringcx.example/voice/api"
DAY = Period(datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 19, tzinfo=UTC))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BODY = b"uii,recording_url\r\n1,u\r\n"
SHA256 = hashlib.sha256(BODY).hexdigest()

Pull = Callable[..., Answer]
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Pull]:
    """Pull the call report from a handler, or from a real server at `base_url`."""
    opened: list[SourceClient] = []
    limiter = RateLimiter(tmp_path / "limits.sqlite")

    def call(handler: Handler | None = None, *, base_url: str = BASE, stop: threading.Event | None = None) -> Answer:
        transport, stop = httpx.MockTransport(handler) if handler else None, stop or threading.Event()
        opened.append(
            SourceClient(limiter=limiter, limits={}, transport=transport, attempts=3, sleep=lambda _: None, stop=stop)
        )
        source = ReportSource(opened[-1], base_url, ApiToken(api_url=base_url, token="aws80:secret"))
        return source.pull("15300002", DAY)

    yield call
    for client in opened:
        client.close()
    limiter.close()


@pytest.fixture
def raw_server() -> Iterator[Callable[[list[bytes]], str]]:
    """A server that says exactly these bytes, one answer to a connection, and hangs up."""
    listening: list[socket.socket] = []

    def serve(answers: list[bytes]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def run() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while b"}}" not in request:
                        request += connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/api"

    yield serve
    for server in listening:
        server.close()


class FullDisk(io.BytesIO):
    """A file on a disk without space."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_report_that_does_not_fit_on_the_temporary_disk_ends_with_the_variable_to_set(
    pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.reports.requests.tempfile.TemporaryFile", FullDisk)
    with pytest.raises(TemporaryDiskFull, match=r"global_call_type_detail could not be received.*TMPDIR"):
        pull(lambda _: httpx.Response(200, content=BODY))


class TestRequests:
    def test_the_inbound_request_is_the_documented_one(self) -> None:
        assert agent_segment_request("inbound", DAY) == {
            "reportId": None,
            "destination": None,
            "delimiter": "COMMA",
            "reportType": "CASPER_REPORT",
            "cciReport": True,
            "reportTypeName": "Inbound_Agent_Segment_Metadata_Report",
            "reportCriteria": {
                "criteriaType": "CASPER_CRITERIA",
                "reportName": "Inbound_Agent_Segment_Metadata_Report",
                "returnType": "CSV",
                "schedule": {"repeatOption": "ONCE"},
                "accountIds": [],
                "startTimestamp": "2026-11-18 00:00:00",
                "endTimestamp": "2026-11-19 00:00:00",
                "timezoneName": "UTC",
                "startUiiTableKey": "",
                "endUiiTableKey": "",
                "secureGateGroupIds": "",
                "gateGroupIds": [],
                "secureGateIds": "",
                "gateIds": [],
                "secureAgentGroupIds": "",
                "agentGroupIds": [],
                "secureAgentIds": "",
                "agentIds": [],
            },
        }

    def test_the_outbound_request_has_dial_groups_and_campaigns_instead_of_gates(self) -> None:
        request = agent_segment_request("outbound", DAY)
        assert request["reportTypeName"] == "Outbound_Agent_Segment_Metadata_Report"
        criteria = request["reportCriteria"]
        assert isinstance(criteria, dict)
        assert criteria["reportName"] == "Outbound_Agent_Segment_Metadata_Report"
        inbound = agent_segment_request("inbound", DAY)["reportCriteria"]
        assert isinstance(inbound, dict)
        new = {"secureDialGroupIds": "", "dialGroupIds": [], "secureCampaignIds": "", "campaignIds": []}
        assert {name: criteria[name] for name in criteria.keys() - inbound.keys()} == new
        assert inbound.keys() - criteria.keys() == {"secureGateGroupIds", "gateGroupIds", "secureGateIds", "gateIds"}

    def test_the_call_request_is_the_documented_one(self) -> None:
        assert global_call_type_request(DAY) == {
            "reportType": "GLOBAL_CALL_TYPE_DELIMITED",
            "reportCriteria": {
                "criteriaType": "GLOBAL_CALL_TYPE_CRITERIA",
                "startDate": "2026-11-18T00:00:00.000-0000",
                "endDate": "2026-11-19T00:00:00.000-0000",
                "containGates": True,
                "containCampaigns": True,
                "containIvrStudios": True,
                "containCloudProfiles": True,
                "containTracNumbers": True,
                "containAgents": True,
                "includeNoAnswers": False,
            },
        }

    def test_a_local_day_is_asked_for_in_utc(self) -> None:
        arizona = timezone(timedelta(hours=-7))
        period = Period(datetime(2026, 11, 18, tzinfo=arizona), datetime(2026, 11, 19, tzinfo=arizona))
        criteria = global_call_type_request(period)["reportCriteria"]
        assert isinstance(criteria, dict)
        assert criteria["startDate"] == "2026-11-18T07:00:00.000-0000"
        assert criteria["endDate"] == "2026-11-19T07:00:00.000-0000"


class TestPull:
    def test_the_answer_is_the_rows_with_the_size_and_the_hash_of_the_body(self, pull: Pull) -> None:
        pulled = pull(lambda _: httpx.Response(200, content=BODY))
        assert [row["uii"] for row in pulled.rows.to_pylist()] == ["1"]
        assert (pulled.size, pulled.sha256) == (len(BODY), SHA256)

    def test_a_report_is_never_in_a_file_that_a_killed_process_would_leave_behind(
        self, pull: Pull, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))

        class Watched(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield BODY
                yield b"2,u\r\n" * 1_000_000
                assert list(folder.iterdir()) == []
                yield b"3,u\r\n"

        assert pull(lambda _: httpx.Response(200, stream=Watched())).rows.num_rows == 1_000_002
        assert list(folder.iterdir()) == []

    def test_it_is_asked_for_as_documented_with_the_token(self, pull: Pull) -> None:
        seen: list[httpx.Request] = []

        def handler(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, content=BODY)

        pull(handler)
        (request,) = seen
        assert request.method == "POST"
        assert str(request.url) == f"{BASE}/v1/admin/accounts/15300002/reportsStreaming"
        assert json.loads(request.content) == global_call_type_request(DAY)
        assert request.headers["X-Auth-Token"] == "aws80:secret"
        assert request.headers["Accept-Encoding"] == "gzip"

    def test_an_account_id_cannot_leave_its_place_in_the_address(self, tmp_path: Path) -> None:
        seen: list[str] = []

        def handler(request: httpx.Request) -> httpx.Response:
            seen.append(request.url.raw_path.decode())
            return httpx.Response(200, content=BODY)

        limiter = RateLimiter(tmp_path / "limits.sqlite")
        with SourceClient(limiter=limiter, limits={}, transport=httpx.MockTransport(handler)) as client:
            ReportSource(client, BASE, ApiToken(api_url=BASE, token="t")).pull("1/../2?x", DAY)
        limiter.close()
        assert seen == ["/voice/api/v1/admin/accounts/1%2F..%2F2%3Fx/reportsStreaming"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_credentials_name_the_variable_and_the_right(self, pull: Pull, status: int) -> None:
        with pytest.raises(CredentialsRefused, match=rf"HTTP {status}.*RINGCX_API_TOKEN.*READ on Account") as refused:
            pull(lambda _: httpx.Response(status, text="Jwt is expired"))
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize("status", [302, 400, 404, 415])
    def test_a_status_that_another_try_does_not_change_is_refused_at_once(self, pull: Pull, status: int) -> None:
        asked: list[httpx.Request] = []

        def handler(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return httpx.Response(status, text="SECRET", headers={"Location": "https://elsewhere.example"})

        with pytest.raises(SourceError, match=rf"HTTP {status}.*RINGCX_API_URL") as refused:
            pull(handler)
        assert type(refused.value) is SourceError
        assert "SECRET" not in str(refused.value)
        assert len(asked) == 1

    @pytest.mark.parametrize("status", [201, 202, 204])
    def test_a_success_that_is_not_200_is_no_report(self, pull: Pull, status: int) -> None:
        # As for any window that is not whole: the others are pulled.
        with pytest.raises(ReportInvalid, match=f"HTTP {status} instead of a report"):
            pull(lambda _: httpx.Response(status, content=b"" if status == 204 else BODY))

    def test_a_source_that_stays_down_is_unavailable(self, pull: Pull) -> None:
        with pytest.raises(SourceUnavailable):
            pull(lambda _: httpx.Response(503))

    def test_the_stop_event_ends_a_pull(self, pull: Pull) -> None:
        stop = threading.Event()

        class Slow(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                stop.set()
                yield BODY * 1_000_000

        with pytest.raises(Stopped):
            pull(lambda _: httpx.Response(200, stream=Slow()), stop=stop)


def framed_by_length(body: bytes, length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


class TestBrokenOff:
    def test_an_answer_that_breaks_off_is_fetched_again_as_a_whole(
        self, pull: Pull, raw_server: Callable[[list[bytes]], str]
    ) -> None:
        whole = framed_by_length(BODY, len(BODY))
        base_url = raw_server([framed_by_length(BODY + b"2,longer than the good one", 10_000), whole[:-3], whole])
        assert pull(base_url=base_url).sha256 == SHA256

    def test_an_answer_that_always_breaks_off_is_no_report(
        self, pull: Pull, raw_server: Callable[[list[bytes]], str]
    ) -> None:
        base_url = raw_server([framed_by_length(BODY, len(BODY) + 1)] * 3)
        with pytest.raises(ReportInvalid, match="broke off each time"):
            pull(base_url=base_url)

    def test_chunks_without_their_end_are_broken_off(
        self, pull: Pull, raw_server: Callable[[list[bytes]], str]
    ) -> None:
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(BODY), BODY)
        pulled = pull(base_url=raw_server([start, start + b"0\r\n\r\n"]))
        assert pulled.sha256 == SHA256

    def test_an_answer_that_ends_with_its_connection_counts_if_it_ends_in_a_line_break(
        self, pull: Pull, raw_server: Callable[[list[bytes]], str]
    ) -> None:
        start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY
        assert pull(base_url=raw_server([start])).sha256 == SHA256
        with pytest.raises(NotAReport, match="HTTP did not mark where it ends"):
            pull(base_url=raw_server([start[:-2]]))
