"""What a person does in a real browser: signs in, finds a call, hears it, mutes a channel, exports it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.archive.conftest import build_wav
from tests.browser.site import HOSTILE_NAME, PASSWORD, Site, path_of, tone
from tests.chromium import chromium
from tests.commands import run
from tests.servers.ports import free_port

SHORT, LONG = 30, 90

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--autoplay-policy=no-user-gesture-required") as opened:
        yield opened


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """The page, at an address."""
    port = free_port()
    site.settings |= {"url": f"http://127.0.0.1:{port}"}
    server = uvicorn.Server(uvicorn.Config(site.browser().app(), port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the page does not start"
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def full(site: Site) -> Iterator[tuple[Site, str]]:
    site.moment = datetime.now(UTC)
    site.key = Ed25519PrivateKey.generate()
    site.add(tone(LONG, 300, 500), notes="Asked for the invoice again.")
    site.add(tone(SHORT, 400), layout="mono", agent_channel=None)
    site.add(None, uii="2026112219154001516000000002", agent_name=HOSTILE_NAME, disposition="Refund promised\nsee 4711")
    site.seal()
    with serving(site) as url:
        yield site, url


@contextmanager
def signed_in(browser: Browser, url: str, name: str, **options: object) -> Iterator[Page]:
    """A page of somebody who is signed in; what the browser complains of fails the test."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    page.on("console", complain)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(20_000)
    page.goto(f"{url}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/")
    yield page
    context.close()
    assert complaints == []


def position(page: Page) -> float:
    found: float = page.locator("audio").first.evaluate("audio => audio.currentTime")
    return found


def seconds_played(page: Page) -> float:
    """Return how much of the audio was played, whatever was skipped and however late the machine was."""
    played: float = page.locator("audio").first.evaluate(
        "({ played }) => [...Array(played.length).keys()].reduce((sum, n) => sum + played.end(n) - played.start(n), 0)"
    )
    return played


def wait_until_heard(page: Page, seconds: float) -> None:
    deadline = time.monotonic() + 20
    while position(page) <= seconds:
        assert time.monotonic() < deadline, f"the audio stands at {position(page)} s"
        page.wait_for_timeout(50)


def test_a_call_is_found_heard_muted_linked_to_and_exported(
    full: tuple[Site, str], browser: Browser, tmp_path: Path
) -> None:
    site, url = full
    with signed_in(browser, url, "officer") as page:
        page.get_by_label("From", exact=True).fill("2026-11-22")
        page.get_by_label("To", exact=True).fill("2026-11-22")
        page.get_by_label("Number").fill("602 555 0142")
        page.get_by_label("Number").press("Enter")
        expect(page.get_by_role("status")).to_have_text("2 calls, 1 recording not held")
        expect(page.get_by_text(HOSTILE_NAME)).to_be_visible()
        page.get_by_role("rowheader").get_by_role("link").last.click()

        first = page.locator(".player").first
        expect(first).to_have_attribute("data-waveform", "2")
        assert site.log("play") == []
        first.get_by_role("button", name="Play").click()
        wait_until_heard(page, 2)
        first.get_by_role("button", name="Mute Customer").click()
        expect(first.get_by_role("button", name="Mute Customer")).to_have_attribute("aria-pressed", "true")
        page.locator("body").press("ArrowRight")
        assert position(page) > 11
        page.locator("body").press("+")
        assert page.locator("audio").first.evaluate("audio => audio.playbackRate") == 1.25
        first.get_by_role("img", name="Waveform: Agent").click(position={"x": 1, "y": 5})
        assert position(page) < 5
        page.locator("h1").click()
        page.keyboard.press(" ")
        expect(first.get_by_role("button", name="Play")).to_be_visible()
        first.get_by_role("button", name="Copy link").click()
        assert "#t=" in page.url
        page.get_by_text("Export this call, with proof").click()
        export = page.locator('form[action="/export"]')
        export.get_by_label("Why").fill("case 4711")
        with page.expect_download() as download:
            export.get_by_role("button", name="Export").click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    (package,) = tmp_path.glob("calls-*.zip")
    assert run("verify-package", [str(package)]) == 0
    assert {entry["recording_id"] for entry in site.log("export")} == {row["recording_id"] for row in site.rows[:2]}
    assert {entry["user"] for entry in site.log("play")} == {"officer"}


