"""Health, pages and audio are served while others wait: for whole recordings to be read, and for passwords."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pipelines.browser import app as app_module
from pipelines.browser.sign_in import ByPassword
from pipelines.evidence.integrity import IntegrityResult
from pipelines.steps.calls.search import CallSearch
from tests.browser.site import ORIGIN, PASSWORD, Site, fields_of, path_of, tone
from tests.browser.test_page import audio_of

WAITING = 60  # more than the threads that pages share
PATIENCE = 60


class Held:
    """Something that is not done until it is let go; counts how many do it at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def wait(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go.wait(PATIENCE)
        with self._lock:
            self.now -= 1


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


def browser(app: Any, cookies: Any = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url=ORIGIN, headers={"Origin": ORIGIN}, cookies=cookies, timeout=PATIENCE
    )


async def signed_in(app: Any, name: str) -> httpx.AsyncClient:
    client = browser(app)
    assert (await client.post("/sign-in", data={"name": name, "password": PASSWORD})).status_code == 303
    return client


def test_everything_else_is_served_while_recordings_are_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    held = Held()

    def slow(*_: object) -> IntegrityResult:
        held.wait()
        return IntegrityResult(as_sealed=True, sentence="Slowly read.")

    monkeypatch.setattr(app_module, "check_recording", slow)
    codes: list[int] = []

    async def visit() -> None:
        app = site.browser().app()
        officer, quality = await signed_in(app, "officer"), await signed_in(app, "quality")
        link = audio_of((await quality.get(path_of(row))).text)

        async def check() -> None:
            codes.append((await officer.post("/check", data=fields_of(row))).status_code)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WAITING):
                    group.create_task(check())
                await until(lambda: len(codes) == WAITING - 4)
                async with asyncio.timeout(PATIENCE):
                    assert (await quality.get("/health")).status_code == 200
                    assert (await quality.get(path_of(row))).status_code == 200
                    assert (await quality.get(link)).status_code == 200
                    await signed_in(app, "seller")
                held.go.set()
        finally:
            held.go.set()

    asyncio.run(visit())
    assert sorted(codes) == [200] * 4 + [429] * (WAITING - 4)
    assert held.most == 1, "one reading at once for each person"


def test_a_person_hears_few_recordings_at_once_and_others_are_not_kept_waiting(site: Site) -> None:
    row = site.add(tone(60, 300))
    site.seal()

    async def visit() -> None:
        app = site.browser().app()
        officer, quality = await signed_in(app, "officer"), await signed_in(app, "quality")
        link = audio_of((await officer.get(path_of(row))).text)
        begun: list[int] = []

        async def hear_slowly() -> None:
            async def receive() -> dict[str, Any]:
                await asyncio.sleep(PATIENCE)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    begun.append(message["status"])
                    await asyncio.sleep(PATIENCE)

            cookie = "; ".join(f"{name}={value}" for name, value in officer.cookies.items())
            headers = [(b"host", b"127.0.0.1:8090"), (b"cookie", cookie.encode())]
            scope = {
                "type": "http",
                "method": "GET",
                "path": link,
                "query_string": b"",
                "headers": headers,
            }
            await app({**scope, "client": ("127.0.0.1", 1), "root_path": "", "scheme": "http"}, receive, send)

        listeners = [asyncio.create_task(hear_slowly()) for _ in range(6)]
        await until(lambda: len(begun) == 6)
        assert begun == [200] * 6
        assert (await officer.get(link)).status_code == 429
        assert (await quality.get(audio_of((await quality.get(path_of(row))).text))).status_code == 200
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        assert (await officer.get(link)).status_code == 200

    asyncio.run(visit())


@pytest.mark.slow
def test_everything_else_is_served_while_passwords_are_hashed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    site.settings = {"proxy_addresses": "127.0.0.0/8"}
    held, codes = Held(), []
    matches = ByPassword._matches

    def slow(self: ByPassword, name: str, password: str) -> bool:
        if name.startswith("stranger"):
            held.wait()
        return matches(self, name, password)

    monkeypatch.setattr(ByPassword, "_matches", slow)

    async def visit() -> None:
        app = site.browser().app()
        quality = await signed_in(app, "quality")

        async def attempt(number: int) -> None:
            async with browser(app) as client:
                answer = await client.post(
                    "/sign-in",
                    data={"name": f"stranger{number}", "password": "x"},
                    headers={"X-Forwarded-For": f"203.0.113.{number}"},
                )
                codes.append(answer.status_code)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(WAITING):
                    group.create_task(attempt(number))
                await until(lambda: held.now == 2)
                async with asyncio.timeout(PATIENCE):
                    assert (await quality.get("/health")).status_code == 200
                    assert (await quality.get(path_of(row))).status_code == 200
                held.go.set()
        finally:
            held.go.set()

    asyncio.run(visit())
    assert codes == [401] * WAITING
    assert held.most == 2


def test_a_person_runs_few_searches_at_once_and_who_leaves_ends_theirs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add(tone(1, 300))
    site.seal()
    monkeypatch.setattr(app_module, "_CLIENT_CHECK_S", 0.01)
    began, ended, real = Held(), Held(), CallSearch.find

    def slow(self: CallSearch, *asked: Any, stop: Callable[[], bool], **how: Any) -> Any:
        began.now += 1
        while not began.go.is_set() and not stop():
            time.sleep(0.01)
        ended.now += stop()
        return real(self, *asked, stop=stop, **how)

    monkeypatch.setattr(CallSearch, "find", slow)
    codes: list[int] = []

    async def visit() -> None:
        app = site.browser().app()
        officer, quality = await signed_in(app, "officer"), await signed_in(app, "quality")
        query = {"from": "2026-11-22", "to": "2026-11-22", "notes": "asked"}
        asked = (await officer.post("/search", data=query)).headers["location"]
        theirs = (await quality.post("/search", data=query)).headers["location"]

        async def search() -> None:
            codes.append((await officer.get(asked)).status_code)

        async def leave() -> None:
            cookie = "; ".join(f"{name}={value}" for name, value in officer.cookies.items())
            headers = [(b"host", b"127.0.0.1:8090"), (b"cookie", cookie.encode())]
            scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": headers}
            scope |= {"query_string": asked.partition("?")[2].encode(), "client": ("127.0.0.1", 1)}

            async def receive() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            async def send(_: Any) -> None:
                pass

            await app({**scope, "root_path": "", "scheme": "http"}, receive, send)

        async with asyncio.timeout(PATIENCE):
            await leave()
        assert ended.now == 1
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(search())
                await until(lambda: began.now == 4)
                refused = await officer.get(asked)
                assert refused.status_code == 429
                assert "3 of your searches are still running" in refused.text
                other = group.create_task(quality.get(theirs))
                await until(lambda: began.now == 5)
                began.go.set()
            assert other.result().status_code == 200
        finally:
            began.go.set()

    asyncio.run(visit())
    assert codes == [200] * 3
