"""A request is tried again while that may help, with a permit each time, and then ends in a sentence."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines import __version__
from pipelines.ringcx.errors import SourceError, SourceUnavailable, Stopped
from pipelines.ringcx.http.client import SourceClient, retry_after
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from tests.servers.ports import PATIENCE_S

URL = "https://api.example/voice/api/v1/things"
Handler = Callable[[httpx.Request], httpx.Response]
MakeClient = Callable[..., SourceClient]


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Answers:
    """A source that gives one answer after the other, the last without end; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception | int) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer) if isinstance(answer, int) else answer


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def limiter(tmp_path: Path, fake: FakeTime) -> Iterator[RateLimiter]:
    first_limiter = RateLimiter(tmp_path / "limits.sqlite", clock=fake, sleep=fake.sleep, margin_s=0)
    yield first_limiter
    first_limiter.close()


@pytest.fixture
def make(limiter: RateLimiter, fake: FakeTime) -> Iterator[MakeClient]:
    made = []

    def build(handler: Handler, **options: Any) -> SourceClient:
        given: dict[str, Any] = {"limits": {}, "limiter": limiter, "clock": fake, "sleep": fake.sleep} | options
        client = SourceClient(transport=httpx.MockTransport(handler), **given)
        made.append(client)
        return client

    yield build
    for client in made:
        client.close()


def get(client: SourceClient, url: str = URL, **options: Any) -> httpx.Response:
    given: dict[str, Any] = {"limit": "reports", "account_id": "1"} | options

    def work() -> httpx.Response:
        with client.stream("GET", url, **given) as response:
            response.read()
            return response

    return client.retry(work)


@pytest.mark.parametrize("status", [200, 202, 204, 301, 400, 401, 403, 404, 410, 416])
def test_an_answer_that_another_try_does_not_change_is_handed_over(make: MakeClient, status: int) -> None:
    source = Answers(status)
    assert get(make(source)).status_code == status
    assert len(source.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        408,
        429,
        500,
        502,
        503,
        504,
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
    ],
)
def test_what_may_pass_is_tried_again(make: MakeClient, failure: int | Exception) -> None:
    source = Answers(failure, failure, 200)
    assert get(make(source)).status_code == 200
    assert len(source.requests) == 3


@pytest.mark.parametrize(("options", "tries"), [({}, 5), ({"attempts": 2}, 2)])
def test_used_up_tries_end_in_a_sentence_without_the_query(
    make: MakeClient, options: dict[str, int], tries: int
) -> None:
    source = Answers(502)
    with pytest.raises(SourceUnavailable) as gone:
        get(make(source, **options), URL + "?token=hush")
    assert len(source.requests) == tries
    assert "GET https://api.example/voice/api/v1/things" in str(gone.value)
    assert "502" in str(gone.value)
    assert "hush" not in str(gone.value)


def test_a_body_is_sent_again_with_every_try(make: MakeClient) -> None:
    source = Answers(500, 200)
    client = make(source)

    def work() -> int:
        with client.stream("POST", URL, limit="", account_id="1", json={"a": 1}) as response:
            return response.status_code

    assert client.retry(work) == 200
    assert [request.content for request in source.requests] == [b'{"a":1}'] * 2


def test_waits_grow_are_jittered_and_capped(make: MakeClient, fake: FakeTime) -> None:
    waits = []
    for _ in range(30):
        fake.slept.clear()
        with pytest.raises(SourceUnavailable):
            get(make(Answers(500), attempts=6, backoff_s=8))
        waits.append(list(fake.slept))
    for number, longest in enumerate([8, 16, 32, 60, 60]):
        column = [row[number] for row in waits]
        assert 0 <= min(column) < max(column) <= longest
        assert max(column) > longest / 2


def test_a_long_wait_before_another_attempt_is_announced_with_its_reason(tmp_path: Path, fake: FakeTime) -> None:
    notices: list[str] = []
    with closing(
        RateLimiter(tmp_path / "limits.sqlite", clock=fake, sleep=fake.sleep, notify=notices.append)
    ) as limiter:
        answers = Answers(httpx.Response(503, headers={"Retry-After": "45"}), 503, 200)
        transport = httpx.MockTransport(answers)
        with SourceClient(transport=transport, limits={}, limiter=limiter, clock=fake, sleep=fake.sleep) as client:
            assert get(client).status_code == 200
    assert notices == ["Waiting for another attempt, because api.example is not available now (HTTP 503): about 45 s."]


