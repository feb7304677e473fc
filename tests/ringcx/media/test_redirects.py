"""Redirects, and where credentials are sent."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx
import pytest

from pipelines.ringcx.media import MediaClient, MediaFault
from tests.ringcx.media.conftest import HOST, OTHER, WAV, Source, audio, fault_of


def hops(**targets: str) -> Callable[[httpx.Request], httpx.Response]:
    """Redirects by path: `/a` goes where `a=` says, every other path is the recording."""

    def answer(request: httpx.Request) -> httpx.Response:
        target = targets.get(request.url.path.strip("/"))
        return audio() if target is None else httpx.Response(302, headers={"Location": target})

    return answer


BASIC = httpx.BasicAuth("ada", "hush")


def test_credentials_go_to_the_listed_host_and_along_its_own_redirects(make: Callable[..., MediaClient]) -> None:
    source = Source(hops(a="/b", b=f"https://{HOST}:443/c?x=1", c="../d"))
    assert make(source, auth=BASIC).fetch(f"https://{HOST}/a", "1", io.BytesIO()).size == len(WAV)
    assert [request.url.path for request in source.requests] == ["/a", "/b", "/c", "/d"]
    assert all("Authorization" in request.headers for request in source.requests)


@pytest.mark.parametrize(
    ("start", "target"),
    [
        (f"https://{HOST}/a", f"https://{OTHER}/b"),
        (f"https://{HOST}/a", f"//{OTHER}/b"),
        ("http://localhost:8000/a", "http://localhost:8001/b"),
        ("https://localhost:8000/a", "http://localhost:8000/b"),
        ("http://localhost:8000/a", "http://127.0.0.1:8000/b"),
    ],
)
def test_credentials_do_not_follow_a_redirect_to_another_origin_nor_come_back(
    make: Callable[..., MediaClient], start: str, target: str
) -> None:
    source = Source(hops(a=target, b=start.replace("/a", "/c")))
    make(source, auth=BASIC).fetch(start, "1", io.BytesIO())
    assert ["Authorization" in request.headers for request in source.requests] == [True, False, False]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/b",
        f"http://{HOST}/b",
        f"https://{HOST}:8443/b",
        f"https://user:hush@{HOST}/b",
        "file:///etc/passwd",
        "https://169.254.169.254/latest/meta-data",
        "/a",  # to itself, without end
    ],
)
def test_a_redirect_that_is_not_allowed_is_not_followed(make: Callable[..., MediaClient], target: str) -> None:
    source = Source(hops(a=target))
    assert fault_of(make(source, auth=BASIC), f"https://{HOST}/a") == ("refused", "redirect_not_allowed", 302)
    assert {request.url.host for request in source.requests} == {HOST}
    assert len(source.requests) == (6 if target == "/a" else 1)


def test_a_refused_redirect_is_reported_with_the_host_that_it_leads_to_and_without_its_query(
    make: Callable[..., MediaClient],
) -> None:
    source = Source(hops(a="https://ada:hush@store.example/b?token=hush"))
    with pytest.raises(MediaFault, match=r"at https://store\.example/b: redirect_not_allowed") as fault:
        make(source).fetch(f"https://{HOST}/a", "1", io.BytesIO())
    assert "hush" not in str(fault.value)


def test_a_redirect_to_an_address_that_cannot_be_read_ends_without_a_request(make: Callable[..., MediaClient]) -> None:
    source = Source(hops(a="https://evil.example:port/"))
    assert fault_of(make(source), f"https://{HOST}/a")[0] in {"refused", "unavailable"}
    assert {request.url.host for request in source.requests} == {HOST}
