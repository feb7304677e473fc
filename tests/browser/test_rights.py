"""Who may do what, and who cannot get in."""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.archive.keys import access_prefix
from pipelines.browser.searching import PAGE
from pipelines.settings import BrowseSettings, SettingsError, load
from tests.browser.site import (
    ACCOUNT,
    DAY,
    HASHER,
    ORIGIN,
    PASSWORD,
    SALES,
    SUPPORT,
    Site,
    TestClient,
    fields_of,
    path_of,
    tone,
)
from tests.browser.test_page import SEARCH, audio_of

FOREIGN = "2026112219154001516000000099"


@pytest.fixture
def full(site: Site) -> Site:
    """One call of the team `sales`, and one of another team."""
    site.add(tone(1, 300))
    site.add(tone(1, 300), uii=FOREIGN, agent_id=SUPPORT, agent_name="Grace Hopper")
    site.seal()
    return site


def test_a_supervisor_finds_and_hears_the_own_team_alone(full: Site) -> None:
    client = full.client("seller")
    own, foreign = full.rows
    text = client.post("/search", data=SEARCH).text
    assert "1 call" in text
    assert "Grace" not in text
    assert client.get(audio_of(client.get(path_of(own)).text)).status_code == 200
    assert client.get(path_of(foreign)).status_code == 404
    assert client.get("/link", params=fields_of(foreign)).status_code == 404
    assert client.post("/check", data=fields_of(foreign)).status_code == 404
    assert {entry["uii"] for entry in full.log("refused")} == {FOREIGN}
    assert {entry["user"] for entry in full.log("refused")} == {"seller"}


def test_a_supervisor_reads_all_pages_of_the_own_teams_calls_between_many_of_others(site: Site) -> None:
    for number in range(3 * PAGE + 12):
        mine = number % 3 == 0
        site.add(None, uii=f"20261122191540015160000{number:05}", agent_id=SALES if mine else SUPPORT)
    site.seal()
    client, pages = site.client("seller"), []
    token = httpx.URL(client.post("/search", data=SEARCH, follow_redirects=False).headers["location"]).params["q"]
    for page in (0, 1):
        text = client.get(f"/?q={token}&page={page}").text
        pages.append(re.findall(rf"/calls/{DAY}/{ACCOUNT}/([0-9]+)", text))
        assert ("Older calls" in text) == (page == 0)
    own = [row["uii"] for row in reversed(site.rows) if row["agent_id"] == SALES]
    assert pages == [own[:PAGE], own[PAGE:]]


@pytest.mark.parametrize(("field", "name"), [("agent", "agent_name"), ("queue", "queue_name")])
def test_no_part_of_a_number_in_a_name_is_looked_for_by_who_may_not_see_numbers(
    site: Site, field: str, name: str
) -> None:
    row = site.add(None, **{name: "Grace 602 555 0142"})
    site.seal()
    for person, finds in (("auditor", False), ("quality", True)):
        client = site.client(person)
        for part, found in (("602", finds), ("2", finds), ("grace", True), (row[f"{field}_id"], True)):
            assert ("1 call" in client.post("/search", data=SEARCH | {field: part}).text) == found


def test_a_recording_of_a_whole_call_is_heard_when_all_who_spoke_are_the_teams(site: Site) -> None:
    both = site.add(tone(1, 300), agent_id=f"{SALES}; {SUPPORT}", layout="mono")
    site.seal()
    client = site.client("seller")
    assert "You may not play this recording" in client.get(path_of(both)).text
    assert client.get("/link", params=fields_of(both)).status_code == 403
    assert site.log("refused")


def test_a_call_that_does_not_exist_is_answered_and_logged_as_a_hidden_one(full: Site) -> None:
    client = full.client("seller")
    hidden = client.get(path_of(full.rows[1]))
    missing = client.get(path_of(full.rows[1] | {"uii": "2026112219154001516000000055"}))
    assert (missing.status_code, missing.text.replace("0055", "0099")) == (hidden.status_code, hidden.text)
    assert [entry.get("uii") for entry in full.log("refused")] == [FOREIGN, None]


