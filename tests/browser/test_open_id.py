"""Signing in with OpenID Connect, at a provider that is real but for its users."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from tests.browser.site import ORIGIN, Site, path_of, tone

with warnings.catch_warnings():
    from authlib.deprecate import AuthlibDeprecationWarning

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)  # the provider's own, of what it uses
    import oidc_provider_mock

pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config")  # likewise


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with oidc_provider_mock.run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def full(site: Site, provider: str) -> Site:
    site.add(tone(1, 300))
    site.seal()
    site.settings = {
        "auth": "oidc",
        "oidc_issuer": provider,
        "oidc_client_id": "archive",
        "oidc_client_secret": "secret of the archive",
    }
    site.rules('[users."ava@example.com"]\nroles = ["listen_all"]\n[groups.auditors]\nroles = ["metadata"]\n')
    return site


def has_user(provider: str, subject: str, **claims: object) -> None:
    httpx.put(f"{provider}/users/{subject}", json=claims).raise_for_status()


def sign_in(client: TestClient, subject: str) -> httpx.Response:
    """Go to the provider, say who one is, and come back."""
    way = client.get("/sign-in", follow_redirects=False)
    assert way.status_code == 302
    asked = parse_qs(urlsplit(way.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{ORIGIN}/signed-in"]
    back = httpx.post(way.headers["location"], data={"sub": subject})
    assert back.status_code == 302, back.text
    return client.get(back.headers["location"], follow_redirects=False)


def test_a_user_and_a_group_of_the_provider_have_the_rights_of_the_access_file(full: Site, provider: str) -> None:
    has_user(provider, "ava", email="ava@example.com", email_verified=True)
    has_user(provider, "otto", email="otto@example.com", groups=["auditors", "others"])
    has_user(provider, "eve", email="eve@example.com")
    path = path_of(full.rows[0])
    client = full.client()
    assert client.get(path, follow_redirects=False).headers["location"] == "/sign-in"
    assert sign_in(client, "ava").headers["location"] == path
    assert "<audio" in client.get(path).text
    auditor, stranger = full.client(), full.client()
    assert sign_in(auditor, "otto").status_code == 303
    assert auditor.get(path).status_code == 200
    assert "<audio" not in auditor.get(path).text
    assert sign_in(stranger, "eve").status_code == 303
    assert stranger.get(path).status_code == 404
    assert [entry["user"] for entry in full.log("sign_in")] == [
        "ava@example.com",
        "otto@example.com",
        "eve@example.com",
    ]


def test_an_address_that_is_not_verified_signs_nobody_in(full: Site, provider: str) -> None:
    has_user(provider, "mallory", email="ava@example.com", email_verified=False)
    client = full.client()
    assert sign_in(client, "mallory").status_code == 403
    assert client.get("/", follow_redirects=False).headers["location"] == "/sign-in"


@pytest.mark.parametrize("query", ["", "?code=forged&state=forged", "?error=access_denied"])
def test_an_answer_that_was_not_asked_for_signs_nobody_in(full: Site, query: str) -> None:
    client = full.client()
    client.get("/sign-in", follow_redirects=False)
    assert client.get(f"/signed-in{query}").status_code == 403


def test_a_provider_that_does_not_answer_is_said(full: Site) -> None:
    full.settings |= {"oidc_issuer": "http://127.0.0.1:9"}
    assert full.client().get("/sign-in").status_code == 502