def test_a_link_to_a_second_plays_from_there_also_when_its_first_link_has_expired(
    full: tuple[Site, str], browser: Browser
) -> None:
    site, url = full
    with signed_in(browser, url, "officer") as page:
        page.goto(f"{url}{path_of(site.rows[0])}#t=72")
        player = page.locator(".player").first
        expect(player.locator(".clock")).to_have_text("1:12 / 1:30")
        page.evaluate("performance.now = ((now) => () => now() + 100_000)(performance.now.bind(performance))")
        player.get_by_role("button", name="Play").click()
        wait_until_heard(page, 72.5)
    assert any(entry["to_s"] > 72 for entry in site.log("play"))


def test_the_first_sound_comes_within_half_a_second(full: tuple[Site, str], browser: Browser) -> None:
    site, url = full
    with signed_in(browser, url, "officer") as page:
        page.goto(f"{url}{path_of(site.rows[0])}")
        expect(page.locator(".player").first).to_have_attribute("data-waveform", "2")
        took = page.evaluate(
            """async () => {
                const audio = document.querySelector("audio");
                const began = performance.now();
                const heard = new Promise((done) => audio.addEventListener("playing", done, { once: true }));
                document.querySelector('[data-do="play"]').click();
                await heard;
                return performance.now() - began;
            }"""
        )
        assert took < 2000  # the goal is 500 ms; a busy machine is no fault of what is tested


def test_silence_is_skipped(site: Site, browser: Browser) -> None:
    site.moment = datetime.now(UTC)
    quiet, loud = tone(8, 0, 0)[44:], tone(2, 300, 500)[44:]
    site.add(build_wav(channels=2, audio=loud + quiet + loud))
    site.seal()
    with serving(site) as url, signed_in(browser, url, "officer") as page:
        page.goto(f"{url}{path_of(site.rows[0])}")
        expect(page.locator(".player").first).to_have_attribute("data-waveform", "2")
        page.get_by_label("Skip silence").check()
        page.get_by_role("button", name="Play").click()
        wait_until_heard(page, 9.5)
        assert seconds_played(page) < 8  # of 9.5


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_their_window(
    full: tuple[Site, str], browser: Browser, width: int, scheme: str, tmp_path: Path
) -> None:
    site, url = full
    shots = Path(os.environ.get("UI_SHOTS") or tmp_path)
    window = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with signed_in(browser, url, "officer", **window) as page:
        page.get_by_label("From", exact=True).fill("2026-11-20")
        page.get_by_label("To", exact=True).fill("2026-11-22")
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("status")).to_be_visible()
        page.screenshot(path=shots / f"find-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"{url}{path_of(site.rows[0])}")
        expect(page.locator(".player").first).to_have_attribute("data-waveform", "2")
        page.get_by_role("button", name="Check the bytes").first.click()
        expect(page.get_by_text("The bytes are as sealed").first).to_be_visible()
        expect(page.locator(".player").first).to_have_attribute("data-waveform", "2")
        page.screenshot(path=shots / f"call-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(full: tuple[Site, str], browser: Browser, scheme: str) -> None:
    site, url = full
    with signed_in(browser, url, "officer", color_scheme=scheme) as page:
        page.get_by_label("From", exact=True).fill("2026-11-20")
        page.get_by_label("To", exact=True).fill("2026-11-22")
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("status")).to_be_visible()
        assert serious(page) == []
        page.goto(f"{url}{path_of(site.rows[0])}")
        expect(page.locator(".player").first).to_have_attribute("data-waveform", "2")
        for details in page.locator("summary").all():
            details.click()
        assert serious(page) == []
        page.context.clear_cookies()
        page.goto(f"{url}/sign-in")
        assert serious(page) == []


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def test_without_script_a_call_is_found_and_heard(full: tuple[Site, str], browser: Browser) -> None:
    site, url = full
    with signed_in(browser, url, "officer", java_script_enabled=False) as page:
        page.goto(f"{url}{path_of(site.rows[0])}")
        assert page.locator("audio[controls]").count() == 2
        link = page.locator("audio").first.get_attribute("src")
        answer = page.request.get(f"{url}{link}", headers={"Range": "bytes=0-99"})
        assert (answer.status, answer.headers["content-range"][:11]) == (206, "bytes 0-99/")
