"""The sandbox's log-ins and tokens work and expire as documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sandbox import Faults
from tests.sandbox.conftest import Asker, Clock

PERIOD = ("2026-03-09 00:00:00", "2026-03-09 01:00:00")
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Session:
    """The JWT way in, step by step."""

    def __init__(self, source: Any) -> None:
        self.source, self.own = source, source.sandbox.config.credentials

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        answer: httpx.Response = self.source.http.post(self.source.sandbox.url + path, **arguments)
        return answer

    def oauth(self, *, secret: str | None = None, jwt: str | None = None, grant: str = GRANT) -> httpx.Response:
        form = {"grant_type": grant, "assertion": jwt or self.own.jwt}
        return self.post("/restapi/oauth/token", data=form, auth=(self.own.client_id, secret or self.own.client_secret))

    def exchange(self, token: str | None = None) -> httpx.Response:
        form = {"rcAccessToken": token or self.oauth().json()["access_token"], "rcTokenType": "Bearer"}
        return self.post("/api/auth/login/rc/accesstoken?includeRefresh=true", data=form)

    def refresh(self, token: str) -> httpx.Response:
        return self.post("/api/auth/token/refresh", data={"refresh_token": token})

    def report(self, headers: dict[str, str] | httpx.Headers, account: str = "15300002") -> httpx.Response:
        name = "Inbound_Agent_Segment_Metadata_Report"
        criteria = {"reportName": name, "startTimestamp": PERIOD[0], "endTimestamp": PERIOD[1], "timezoneName": "UTC"}
        body = {"reportType": "CASPER_REPORT", "reportTypeName": name, "reportCriteria": criteria}
        return self.post(f"/voice/api/v1/admin/accounts/{account}/reportsStreaming", json=body, headers=headers)


@pytest.fixture
def session(start: Callable[..., Asker]) -> Session:
    return Session(start())


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['accessToken']}"}


def test_a_jwt_leads_to_a_token_that_opens_reports(session: Session) -> None:
    answer = session.exchange()
    assert answer.json()["mainAccountId"] == "15300002"
    assert answer.json()["agentDetails"][0]["accountId"] == "15300002"
    assert session.report(bearer(answer)).status_code == 200


def test_a_token_expires_after_five_minutes_and_says_so(session: Session, clock: Clock) -> None:
    headers = bearer(session.exchange())
    clock.advance(299)
    assert session.report(headers).status_code == 200
    clock.advance(2)
    answer = session.report(headers)
    assert (answer.status_code, answer.text) == (401, "Jwt is expired")
    assert session.source.sandbox.counters()["refused"]["expired_token"] == 1


def test_the_life_of_a_token_is_a_knob(start: Callable[..., Asker], clock: Clock) -> None:
    session = Session(start(faults=Faults(token_seconds=10)))
    headers = bearer(session.exchange())
    clock.advance(11)
    assert session.report(headers).status_code == 401


def test_all_tokens_can_be_expired_at_once(session: Session) -> None:
    answer = session.exchange()
    session.source.sandbox.expire_tokens()
    assert session.report(bearer(answer)).text == "Jwt is expired"
    assert session.report(bearer(session.refresh(answer.json()["refreshToken"]))).status_code == 200


def test_a_refresh_token_is_spent_by_use(session: Session) -> None:
    first = session.exchange().json()["refreshToken"]
    renewed = session.refresh(first)
    assert session.report(bearer(renewed)).status_code == 200
    assert session.refresh(first).status_code == 401
    assert session.refresh(renewed.json()["refreshToken"]).status_code == 200


def test_without_include_refresh_there_is_no_refresh_token(session: Session) -> None:
    form = {"rcAccessToken": session.oauth().json()["access_token"], "rcTokenType": "Bearer"}
    assert session.post("/api/auth/login/rc/accesstoken", data=form).json()["refreshToken"] is None


def test_wrong_credentials_are_told_apart(session: Session) -> None:
    assert session.oauth(secret="wrong").json()["error"] == "invalid_client"
    assert session.oauth(jwt="wrong").json()["error"] == "invalid_grant"
    assert session.oauth(grant="password").json()["error"] == "unsupported_grant_type"
    assert session.exchange("wrong").status_code == 401
    assert session.source.sandbox.counters()["refused"]["bad_login"] == 4


def test_a_password_leads_to_a_legacy_token_for_an_hour_renewed_by_use(session: Session, clock: Clock) -> None:
    form = {"username": session.own.username, "password": session.own.password}
    for base in ("/api", "/voice/api"):
        answer = session.post(f"{base}/v1/auth/login", data=form)
    headers = {"X-Auth-Token": answer.json()["authToken"]}
    for _ in range(3):
        clock.advance(3000)
        assert session.report(headers).status_code == 200
    clock.advance(3601)
    assert session.report(headers).status_code == 401
    assert session.post("/api/v1/auth/login", data=form | {"password": "wrong"}).status_code == 401


def test_a_permanent_token_never_expires(session: Session, clock: Clock) -> None:
    clock.advance(86_400 * 400)
    assert session.report({"X-Auth-Token": session.own.api_token}).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"X-Auth-Token": "x"}, {"X-Auth-Token": "é"}])
def test_nobody_reads_a_report_without_a_good_token(session: Session, headers: dict[str, str]) -> None:
    encoded = httpx.Headers([(name.encode(), value.encode()) for name, value in headers.items()])
    assert session.report(encoded).status_code == 401


def test_another_account_is_forbidden(session: Session) -> None:
    answer = session.report({"X-Auth-Token": session.own.api_token}, account="999")
    assert answer.status_code == 403
    assert set(answer.json()) == {"generalMessage", "details", "requestUri", "timestamp"}


def test_each_account_has_its_own_calls(start: Callable[..., Asker]) -> None:
    session = Session(start(accounts=("1", "2")))
    headers = {"X-Auth-Token": session.own.api_token}
    assert session.report(headers, "1").text != session.report(headers, "2").text


def test_log_ins_are_counted(session: Session) -> None:
    session.refresh(session.exchange().json()["refreshToken"])
    counted = session.source.sandbox.counters()["logins"]
    assert counted == {"oauth": 1, "exchange": 1, "refresh": 1, "legacy_login": 0}
