"""The pages in a real browser: live, quiet in the console, and asking nobody else."""

import os
import shutil
from contextlib import contextmanager

import pytest

from contract_tests import build
from registry_api import load_settings, open_store
from tests import legacy
from tests.dashboard.serving import serving

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
if CHROMIUM is None and os.environ.get("CI"):
    raise RuntimeError("chromium must be there in CI: sh tests/packages.sh")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sh tests/packages.sh")


@contextmanager
def browsing(served, **options):
    """Open a browser that is signed in; yields its context, and fails on any complaint."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(**options)
        said, asked = [], []
        context.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        context.on("weberror", lambda e: said.append(str(e.error)))
        context.on("request", lambda r: asked.append(r.url))
        page = context.new_page()
        page.goto(f"{served.url}/?token={served.operator}")
        assert "token" not in page.url
        context.said = said
        yield context, page
        assert [url for url in asked if not url.startswith((served.url, "data:"))] == []
        browser.close()


@pytest.fixture
def workspace(tmp_path):
    agents = [{"id": "a", "type": "builder", "status": "running", "progress": 10}]
    phases = [{"id": "p", "order": 1, "name": "build", "status": "ACTIVE"}]
    legacy.write_task(tmp_path, "TASK-1", agents=agents, phases=phases, current_phase_index=0)
    return tmp_path


def live(page):
    says(page, "#state", "live")


def says(page, selector, text):
    """Wait until an element says it; the policy of the page allows no other way to wait."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text, timeout=20_000)


def test_every_page(workspace):
    """Each has a heading, one thing to skip to, labels on what can be filled in; none complains."""
    with serving(workspace) as served, browsing(served) as (context, page):
        for path in ("/", "/migration", "/tasks/TASK-1", "/tasks/TASK-1/agents/a"):
            page.goto(served.url + path)
            live(page)
            assert page.locator("h1").count() == 1
            assert page.locator("main").count() == 1
            for field in page.locator("input, select").all():
                assert field.evaluate("e => e.labels.length") == 1
        assert context.said == []


def test_a_commit_shows_by_itself(workspace):
    """Of another process, and an older program's edit; the title follows."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served, browsing(served) as (context, page):
        live(page)
        assert page.locator("[data-count=total_agents]").inner_text() == "1"
        build.make(store, "NEW-1", build.agent("NEW-1", "x"), description="made just now")
        page.get_by_text("made just now").wait_for()
        says(page, "[data-count=total_agents]", "2")
        legacy.edit(workspace / "TASK-1" / "AGENT_REGISTRY.json", legacy.add_agent("foreign"))
        says(page, "[data-count=total_agents]", "3")
        assert context.said == []
    store.close()


def test_ten_tabs_share_one_stream(workspace):
    """The seventh works too, and all follow; a hidden one costs nothing."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served, browsing(served) as (context, first):
        live(first)
        streams = []
        context.on("request", lambda r: streams.append(r) if "/api/events" in r.url else None)
        tabs = [context.new_page() for _ in range(9)]
        for tab in tabs:
            tab.goto(served.url)
            tab.locator("h1").wait_for()
        build.make(store, "NEW-1", description="seen by all")
        for tab in (first, *tabs):
            tab.get_by_text("seen by all").wait_for()
        assert len(streams) <= 1
    store.close()


def test_it_comes_back_after_a_restart(workspace):
    """Disconnected is said; then it is live again, with what happened meanwhile."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served:
        port = served.url.rpartition(":")[2]
    with serving(workspace, port=port) as served, browsing(served) as (_, page):
        live(page)
        served.process.terminate()
        served.process.wait()
        says(page, "#state", "disconnected, trying again")
        build.make(store, "NEW-1", description="while it was away")
        with serving(workspace, port=port):
            page.get_by_text("while it was away").wait_for()
            live(page)
    store.close()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 360, "height": 740}}, id="phone"),
        pytest.param({"java_script_enabled": False}, id="no-script"),
    ],
)
def test_dark_small_and_without_a_script(workspace, options, tmp_path):
    """Something is on it, nothing sticks out of it, and it can be walked by keyboard."""
    with serving(workspace) as served, browsing(served, **options) as (_, page):
        page.goto(f"{served.url}/tasks/TASK-1")
        page.locator("h1").wait_for()
        picture = page.screenshot()
        assert len(picture) > 5_000
        if options.get("java_script_enabled", True):
            wide = "document.documentElement.scrollWidth <= innerWidth"
            assert page.evaluate(wide)
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
