"""What a person does in the browser: looks at the graph, archives a date, reads what came of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sandbox.faults import Faults, Where
from sandbox.server import RunningSandbox
from tests.chromium import chromium
from tests.dagster.conftest import Dagster, back

GROUPS = {
    "reports": ("agent_segment_metadata", "global_call_type_detail"),
    "recordings": ("recording_links", "recordings"),
    "proof": ("daily_manifest",),
    "search": ("calls",),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 2000, "height": 1100})
    opened.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield opened
    opened.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: the folder `UI_SHOTS`, or the test's own."""
    return Path(os.environ.get("UI_SHOTS") or tmp_path)


def test_a_date_is_archived_from_the_browser_and_its_page_tells_what_is_held_and_what_is_not(
    dagster: Dagster, sandbox: RunningSandbox, page: Page, shots: Path
) -> None:
    day = back(6)
    absent = min(dagster.truth(day))
    sandbox.set_faults(Faults(not_found=Where(paths=(f"*/{absent}",)), slow=Where(share=1.0), slow_bytes_per_s=12_000))

    nodes = dagster.ask("{ assetNodes { groupName assetKey { path } } }")
    assert {(node["groupName"], *node["assetKey"]["path"]) for node in nodes} == {
        (group, name) for group, names in GROUPS.items() for name in names
    }
    for group, names in GROUPS.items():
        # The page moves to the group that was opened, and draws nothing that is out of sight.
        page.goto(f"{dagster.url}/asset-groups")
        page.locator("svg foreignObject").get_by_text(group, exact=True).first.click()
        for name in names:
            # The last: the group that an asset is in may have its name.
            expect(page.locator("svg foreignObject").get_by_text(name, exact=True).last).to_be_visible()
    page.screenshot(path=shots / "graph.png")

    page.get_by_text("Materialize all").click()
    dates = page.get_by_placeholder(re.compile("No matching partitions|^ex: "))
    dates.fill(f"[{day}...{day + timedelta(days=2)}]")
    dates.press("Tab")
    expect(page.get_by_role("button", name="Launch backfill")).to_be_visible()
    dates.fill(day.isoformat())
    dates.press("Tab")
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_role("link", name="View", exact=True).click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text(re.compile(r"^\d+ of \d+ recordings done")).first).to_be_visible()
    page.screenshot(path=shots / "run-progressing.png")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.screenshot(path=shots / "run-ended.png")

    page.goto(f"{dagster.url}/assets/recordings?view=partitions&partition={day}")
    expect(page.get_by_text(re.compile(r"^1 pending \(not_found\), next attempt 20"))).to_be_visible()
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
    page.screenshot(path=shots / "partitions.png", full_page=True)
    # A call at the stroke of midnight is in this date's reports, and stored under the next.
    held = len(dagster.held(day)) + len(dagster.held(day + timedelta(days=1)))
    assert {"found": f"{held + 1}", "archived": f"{held}", "pending": "1"}.items() <= table(page).items()

    assert dagster.held(day) == {name: digest for name, digest in dagster.truth(day).items() if name != absent}


def table(page: Page) -> dict[str, str]:
    """The metadata table's first two columns; the tables within its cells are left out."""
    rows = (
        page.locator("table")
        .first.locator(":scope > tbody > tr")
        .evaluate_all("rows => rows.map(row => [...row.children].slice(0, 2).map(cell => cell.innerText.trim()))")
    )
    return dict(rows)