def test_an_auditor_sees_every_call_and_hears_none(full: Site) -> None:
    client = full.client("auditor")
    assert "2 calls" in client.post("/search", data=SEARCH).text
    text = client.get(path_of(full.rows[0])).text
    assert "<audio" not in text
    assert client.get("/link", params=fields_of(full.rows[0])).status_code == 403
    link = audio_of(full.client("officer").get(path_of(full.rows[0])).text)
    assert client.get(link).status_code == 403


def test_numbers_are_masked_in_fields_and_in_notes_and_cannot_be_found_out_by_searching(full: Site) -> None:
    client = full.client("auditor")
    for text in (client.get(path_of(full.rows[0])).text, client.post("/search", data=SEARCH).text):
        assert "555-0142" not in text
        assert "+• (•••) •••-••42" in text
        assert 'name="number"' not in text
    assert client.post("/search", data=SEARCH | {"number": "602"}).status_code == 400
    assert "555-0142" in full.client("quality").get(path_of(full.rows[0])).text


@pytest.mark.parametrize("field", ["notes", "disposition"])
@pytest.mark.parametrize("part", ["602", "60", "5-01", "2) 55", "call 7", "٦", "６", "²"])
def test_no_part_of_a_number_is_looked_for_by_who_may_not_see_numbers(site: Site, field: str, part: str) -> None:
    client = site.client("auditor")
    answer = client.post("/search", data=SEARCH | {field: part})
    assert (answer.status_code, "for digits" in answer.text) == (400, True)


SEPARATORS = ["", "-", "–", "\u2011", "—", ", ", "_", ":", "*", ")  - ", "\u200b", " · "]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_number_is_masked_however_it_is_written_and_in_every_text(site: Site, separator: str) -> None:
    written = f"x{separator.join('6025550142')}y"
    texts = ("notes", "disposition", "agent_name", "agent_login", "queue_name", "session")
    row = site.add(tone(1, 300), ani=None, dnis=None, **dict.fromkeys(texts, written))
    site.seal()
    client = site.client("auditor")
    pages = (client.get(path_of(row)).text, client.post("/search", data=SEARCH).text)
    for text in map(html.unescape, pages):
        assert written not in text
        assert f"x{separator.join('••••••••42')}y" in text
    assert written in html.unescape(site.client("quality").get(path_of(row)).text)


def test_two_digits_and_words_are_not_masked(site: Site) -> None:
    row = site.add(tone(1, 300), notes="room 12, two of 10 left")
    site.seal()
    assert "room 12, two of 10 left" in site.client("auditor").get(path_of(row)).text


def test_only_compliance_sees_the_access_log_and_only_export_downloads(full: Site) -> None:
    row = full.rows[0]
    assert "Access in the last 30 days" not in full.client("quality").get(path_of(row)).text
    assert "Access in the last 30 days" not in full.client("quality").get(f"{path_of(row)}?access=1").text
    assert "Access in the last 30 days" in full.client("officer").get(f"{path_of(row)}?access=1").text
    assert full.client("seller").post("/download", data=fields_of(row) | {"why": "curious"}).status_code == 403


def test_a_damaged_entry_of_the_access_log_is_shown_among_the_others(full: Site) -> None:
    client = full.client("officer")
    client.get(path_of(full.rows[0]))
    prefix = access_prefix(full.bucket.prefix, full.moment.date())
    key = max(key for key, _ in full.bucket.list_keys(prefix))
    full.bucket.put(key, b'{"details":[]}', content_type="application/json")
    text = client.get(f"{path_of(full.rows[0])}?access=1").text
    assert f"a damaged or altered entry: restore the first version of {key}" in text
    assert "viewed the call" in text


def test_a_person_without_a_role_gets_nothing(full: Site) -> None:
    client = full.client("nobody")
    assert "may not search for calls" in client.get("/").text
    assert client.post("/search", data=SEARCH).status_code == 403
    assert client.get(path_of(full.rows[0])).status_code == 404


def test_a_right_that_is_taken_away_is_gone_with_the_next_request(full: Site) -> None:
    client = full.client("officer")
    assert client.get(path_of(full.rows[0])).status_code == 200
    path = full.folder / "access.toml"
    path.write_text(path.read_text().replace('["compliance"]', '["metadata", "export"]'))
    assert "<audio" not in client.get(path_of(full.rows[0])).text
    path.write_text("users = 3")
    assert client.get("/").status_code == 503