def test_every_try_takes_a_permit_of_its_own(make: MakeClient, fake: FakeTime) -> None:
    client = make(Answers(500, 500, 200), limits={"reports": [Rate(1, 60)]}, backoff_s=0)
    start = fake.now
    get(client)
    assert fake.now - start == pytest.approx(120)


def test_a_limit_without_a_name_is_free(make: MakeClient, fake: FakeTime) -> None:
    client = make(Answers(200), limits={"reports": [Rate(1, 60)]})
    for _ in range(3):
        get(client, limit="")
    assert fake.slept == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_stops_everybody_not_only_the_caller(
    make: MakeClient, limiter: RateLimiter, fake: FakeTime, status: int, as_date: bool
) -> None:
    value = formatdate(time.time() + 77, usegmt=True) if as_date else "77"
    source = Answers(httpx.Response(status, headers={"Retry-After": value}), 200)
    stopped_at = fake.now

    def source_then_other(request: httpx.Request) -> httpx.Response:
        if source.requests:
            assert fake.now - stopped_at >= 70
        return source(request)

    get(make(source_then_other))
    assert fake.now - stopped_at == pytest.approx(77, abs=7)
    fake.now = stopped_at + 1
    assert limiter.acquire("reports@api.example", "1", ()) == pytest.approx(76, abs=7)
    assert limiter.acquire("reports@api.example", "2", ()) == 0
    assert limiter.acquire("reports@elsewhere.example", "1", ()) == 0


