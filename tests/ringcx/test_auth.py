"""Log-ins are shared, renewed and limited, and no token or secret goes where it does not belong."""

import base64
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from pipelines.ringcx.auth import ApiToken, LegacyPassword, RingCentralJwt, TokenAuth, _Token
from pipelines.ringcx.errors import CredentialsRefused, SourceError, SourceUnavailable
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from tests.servers.scripted_http import Request, Response, ScriptedServer

API = "https://ringcx.example/voice/api"
THINGS = f"{API}/v1/things"
OAUTH = ("platform.example", "/restapi/oauth/token")
EXCHANGE = ("ringcx.example", "/api/auth/login/rc/accesstoken")
LOGIN = ("ringcx.example", "/voice/api/v1/auth/login")
Answer = Callable[[httpx.Request], httpx.Response]


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class RingCX:
    """The log-in as documented: tokens of five minutes, and an API that checks them."""

    def __init__(self, clock: Callable[[], float], *, life_s: float = 300, as_jwt: bool = False) -> None:
        self.clock = clock
        self.life_s = life_s
        self.as_jwt = as_jwt
        self.calls: list[tuple[str, str]] = []
        self.requests: list[httpx.Request] = []
        self.valid: dict[str, float] = {}
        self.instead: dict[tuple[str, str], list[httpx.Response | Exception]] = {}
        self.lock = threading.Lock()
        self.slow_s = 0.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        what = (request.url.host, request.url.path)
        with self.lock:
            self.calls.append(what)
            self.requests.append(request)
            planned = self.instead.get(what)
            if planned:
                answer = planned.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return answer
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        if what == OAUTH:
            assert request.headers["Authorization"] == httpx.BasicAuth("id", "secret")._auth_header
            assert form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "the-jwt"}
            return httpx.Response(200, json={"access_token": "rc-token", "expires_in": 3600})
        if what == EXCHANGE:
            time.sleep(self.slow_s)
            assert request.url.query == b"includeRefresh=true"
            assert form == {"rcAccessToken": "rc-token", "rcTokenType": "Bearer"}
            return self.new_pair()
        if what == LOGIN:
            if form != {"username": "ada", "password": "pass word"}:
                return httpx.Response(401)
            return httpx.Response(200, json={"authToken": self.token()})
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("X-Auth-Token")
        if self.valid.get(sent or "", 0) <= self.clock():
            return httpx.Response(401, text="Jwt is expired")
        return httpx.Response(200, json={"ok": True})

    def token(self) -> str:
        with self.lock:
            value = f"token-{len(self.valid)}"
            if self.as_jwt:
                iat = 5  # an issuer with a clock of its own
                claims = base64.urlsafe_b64encode(json.dumps({"iat": iat, "exp": iat + self.life_s}).encode()).decode()
                value = f"e30.{claims.rstrip('=')}.{value}"
            self.valid[value] = self.clock() + self.life_s
            return value

    def new_pair(self) -> httpx.Response:
        return httpx.Response(
            200,
            json={"accessToken": self.token(), "refreshToken": "refresh", "tokenType": "Bearer", "mainAccountId": "1"},
        )

    def revoke_all(self) -> None:
        self.valid = dict.fromkeys(self.valid, 0)

    def count(self, what: tuple[str, str]) -> int:
        return self.calls.count(what)


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def ringcx(fake: FakeTime) -> RingCX:
    return RingCX(fake)


@pytest.fixture
def client(tmp_path: Path, fake: FakeTime, ringcx: RingCX) -> Iterator[SourceClient]:
    limiter = RateLimiter(tmp_path / "l", clock=fake, sleep=fake.sleep, margin_s=0)
    with SourceClient(
        limiter=limiter,
        limits={"auth": [Rate(5, 60)]},
        transport=httpx.MockTransport(ringcx),
        clock=fake,
        sleep=fake.sleep,
        backoff_s=0.001,
    ) as source_client:
        yield source_client
    limiter.close()


def jwt(client: SourceClient, fake: FakeTime, **options: str) -> RingCentralJwt:
    given: dict[str, Any] = {
        "api_url": API,
        "ringcentral_url": "https://platform.example",
        "auth_url": "https://ringcx.example",
        "client_id": "id",
        "client_secret": "secret",
        "jwt": "the-jwt\n",
    } | options
    return RingCentralJwt(client=client, **given)


def legacy(client: SourceClient, fake: FakeTime, password: str = "pass word") -> LegacyPassword:
    return LegacyPassword(client=client, api_url=API, username="ada", password=password)


def get(client: SourceClient, auth: httpx.Auth, url: str = THINGS) -> httpx.Response:
    with client.stream("GET", url, limit="", account_id="1", auth=auth) as response:
        response.read()
        return response