def test_a_link_to_audio_and_audio_that_plays_end_with_the_right_to_it(site: Site) -> None:
    row = site.add(tone(130, 300))
    site.seal()
    client = site.client("seller", raise_server_exceptions=False)
    link = audio_of(client.get(path_of(row)).text)
    path = site.folder / "access.toml"
    put, before = site.bucket.put_new, path.read_text()

    def loses_the_right(*given: Any, **named: Any) -> Any:
        path.write_text(before.replace('agents = ["1001"]', 'agents = ["3003"]'))
        return put(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.bucket, "put_new", loses_the_right)
        answer = client.get(link)
    assert len(answer.content) == 60 * 16000
    (played,) = site.log("play")
    assert played["to_s"] == pytest.approx(60, abs=0.01)
    assert client.get(link).status_code == 403
    assert client.get(link.replace("/audio/", "/peaks/")).status_code == 403
    assert {entry["details"]["asked"] for entry in site.log("refused")} == {"play"}


def test_nobody_is_let_in_without_the_right_password_and_attempts_are_logged(full: Site) -> None:
    client = full.client()
    for name in ("officer", "no such person", ""):
        answer = client.post("/sign-in", data={"name": name, "password": "wrong"}, follow_redirects=False)
        assert answer.status_code == 401
    attempts = [(entry["action"], entry["user"]) for entry in full.log()]
    assert sorted(attempts) == [("sign_in_failed", "(unknown)")] * 2 + [("sign_in_failed", "officer")]
    assert client.get(path_of(full.rows[0]), follow_redirects=False).headers["location"] == "/sign-in"
    codes = [client.post("/sign-in", data={"name": "x", "password": "y"}).status_code for _ in range(12)]
    assert codes[-1] == 429


def test_a_changed_password_ends_every_session_with_the_old_one(full: Site) -> None:
    client = full.client("officer")
    other = full.client("auditor")
    path = full.folder / "access.toml"
    old = tomllib.loads(path.read_text())["users"]["officer"]["password"]
    path.write_text(path.read_text().replace(old, HASHER.hash("new password")))
    assert client.get("/", follow_redirects=False).status_code == 303
    assert other.get("/", follow_redirects=False).status_code == 200


def test_passwords_of_one_name_are_not_tried_from_many_addresses(full: Site) -> None:
    full.settings = {"proxy_addresses": "0.0.0.0/0"}
    client = TestClient(full.browser().app(), base_url=ORIGIN, headers={"Origin": ORIGIN}, client=("127.0.0.1", 5))

    def attempt(name: str, address: str) -> int:
        data = {"name": name, "password": "wrong"}
        return client.post("/sign-in", data=data, headers={"X-Forwarded-For": address}).status_code

    assert [attempt("officer", f"203.0.113.{number}") for number in range(12)] == [401] * 10 + [429] * 2
    assert attempt("auditor", "203.0.113.200") == 401
    # One connection has a whole /64 of IPv6.
    assert [attempt(f"x{number}", f"2001:db8::{number:x}") for number in range(12)] == [401] * 10 + [429] * 2
    assert attempt("y", "2001:db8:0:1::1") == 401


def test_a_session_ends_when_it_is_signed_out_also_for_who_kept_the_cookie(full: Site) -> None:
    client = full.client("officer")
    kept = dict(client.cookies)
    assert "signed out" in client.post("/sign-out").text
    client.cookies.clear()
    client.cookies.update(kept)
    assert client.get("/", follow_redirects=False).status_code == 303