def test_a_long_retry_after_ends_the_tries_at_once_and_is_said(
    make: MakeClient, limiter: RateLimiter, fake: FakeTime
) -> None:
    source = Answers(httpx.Response(429, headers={"Retry-After": "1800"}))
    client = make(source)
    with pytest.raises(SourceUnavailable, match="1800 s"):
        get(client)
    assert len(source.requests) == 1
    assert fake.slept == []
    assert get(make(Answers(200)), account_id="2").status_code == 200
    assert fake.slept == []
    assert get(make(Answers(200))).status_code == 200
    assert sum(fake.slept) == pytest.approx(300)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 2),
        (" 0.25 ", 1),
        ("99999999.9", 6 * 3600),
        ("-1.5", None),
        ("1.5.5", None),
        ("1,5", None),
        ("9" * 5000 + ".5", None),
        ("Tue, 01 Jan 2999 00:10:00 GMT", 6 * 3600),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("9" * 5000, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_nonsense_is_no_order(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value) == seconds


def test_redirects_are_not_followed(make: MakeClient) -> None:
    source = Answers(httpx.Response(302, headers={"Location": "https://elsewhere.example/"}))
    assert get(make(source)).status_code == 302
    assert len(source.requests) == 1


def test_cookies_are_not_kept(make: MakeClient) -> None:
    source = Answers(httpx.Response(200, headers={"Set-Cookie": "session=hush; Path=/"}))
    client = make(source)
    get(client)
    get(client)
    assert "Cookie" not in source.requests[1].headers


def test_it_says_who_it_is_and_asks_for_plain_bodies(make: MakeClient) -> None:
    source = Answers(200)
    get(make(source), headers={"Accept": "audio/wav"})
    assert source.requests[0].headers["User-Agent"] == f"ringcx-archive/{__version__}"
    assert source.requests[0].headers["Accept-Encoding"] == "identity"
    assert source.requests[0].headers["Accept"] == "audio/wav"


def test_a_token_that_http_cannot_carry_is_not_quoted(limiter: RateLimiter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, SourceClient(limiter=limiter, limits={}) as client:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(SourceError) as refused:
            get(client, url, headers={"Authorization": "Bearer hush\n"})
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert not isinstance(refused.value, SourceUnavailable)


def test_a_malformed_address_is_not_tried_again(make: MakeClient, fake: FakeTime) -> None:
    with pytest.raises(SourceError, match="malformed"):
        get(make(Answers(200)), "https://api.example:port/")
    assert fake.slept == []


def test_nothing_listening_is_unavailable(limiter: RateLimiter, fake: FakeTime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        SourceClient(limiter=limiter, limits={}, sleep=fake.sleep) as client,
        pytest.raises(SourceUnavailable, match="ConnectError"),
    ):
        get(client, f"http://127.0.0.1:{port}/")


def test_a_stop_ends_a_wait_between_tries_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    limiter = RateLimiter(tmp_path / "l")
    source = Answers(httpx.Response(500, headers={"Retry-After": "120"}))
    client = SourceClient(limiter=limiter, limits={}, stop=stop, transport=httpx.MockTransport(source))
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        get(client)
    assert time.monotonic() - started < PATIENCE_S
    with pytest.raises(Stopped):
        get(client, limit="")
    assert len(source.requests) == 1


class Running:
    """A token that runs out after ten seconds, and counts its renewals."""

    def __init__(self, fake: FakeTime) -> None:
        self.fake = fake
        self.made_at = -100.0

    def sign(self, request: httpx.Request) -> None:
        if self.fake.now - self.made_at > 10:
            self.made_at = self.fake.now
        request.headers["Authorization"] = f"Bearer {self.made_at}"


class RunningAuth(Running, httpx.Auth):
    def sync_auth_flow(self, request: httpx.Request) -> Any:
        response = yield request
        if response.status_code == 401:
            self.sign(request)
            yield request


def test_a_token_is_renewed_after_the_wait_for_a_permit_not_before_it(make: MakeClient, fake: FakeTime) -> None:
    source = Answers(200)
    client = make(source, limits={"metadata": [Rate(1, 900)]})
    for _ in range(2):
        get(client, limit="metadata", auth=RunningAuth(fake))
    sent = float(source.requests[1].headers["Authorization"].removeprefix("Bearer "))
    assert fake.now - sent <= 10


def test_the_request_repeated_after_a_401_takes_a_permit_too(make: MakeClient, fake: FakeTime) -> None:
    source = Answers(401, 200)
    start = fake.now
    response = get(make(source, limits={"reports": [Rate(1, 60)]}), auth=RunningAuth(fake))
    assert response.status_code == 200
    assert fake.now - start == pytest.approx(60)


def test_logs_show_addresses_without_their_query(make: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        get(make(Answers(200)), URL + "?file=hush", auth=httpx.BasicAuth("user", "hush"))
    assert "/voice/api/v1/things" in caplog.text
    assert "hush" not in caplog.text


def test_real_connections_leave_no_query_and_no_header_in_debug_logs(
    limiter: RateLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /?signed=hush\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with caplog.at_level(logging.DEBUG), SourceClient(limiter=limiter, limits={}) as client:
            get(client, f"http://127.0.0.1:{server.getsockname()[1]}/?link=hush", headers={"X-Auth-Token": "hush"})
        thread.join(5)
    assert "hush" not in caplog.text


@pytest.mark.parametrize("asked", ["0", "Thu, 01 Jan 1970 00:00:10 GMT"])
def test_a_retry_after_of_no_time_is_still_a_wait(make: MakeClient, fake: FakeTime, asked: str) -> None:
    with pytest.raises(SourceUnavailable):
        get(make(Answers(httpx.Response(503, headers={"Retry-After": asked})), backoff_s=2.0))
    assert len(fake.slept) == 4
    assert min(fake.slept) >= 2.0


def test_one_hosts_silence_is_that_hosts_lasts_minutes_and_is_logged(
    make: MakeClient, fake: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        busy = request.url.host == "one.example" and fake.now < 1_000_600
        return httpx.Response(503 if busy else 200, headers={"Retry-After": "999999"} if busy else {})

    client = make(answer)
    with pytest.raises(SourceUnavailable):
        get(client, "https://one.example/?file=hush", limit="media")
    assert "one.example asked for a pause of 21600 s" in caplog.text
    assert "hush" not in caplog.text
    assert get(client, "https://two.example/", limit="media").status_code == 200
    fake.now += 601
    assert get(client, "https://one.example/", limit="media").status_code == 200