def test_a_jwt_is_exchanged_and_its_token_used_again(client: SourceClient, fake: FakeTime, ringcx: RingCX) -> None:
    auth = jwt(client, fake)
    for _ in range(3):
        assert get(client, auth).status_code == 200
    assert ringcx.calls == [OAUTH, EXCHANGE, *[("ringcx.example", "/voice/api/v1/things")] * 3]
    assert ringcx.requests[-1].headers["Authorization"] == "Bearer token-0"


def test_a_token_is_renewed_before_it_expires_and_never_used_after(
    client: SourceClient, fake: FakeTime, ringcx: RingCX
) -> None:
    auth = jwt(client, fake)
    get(client, auth)
    fake.now += 239
    get(client, auth)
    assert ringcx.count(EXCHANGE) == 1
    fake.now += 2
    get(client, auth)
    assert (ringcx.count(OAUTH), ringcx.count(EXCHANGE)) == (1, 2)
    for _ in range(20):
        fake.now += 100
        assert get(client, auth).status_code == 200
    assert ringcx.count(OAUTH) == 1, "RingCentral's token lives for an hour"


def test_ringcentrals_token_is_asked_for_again_when_the_exchange_no_longer_takes_it(
    client: SourceClient, fake: FakeTime, ringcx: RingCX
) -> None:
    auth = jwt(client, fake)
    get(client, auth)
    ringcx.instead = {EXCHANGE: [httpx.Response(401)]}
    fake.now += 290
    assert get(client, auth).status_code == 200
    assert (ringcx.count(OAUTH), ringcx.count(EXCHANGE)) == (2, 3)


@pytest.mark.parametrize("kind", [jwt, legacy])
def test_a_401_gets_one_fresh_token_and_one_more_try(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, kind: Callable[..., httpx.Auth]
) -> None:
    auth = kind(client, fake)
    get(client, auth)
    ringcx.revoke_all()
    assert get(client, auth).status_code == 200
    assert ringcx.calls.count(("ringcx.example", "/voice/api/v1/things")) == 3


@pytest.mark.parametrize("kind", [jwt, legacy])
def test_a_second_401_stays_and_does_not_cause_a_log_in_for_every_request(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, kind: Callable[..., httpx.Auth]
) -> None:
    auth = kind(client, fake)
    things = ("ringcx.example", "/voice/api/v1/things")
    ringcx.instead[things] = [httpx.Response(401) for _ in range(50)]
    for _ in range(10):
        assert get(client, auth).status_code == 401
    assert ringcx.count(LOGIN) + ringcx.count(EXCHANGE) == 2
    assert ringcx.count(things) == 11
    ringcx.instead.clear()
    assert get(client, auth).status_code == 200
    ringcx.revoke_all()
    assert get(client, auth).status_code == 200, "a token that was taken again is worth renewing again"


@pytest.mark.parametrize("kind", [jwt, legacy])
def test_many_threads_share_one_log_in(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, kind: Callable[..., httpx.Auth]
) -> None:
    auth = kind(client, fake)
    ringcx.slow_s = 0.05
    with ThreadPoolExecutor(16) as pool:
        assert {r.status_code for r in pool.map(lambda _: get(client, auth), range(64))} == {200}
    assert ringcx.count(EXCHANGE) + ringcx.count(LOGIN) == 1


@pytest.mark.parametrize("kind", [jwt, legacy])
def test_many_threads_with_the_same_expired_token_log_in_once(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, kind: Callable[..., httpx.Auth]
) -> None:
    auth = kind(client, fake)
    get(client, auth)
    ringcx.revoke_all()
    together = threading.Barrier(16)

    def work(_: int) -> int:
        together.wait(10)
        return get(client, auth).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(work, range(16))) == {200}
    assert ringcx.count(LOGIN) + ringcx.count(EXCHANGE) == 2


def test_a_log_in_finds_a_connection_when_every_other_one_has_just_been_answered_401(
    tmp_path: Path, fake: FakeTime
) -> None:
    valid, together = {"token-0"}, threading.Barrier(2)

    def respond(request: Request) -> Response:
        if request.method == "POST":
            return Response(body=json.dumps({"authToken": next(iter(valid))}).encode())
        good = request.headers["X-Auth-Token"] in valid
        if not good:
            together.wait(5)
        return Response(200 if good else 401, b"x" * 100_000)

    limiter = RateLimiter(tmp_path / "l", clock=fake, sleep=fake.sleep)
    with (
        ScriptedServer(respond, keep_alive=True) as server,
        SourceClient(limiter=limiter, limits={}, max_connections=2, read_timeout_s=3, attempts=1, clock=fake) as client,
    ):
        auth = LegacyPassword(client=client, api_url=server.url, username="a", password="b")
        get(client, auth, server.url)
        valid = {"token-1"}
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda _: get(client, auth, server.url).status_code, range(2))) == [200, 200]