def test_a_deep_link_is_followed_after_signing_in(full: Site) -> None:
    client = full.client()
    client.get(path_of(full.rows[0]))
    answer = client.post("/sign-in", data={"name": "officer", "password": PASSWORD}, follow_redirects=False)
    assert answer.headers["location"] == path_of(full.rows[0])


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "evil.example"}),
        ("GET", {"Host": "127.0.0.1"}),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "audio"}),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
        ("POST", {"Origin": "https://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_what_another_site_sends_is_refused(full: Site, method: str, headers: dict[str, str]) -> None:
    client = full.client("officer")
    answer = client.request(method, "/" if method == "GET" else "/search", headers=headers, data=SEARCH)
    assert answer.status_code == 403
    assert not full.log("search")


def test_a_form_without_any_sign_of_where_it_came_from_is_refused(full: Site) -> None:
    client = full.client("officer")
    del client.headers["Origin"]
    assert client.post("/search", data=SEARCH).status_code == 403


def test_a_link_in_a_mail_may_be_followed(full: Site) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert full.client("officer").get(path_of(full.rows[0]), headers=headers).status_code == 200


def test_every_answer_forbids_foreign_script_and_frames(full: Site) -> None:
    client = full.client("officer")
    for path in ("/", path_of(full.rows[0]), "/nowhere", "/static/page.css"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-inline" not in policy
        assert "frame-ancestors 'none'" in policy
    for path in ("/", path_of(full.rows[0])):
        text = client.get(path).text
        assert " style=" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/player.js">')


def test_too_many_requests_are_told_to_wait(full: Site) -> None:
    full.settings = {"rate": 3}
    client = full.client("officer")
    codes = [client.get("/").status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]


def test_a_proxy_is_believed_only_with_its_secret(full: Site) -> None:
    full.settings = {"auth": "proxy", "proxy_secret": "p" * 20}
    full.rules('[groups.leads]\nroles = ["metadata"]\n')
    client = full.client()
    path = path_of(full.rows[0])
    good = {"X-Forwarded-User": "officer", "X-Browse-Secret": "p" * 20}
    assert client.get(path, headers=good).status_code == 200
    grouped = good | {"X-Forwarded-User": "somebody", "X-Forwarded-Groups": "others, leads"}
    assert client.get(path, headers=grouped).status_code == 200
    for forged in (
        {"X-Forwarded-User": "officer"},
        good | {"X-Browse-Secret": "q" * 20},
        good | {"X-Forwarded-User": ""},
    ):
        assert client.get(path, headers=forged, follow_redirects=False).status_code == 303
    twice = [*good.items(), ("X-Forwarded-User", "auditor"), ("Origin", "http://127.0.0.1:8090")]
    assert client.get(path, headers=twice, follow_redirects=False).status_code == 303


def test_a_proxy_is_believed_only_at_its_address_and_says_where_people_are(full: Site) -> None:
    full.settings = {"auth": "proxy", "proxy_addresses": "10.1.0.0/16"}
    full.rules()
    headers = {"X-Forwarded-User": "officer", "X-Forwarded-For": "1.2.3.4, 203.0.113.9"}
    path = path_of(full.rows[0])
    near, far = full.client(client=("10.1.2.3", 4000)), full.client(client=("10.2.2.3", 4000))
    assert near.get(path, headers=headers).status_code == 200
    assert far.get(path, headers=headers, follow_redirects=False).status_code == 303
    assert [entry["address"] for entry in full.log("view")] == ["203.0.113.9"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "BROWSE_AUTH is not set: choose who may sign in"),
        ({"BROWSE_AUTH": "password"}, "BROWSE_ACCESS_FILE is not set"),
        ({"BROWSE_AUTH": "proxy", "BROWSE_ACCESS_FILE": "x"}, "must know who sends them"),
        ({"BROWSE_AUTH": "oidc", "BROWSE_ACCESS_FILE": "x"}, "needs BROWSE_OIDC_ISSUER"),
        ({"BROWSE_AUTH": "open", "BROWSE_HOST": "0.0.0.0"}, "BROWSE_URL is not set"),
        ({"BROWSE_AUTH": "open", "BROWSE_URL": "calls.example.com"}, "BROWSE_URL must be the address"),
        ({"BROWSE_AUTH": "open", "BROWSE_SECRET": "short"}, "BROWSE_SECRET"),
        ({"BROWSE_AUTH": "open", "BROWSE_PROXY_ADDRESSES": "proxy.local"}, "addresses or networks"),
    ],
)
def test_the_page_does_not_start_open_or_half_configured(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ({"ARCHIVE_BUCKET": "archive"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        load(BrowseSettings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[users.a]\nroles = ['boss']", "users.a.roles.0"),
        ("[users.a]\nteams = ['x']", "names the team x"),
        ("[users.a]\npassword = 'plain'", "users.a.password"),
        ("[user.a]", "user"),
        ("[", "is not TOML"),
    ],
)
def test_a_mistake_in_the_access_file_is_named_without_its_secrets(site: Site, text: str, sentence: str) -> None:
    (site.folder / "access.toml").write_text(text)
    with pytest.raises(SettingsError, match=sentence) as raised:
        site.client()
    assert "plain" not in str(raised.value)
