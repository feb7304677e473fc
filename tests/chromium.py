"""A real browser: headless Chromium, the system's or playwright's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """The browser; without one the tests are skipped, except in CI."""
    system = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=system, args=[*FLAGS, *flags])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium: install `chromium`, or run `playwright install chromium` ({error.message[:80]})")
        yield opened
        opened.close()