def test_many_threads_share_one_refusal(client: SourceClient, fake: FakeTime, ringcx: RingCX) -> None:
    auth = legacy(client, fake, password="wrong")

    def work(_: int) -> str:
        with pytest.raises(CredentialsRefused) as refused:
            get(client, auth)
        return str(refused.value)

    with ThreadPoolExecutor(16) as pool:
        sentences = set(pool.map(work, range(64)))
    assert ringcx.calls == [LOGIN]
    assert len(sentences) == 1
    fake.now += 60
    with pytest.raises(CredentialsRefused):
        get(client, auth)
    assert ringcx.count(LOGIN) == 2


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ((401, {"error": "invalid_client"}), ("(invalid_client); check RINGCENTRAL_JWT", "RINGCX_PASSWORD")),
        (
            (400, {"error": "invalid_grant", "error_description": "eyJhbGciOiJIUzI1NiJ9.hush.hush"}),
            ("RINGCENTRAL_JWT, RINGCENTRAL_CLIENT_ID, RINGCENTRAL_CLIENT_SECRET", "invalid_grant"),
        ),
        ((403, {}), ("RINGCENTRAL_CLIENT_SECRET", "RINGCX_PASSWORD")),
    ],
)
def test_a_refused_jwt_log_in_names_the_variables_to_check(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, answer: tuple[int, dict[str, str]], names: tuple[str, str]
) -> None:
    (status, body), (named, not_named) = answer, names
    ringcx.instead[OAUTH] = [httpx.Response(status, json=body)]
    with pytest.raises(CredentialsRefused) as refused:
        get(client, jwt(client, fake))
    assert named in str(refused.value)
    assert not_named not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_jwt_user_without_ringcx_is_told_so(client: SourceClient, fake: FakeTime, ringcx: RingCX) -> None:
    ringcx.instead[EXCHANGE] = [httpx.Response(401)]
    with pytest.raises(CredentialsRefused, match=r"RINGCENTRAL_JWT has access to RingCX"):
        get(client, jwt(client, fake))
    assert ringcx.calls == [OAUTH, EXCHANGE]


def test_a_refused_legacy_log_in_names_its_variables(client: SourceClient, fake: FakeTime) -> None:
    with pytest.raises(CredentialsRefused, match="RINGCX_USERNAME and RINGCX_PASSWORD") as refused:
        get(client, legacy(client, fake, password="hush"))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("where", [OAUTH, EXCHANGE, LOGIN])
@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>log in</html>"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"accessToken": 5, "access_token": "", "authToken": "a\\nb"}'),
        (404, ""),
        (302, ""),
        (200, "x" * 2_000_000),
    ],
)
def test_an_answer_without_a_token_names_the_address_to_check(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, where: tuple[str, str], answer: tuple[int, str]
) -> None:
    variable = {OAUTH: "RINGCENTRAL_URL", EXCHANGE: "RINGCX_AUTH_URL", LOGIN: "RINGCX_API_URL"}[where]
    ringcx.instead[where] = [httpx.Response(answer[0], text=answer[1]) for _ in range(3)]
    auth = legacy(client, fake) if where == LOGIN else jwt(client, fake)
    with pytest.raises(SourceError, match=variable) as wrong:
        get(client, auth)
    assert not isinstance(wrong.value, CredentialsRefused | SourceUnavailable)


@pytest.mark.parametrize("where", [OAUTH, EXCHANGE, LOGIN])
def test_a_log_in_is_tried_again_while_that_may_help(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, where: tuple[str, str]
) -> None:
    auth = legacy(client, fake) if where == LOGIN else jwt(client, fake)
    ringcx.instead[where] = [
        httpx.Response(429, headers={"Retry-After": "20"}),
        httpx.Response(503),
        httpx.ConnectError("x"),
    ]
    before = fake.now
    assert get(client, auth).status_code == 200
    assert ringcx.count(where) == 4
    assert fake.now - before >= 20


def test_a_log_in_that_stays_away_is_unavailable(client: SourceClient, fake: FakeTime, ringcx: RingCX) -> None:
    ringcx.instead[EXCHANGE] = [httpx.Response(503) for _ in range(99)]
    auth = jwt(client, fake)
    with pytest.raises(SourceUnavailable):
        get(client, auth)
    tries = ringcx.count(EXCHANGE)
    with pytest.raises(SourceUnavailable):
        get(client, auth)
    assert ringcx.count(EXCHANGE) == tries, "asked again at once by the next thread"


def test_exchanges_of_all_processes_stay_inside_their_limit(tmp_path: Path, fake: FakeTime, ringcx: RingCX) -> None:
    at: list[float] = []

    def watched(request: httpx.Request) -> httpx.Response:
        if (request.url.host, request.url.path) == EXCHANGE:
            at.append(fake.now)
        return ringcx(request)

    for _ in range(8):  # each stands for a process: its own limiter, client and auth
        limiter = RateLimiter(tmp_path / "l", clock=fake, sleep=fake.sleep, margin_s=0)
        with SourceClient(
            limiter=limiter,
            limits={"auth": [Rate(5, 60)]},
            transport=httpx.MockTransport(watched),
            clock=fake,
            sleep=fake.sleep,
        ) as client:
            assert get(client, jwt(client, fake)).status_code == 200
    assert len(at) == 8
    assert at[5] - at[0] >= 60


@pytest.mark.parametrize("kind", ["jwt", "legacy", "token"])
@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/voice/api/v1/things",
        "http://ringcx.example/voice/api/v1/things",
        "https://ringcx.example:8443/voice/api/v1/things",
        "https://ringcx.example.evil.example/voice/api/v1/things",
    ],
)
def test_no_token_goes_to_another_origin_nor_causes_a_log_in(
    client: SourceClient, fake: FakeTime, ringcx: RingCX, kind: str, url: str
) -> None:
    auths: dict[str, httpx.Auth] = {
        "jwt": jwt(client, fake),
        "legacy": legacy(client, fake),
        "token": ApiToken(api_url=API, token="aws80:hush"),
    }
    auth = auths[kind]
    get(client, auth)
    ringcx.calls.clear()
    get(client, auth, url)
    assert len(ringcx.calls) == 1
    assert "Authorization" not in ringcx.requests[-1].headers
    assert "X-Auth-Token" not in ringcx.requests[-1].headers


def test_the_origin_is_the_same_however_it_is_written(client: SourceClient, ringcx: RingCX) -> None:
    auth = ApiToken(api_url="HTTPS://RingCX.example:443/voice/api", token=" aws80:t\n")
    get(client, auth, "https://ringcx.EXAMPLE/voice/api/v1/things")
    assert ringcx.requests[-1].headers["X-Auth-Token"] == "aws80:t"


def test_a_permanent_token_is_sent_as_it_is_and_a_401_stays(client: SourceClient, ringcx: RingCX) -> None:
    assert get(client, ApiToken(api_url=API, token="aws80:t")).status_code == 401
    assert len(ringcx.calls) == 1


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "käse"])
def test_what_is_no_token_is_refused_without_quoting_it(token: str) -> None:
    with pytest.raises(CredentialsRefused, match="RINGCX_API_TOKEN") as refused:
        ApiToken(api_url=API, token=token)
    assert not token.strip() or token not in str(refused.value)


def test_nothing_secret_is_in_a_repr(client: SourceClient, fake: FakeTime, ringcx: RingCX) -> None:
    auths = [jwt(client, fake), legacy(client, fake), ApiToken(api_url=API, token="aws80:hush")]
    for auth in auths:
        get(client, auth)
        seen = repr(auth) + str(auth) + repr(getattr(auth, "_token", None))
        for secret in ("the-jwt", "secret", "pass word", "hush", *ringcx.valid, "rc-token"):
            assert secret not in seen


def test_every_auth_names_its_variables() -> None:
    assert RingCentralJwt.variables == ("RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET")
    assert LegacyPassword.variables == ("RINGCX_USERNAME", "RINGCX_PASSWORD")
    assert ApiToken.variables == ("RINGCX_API_TOKEN",)


def test_what_oauth_says_of_a_refusal_is_shown_without_its_secrets(
    client: SourceClient, fake: FakeTime, ringcx: RingCX
) -> None:
    description = "JWT is expired: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0 of ada@example.com"
    ringcx.instead[OAUTH] = [httpx.Response(400, json={"error": "invalid_grant", "error_description": description})]
    with pytest.raises(CredentialsRefused) as refused:
        get(client, jwt(client, fake))
    assert "(JWT is expired: … of …); check RINGCENTRAL_JWT" in str(refused.value)


def test_a_renewal_that_fails_in_another_thread_takes_no_token_out_of_a_request(client: SourceClient) -> None:
    class Renewed(TokenAuth):
        def _obtain(self) -> _Token:
            return _Token("fresh", renew_at=math.inf)

    auth = Renewed(client=client, api_url=API)
    request = httpx.Request("GET", f"{API}/x")
    flow = auth.sync_auth_flow(request)
    sent = next(flow)
    for _ in range(2):
        auth._token = None  # as `_log_in` of another thread does when it fails
        auth.sign(sent)
    auth._token = None
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(200, request=sent))
    assert sent.headers["Authorization"] == "Bearer fresh"
    auth.sign(request)
    assert request.headers["Authorization"] == "Bearer fresh"
