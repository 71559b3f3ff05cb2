"""The pages in a real browser: live, no console errors, no requests to other hosts."""

import os
import shutil
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract_tests import build
from registry_api import (
    AgentStatus,
    Handover,
    Kind,
    PhaseStatus,
    RecordQuery,
    Review,
    ReviewStatus,
    load_settings,
    open_store,
)
from registry_api.migration import MigrationPhase
from registry_api.records import ACTIVE_AGENT, json_text
from tests import legacy
from tests.dashboard.serving import serving
from tests.dashboard.test_pages import SCRIPTS
from tests.dashboard.writing import writing
from tests.orchestrator.playing import until

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ONE = "TASK-20261123-080000-1a2b3c4d"
SCREEN = {"width": 1100, "height": 800}
EVERY_PICTURE = Path(os.environ["EVERY_PICTURE"]) if os.environ.get("EVERY_PICTURE") else None
PICTURES = Path(os.environ["PICTURES"]) if os.environ.get("PICTURES") else None
if CHROMIUM is None and os.environ.get("CI"):
    raise RuntimeError("chromium must be there in CI: sh tests/packages.sh")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sh tests/packages.sh")


@contextmanager
def browsing(served, **options):
    """Open a signed-in browser; yields its context, which collects errors, and its page."""
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


SUMMARY = """# The old form

It **validates twice**, see `login.py`:

- in the page
- in the [view](https://example.org/view)

| field | checked |
|-------|---------|
| name  | yes     |
"""
ATTACH = ["tmux", "-L", "registry-1", "attach-session", "-t", "=builder"]


def fill(workspace):
    """Write a legacy registry, and a task with everything that a page can show."""
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])
    now = datetime.now(UTC)

    def ago(minutes):
        return now - timedelta(minutes=minutes)

    with closing(open_store(load_settings(workspace, env={}))) as store:
        build.make(
            store,
            ONE,
            build.phase(
                ONE,
                name="investigate",
                status=PhaseStatus.APPROVED,
                started_at=ago(90),
                completed_at=ago(60),
            ),
            build.phase(
                ONE,
                1,
                name="build",
                status=PhaseStatus.ESCALATED,
                started_at=ago(60),
                revision_round=3,
            ),
            build.phase(ONE, 2, name="prove"),
            Review(
                task_id=ONE,
                review_id="review-1",
                phase_index=0,
                status=ReviewStatus.COMPLETED,
                verdict="approved",
                created_at=ago(65),
            ),
            Review(
                task_id=ONE,
                review_id="review-2",
                phase_index=1,
                status=ReviewStatus.COMPLETED,
                verdict="needs_revision",
                created_at=ago(20),
            ),
            build.agent(
                ONE,
                "builder",
                type="builder",
                status="working",
                last_update=ago(1),
                extra=json_text.dump_text({"attach": ATTACH}),
            ),
            build.agent(
                ONE,
                "tester",
                type="tester",
                status="running",
                progress=20,
                last_update=ago(2),
                parent="builder",
            ),
            build.agent(
                ONE, "explorer", type="explorer", status="completed", progress=100, depth=1
            ),
            description="Move the login page to the new form library",
            created_at=ago(90),
        )
        for n in range(12):
            said = build.report(
                ONE, "builder", message=f"step {n} of 12", progress=8 * n, timestamp=ago(12 - n)
            )
            build.put(store, said, expected=None)
        for severity, message in (
            ("high", "The session cookie is not rotated on login"),
            ("low", "Two styles of imports"),
        ):
            found = build.finding(
                ONE, agent_id="builder", severity=severity, message=message, timestamp=ago(5)
            )
            build.put(store, found, expected=None)
        left = Handover(
            task_id=ONE,
            handover_id="after-investigation",
            from_phase_index=0,
            to_phase_index=1,
            created_at=ago(60),
            summary=SUMMARY,
            key_findings=("The view trusts a hidden field",),
        )
        build.put(store, left, expected=None)
    logs = workspace / ONE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "builder_stream.jsonl").write_text(
        '{"type": "assistant", "text": "reading"}\n'
        + "".join(f"\x1b[{n}mcolour {n}\x1b[0m " for n in (1, 2, *range(30, 38), *range(90, 98)))
        + "\n"
    )


def live(page):
    says(page, "#state", "live")


def says(page, selector, text):
    """Wait until an element has a text; the page's security policy allows no other way to wait."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text, timeout=20_000)


def titled(page, title):
    from playwright.sync_api import expect

    expect(page).to_have_title(title, timeout=20_000)


PAGES = {
    "overview": "/",
    "task": f"/tasks/{ONE}",
    "agent": f"/tasks/{ONE}/agents/builder",
    "reviews": "/reviews",
    "migration": "/migration",
    "system": "/system",
}


PHONE = {"width": 390, "height": 844}
LOOKS = [
    ("light", SCREEN, 5),
    ("dark", SCREEN, 5),
    ("light", PHONE, 5),
    ("light", SCREEN, 0),
    ("light", SCREEN, 60),
    ("dark", PHONE, 60),
]
SHIFTED = """new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 200);
})"""


def fill_more(workspace, agents):
    """Add agents of every status, some silent, with reports, and a conflict with a late program."""
    now = datetime.now(UTC)
    with closing(open_store(load_settings(workspace, env={}))) as store:
        for n in range(agents):
            status = list(AgentStatus)[n % len(AgentStatus)]
            started = now - timedelta(minutes=7 * n + 1)
            ended = {} if status in ACTIVE_AGENT else {"completed_at": now - timedelta(minutes=n)}
            agent = build.agent(
                ONE,
                f"worker-{n:02}",
                type="worker",
                model="opus",
                status=status,
                progress=n % 101,
                started_at=started,
                last_update=now - timedelta(minutes=n),
                parent="builder" if n % 3 else f"worker-{n - 1:02}" if n else None,
                extra=json_text.dump_text({"attempt": 1 + n % 3}),
                **ended,
            )
            said = build.report(ONE, agent.agent_id, message=f"did part {n} " * 9, timestamp=now)
            build.put(store, agent, said, expected=store.head(ONE).revision)
    legacy.edit(workspace / "TASK-1" / "AGENT_REGISTRY.json", lambda d: d["agents"].clear())


@pytest.mark.parametrize(("scheme", "screen", "agents"), LOOKS)
def test_every_page(tmp_path, scheme, screen, agents):
    """No console errors, no shift of the layout; contrast, labels, names and order meet WCAG AA by
    axe's rules."""
    from axe_playwright_python.sync_playwright import Axe

    pages = dict(PAGES)
    if agents:
        fill(tmp_path)
    else:
        del pages["task"], pages["agent"]
    if agents > 5:
        fill_more(tmp_path, agents - 5)
    tags = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    with (
        serving(tmp_path) as served,
        browsing(served, color_scheme=scheme, viewport=screen) as (context, page),
    ):
        for name, path in pages.items():
            page.goto(served.url + path)
            live(page)
            assert page.locator("h1").count() == 1
            found = Axe().run(page, options=tags)
            assert found.violations_count == 0, (name, found.generate_report())
            if name == "migration" and agents:
                page.get_by_role("button", name="Switch to 1").click()
                found = Axe().run(page, options=tags)
                assert found.violations_count == 0, found.generate_report()
                page.get_by_role("button", name="Cancel").click()
                page.get_by_role("button", name="Plan 0").click()
                page.get_by_role("heading", name="Plan 1: done").wait_for()
                found = Axe().run(page, options=tags)
                assert found.violations_count == 0, found.generate_report()
            assert page.evaluate(SHIFTED) <= 0.05, name
            if PICTURES:  # a picture of the docs shows no path of the machine that it was taken on
                for cell in page.get_by_text(str(tmp_path)).all():
                    cell.evaluate("e => { e.textContent = '/home/me/project/.agent-workspace' }")
            shot = page.screenshot(full_page=True)
            assert len(shot) > 10_000
            if PICTURES and (scheme, screen, agents) == LOOKS[0]:
                (PICTURES / f"{name}.png").write_bytes(shot)
            if EVERY_PICTURE:
                where = EVERY_PICTURE / f"{name}-{scheme}-{screen['width']}-{agents}.png"
                where.write_bytes(shot)
        assert context.said == []


def test_a_whole_move_by_clicks(workspace):
    """Phase 0 to 4 and back to 0, each switch confirmed, under eight writers: no write is lost."""
    with (
        closing(open_store(load_settings(workspace, env={}))) as store,
        serving(workspace, REGISTRY_RETIRE_SECONDS="0") as served,
        browsing(served) as (context, page),
        writing(store, pause=0.01),
    ):
        page.goto(f"{served.url}/migration")
        live(page)
        page.get_by_role("button", name="Plan 0").click()
        page.get_by_text("would switch 0").wait_for()
        now = 0
        for to in (1, 2, 3, 4, 3, 2, 1, 0):
            verb = "Switch to" if to > now else "Step back to"
            page.get_by_role("button", name=f"{verb} {to}").click()
            page.locator("dialog").get_by_role("button", name=f"{verb} {to}").click()
            page.get_by_text(f"switched {now} → {to}").wait_for(timeout=240_000)
            says(page, "h1", f"Phase {to}: {MigrationPhase(to).name}")
            now = to
        page.get_by_role("button", name="Verify").click()
        page.get_by_role("heading", name="Verify: done").wait_for()
        assert context.said == []


def test_an_operator_at_the_keyboard(tmp_path):
    """An action needs a confirmation and a reason; Escape cancels it; the focus stays."""
    fill(tmp_path)
    store = open_store(load_settings(tmp_path, env={}))
    with serving(tmp_path) as served, browsing(served) as (context, page):
        page.goto(f"{served.url}/reviews")
        live(page)
        button = page.get_by_role("button", name="Force-approve")
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Reason").wait_for()
        build.put(store, build.report(ONE, "builder", message="while asked"), expected=None)
        page.wait_for_timeout(1000)
        page.keyboard.press("Escape")
        says(page, "dialog:not([open]) #yes", "Force-approve")
        build.put(store, build.report(ONE, "builder", message="meanwhile"), expected=None)
        page.wait_for_timeout(1000)
        assert button.evaluate("e => e === document.activeElement")
        page.keyboard.press("Enter")
        page.keyboard.type("looked at it myself")
        page.get_by_role("button", name="Force-approve").last.click()
        page.get_by_text("No phase waits for a human.").wait_for()
        assert "looked at it myself" in store.load(ONE).phase(1).extra
        # A long press is one click, however often the page is replaced meanwhile.
        page.goto(f"{served.url}/tasks/{ONE}/agents/builder")
        stop = page.get_by_role("button", name="Stop agent")
        stop.hover()
        page.mouse.down()
        page.wait_for_timeout(2500)
        page.mouse.up()
        page.get_by_role("textbox", name="Reason").wait_for()
        page.keyboard.press("Escape")
        # A refusal is shown on the page: the agent has ended meanwhile.
        page.goto(f"{served.url}/tasks/{ONE}/agents/builder")
        page.get_by_role("button", name="Stop agent").click()
        page.get_by_role("textbox", name="Reason").fill("enough")
        build.put(
            store,
            build.agent(ONE, "builder", status="completed"),
            expected=store.load(ONE).revision,
        )
        page.locator("dialog").get_by_role("button", name="Stop agent").click()
        page.get_by_role("alert").get_by_text("agent builder is completed").wait_for()
        assert [s for s in context.said if "409" not in s] == []
    store.close()


def test_keys(tmp_path):
    """Rows, pages and the search are reached by keys; in a field a key is a letter."""
    fill(tmp_path)
    with serving(tmp_path) as served, browsing(served) as (context, page):
        live(page)
        focused = "e => document.activeElement.textContent"
        page.keyboard.press("j")
        first = page.locator("h1").evaluate(focused)
        assert ONE in first
        page.keyboard.press("j")
        assert page.locator("h1").evaluate(focused) != first
        page.keyboard.press("k")
        assert page.locator("h1").evaluate(focused) == first
        page.keyboard.press("?")
        page.get_by_role("heading", name="Keys").wait_for()
        page.keyboard.press("g")
        page.keyboard.press("m")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("gm/?j")
        assert page.get_by_label("Text").input_value() == "gm/?j"
        assert page.url == f"{served.url}/"
        page.locator("h1").click()
        page.keyboard.press("g")
        page.keyboard.press("x")
        page.keyboard.press("s")
        assert page.url == f"{served.url}/"
        page.keyboard.press("g")
        page.keyboard.press("m")
        page.get_by_role("heading", name="Phase 0").wait_for()
        live(page)  # before its script has run, a page hears no key
        page.keyboard.press("g")
        page.keyboard.press("o")
        page.get_by_role("heading", name="Tasks").wait_for()
        live(page)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Move the login page").wait_for()
        assert context.said == []


def test_a_live_page_keeps_focus_and_link(tmp_path):
    """A report arrives while a link of the activity has the focus and an entry is linked to: both
    stay where they are.
    """
    fill(tmp_path)
    with (
        closing(open_store(load_settings(tmp_path, env={}))) as store,
        serving(tmp_path) as served,
        browsing(served) as (context, page),
    ):
        entry = store.list_records(Kind.PROGRESS, RecordQuery(task_id=ONE), limit=1).items[0]
        page.goto(f"{served.url}/tasks/{ONE}#report-{entry.entry_id}")
        live(page)
        item = page.locator(f"#report-{entry.entry_id}")
        item.get_by_role("link", name="builder").focus()
        build.put(store, build.report(ONE, "builder", message="while looked at"), expected=None)
        page.get_by_text("while looked at").first.wait_for()
        where = "e => document.activeElement.closest('li')?.id"
        assert page.locator("h1").evaluate(where) == f"report-{entry.entry_id}"
        assert "linked" in item.get_attribute("class")
        assert context.said == []


def test_filtering(workspace):
    """By clicks, with any status; while a field is edited the page says that it is paused."""
    store = open_store(load_settings(workspace, env={}))
    for n in range(30):
        build.make(store, f"T-{n:02}", description="look here")
    with serving(workspace) as served, browsing(served) as (context, page):
        live(page)
        field = page.get_by_label("Text")
        field.fill("look")
        build.make(store, "T-99", description="look there")
        says(page, "#state", "paused while you edit")
        assert page.get_by_text("look there").count() == 0
        page.locator("h1").click()
        page.get_by_text("look there").wait_for()
        says(page, "#state", "live")
        page.get_by_label("Text").fill("look here")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="Older tasks").click()
        page.get_by_role("link", name="T-00").wait_for()
        page.goto(f"{served.url}/tasks/TASK-1")
        page.get_by_label("Status").select_option("completed")
        page.get_by_role("button", name="Filter").click()
        page.get_by_text("No agent matches.").wait_for()
        page.get_by_label("Status").select_option("any")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("table").get_by_role("link", name="a", exact=True).wait_for()
        assert context.said == []
    store.close()


def test_a_browser_without_locks(workspace):
    """Without https, except on loopback, there are no locks: the page never went live."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served, browsing(served) as (context, _):
        context.add_init_script("Object.defineProperty(navigator, 'locks', {value: undefined})")
        page = context.new_page()
        page.goto(served.url)
        live(page)
        build.make(store, "NEW-1", description="made just now")
        page.get_by_text("made just now").wait_for()
        page.goto(f"{served.url}/migration")
        page.get_by_role("button", name="Verify").click()
        page.get_by_role("heading", name="Verify: done").wait_for()
        assert context.said == []
    store.close()


def test_no_script_of_an_agent_runs(tmp_path):
    """Fifty scripts in one task: none opens a dialog, none has to be blocked by the policy."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        escalated = build.phase("T", name=SCRIPTS[0], status=PhaseStatus.ESCALATED)
        build.make(store, "T", escalated, build.agent("T", "a"), description=" ".join(SCRIPTS))
        for script in SCRIPTS:
            said = build.report("T", "a", message=script)
            found = build.finding("T", agent_id="a", message=script, severity=script)
            build.put(store, said, found, expected=None)
    with serving(tmp_path) as served, browsing(served) as (context, page):
        opened = []
        page.on("dialog", lambda d: (opened.append(d.message), d.dismiss()))
        for path in ("/", "/reviews", "/tasks/T", "/tasks/T/agents/a"):
            page.goto(served.url + path)
            live(page)
        assert (opened, context.said) == ([], [])


def test_a_reader_sees_no_button(tmp_path):
    """A reader is offered no action that would be refused."""
    fill(tmp_path)
    with serving(tmp_path) as served:
        served.operator = served.reader
        with browsing(served) as (_, page):
            for path in PAGES.values():
                page.goto(served.url + path)
                live(page)
                assert page.locator("[data-post]").count() == 0


def test_a_command_is_copied(tmp_path):
    fill(tmp_path)
    with serving(tmp_path) as served, browsing(served) as (context, page):
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{served.url}/tasks/{ONE}/agents/builder")
        live(page)
        page.get_by_role("button", name="Copy").click()
        says(page, "#said", f"Copied: {' '.join(ATTACH)}")
        assert page.evaluate("navigator.clipboard.readText()") == " ".join(ATTACH)
        assert context.said == []


def test_an_agents_log_grows_on_the_page(tmp_path):
    """Without a commit; a log scrolled to its end stays there, one scrolled up stays too."""
    fill(tmp_path)
    log = tmp_path / ONE / "logs" / "builder_stream.jsonl"
    with serving(tmp_path) as served, browsing(served, viewport=SCREEN) as (_, page):
        page.goto(f"{served.url}/tasks/{ONE}/agents/builder")
        live(page)
        with log.open("a") as file:
            file.write("".join(f"line {n} of many\n" for n in range(200)))
        shown = page.locator("#log")
        shown.get_by_text("line 199 of many").wait_for()
        at_end = "e => e.scrollTop + e.clientHeight >= e.scrollHeight - 4"
        assert shown.evaluate(at_end)
        shown.evaluate("e => { e.scrollTop = 40 }")
        with log.open("a") as file:
            file.write("and one more\n")
        shown.get_by_text("and one more").wait_for(state="attached")
        assert shown.evaluate("e => e.scrollTop") == 40


def test_the_tab_shows_how_many_phases_wait(workspace):
    """Title and icon of every page, also when that is all that changed on it."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served, browsing(served) as (context, page):
        page.goto(f"{served.url}/system")
        live(page)
        assert page.title() == "System"
        assert "<path" in served.get("/icon.svg").text
        build.make(store, "NEW-1", build.phase("NEW-1", status=PhaseStatus.ESCALATED))
        titled(page, "(1) System")
        assert page.locator("#icon").get_attribute("href") == f"{served.url}/icon.svg?waiting=1"
        assert ">1</text>" in served.get("/icon.svg?waiting=1").text
        assert served.get("/icon.svg?waiting=<b>").status_code == 422
        assert context.said == []


def test_what_is_new_since_the_last_visit(workspace):
    """Entries that came after the page was left are marked, counted, and shown alone by a link."""
    store = open_store(load_settings(workspace, env={}))
    now = datetime.now(UTC)

    def report(message, **ago):
        moment = datetime.now(UTC) - timedelta(**ago)
        entry = build.report("TASK-1", "a", message=message, timestamp=moment)
        build.put(store, entry, expected=None)

    report("seen", hours=1)
    with serving(workspace) as served, browsing(served) as (context, page):
        page.goto(f"{served.url}/tasks/TASK-1")
        live(page)
        assert not page.locator("#since").is_visible()
        page.goto(f"{served.url}/reviews")
        page.evaluate(
            "t => localStorage.setItem('seen /tasks/TASK-1', t)",
            (now - timedelta(minutes=1)).isoformat().replace("+00:00", "Z"),
        )
        report("fresh", seconds=0)
        page.goto(f"{served.url}/tasks/TASK-1")
        live(page)
        says(page, "#since", "1 new since you last looked")
        assert "fresh" in page.locator("#stream .new").inner_text()
        report("fresher", seconds=0)
        says(page, "#since", "2 new since you last looked")
        page.locator("#since").click()
        live(page)
        assert page.locator("#stream li").count() == 2
        page.get_by_role("link", name="all", exact=True).last.click()
        live(page)
        assert page.locator("#stream li").count() == 3
        assert context.said == []
    store.close()


def test_a_page_is_paused(tmp_path):
    """Nothing is replaced while it is paused; afterwards it goes on."""
    fill(tmp_path)
    log = tmp_path / ONE / "logs" / "builder_stream.jsonl"
    with serving(tmp_path) as served, browsing(served) as (context, page):
        page.goto(f"{served.url}/tasks/{ONE}/agents/builder")
        live(page)
        page.get_by_role("button", name="Pause").click()
        says(page, "#state", "paused")
        with log.open("a") as file:
            file.write("written meanwhile\n")
        page.wait_for_timeout(1500)  # more than one look of this page
        assert page.get_by_text("written meanwhile").count() == 0
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("written meanwhile").wait_for()
        says(page, "#state", "live")
        assert page.get_by_role("button", name="Pause").is_visible()
        assert context.said == []


NOTIFYING = """
window.told = [];
window.Notification = class {
  static permission = "default";
  static async requestPermission() { return (this.permission = "granted"); }
  constructor(text) { window.told.push(text); }
};
"""


def test_a_browser_notifies(workspace):
    """After the button was pressed, also in a tab that is hidden: once for each further phase."""
    store = open_store(load_settings(workspace, env={}))
    with serving(workspace) as served, browsing(served) as (context, page):
        page.add_init_script(NOTIFYING)
        page.goto(served.url)
        live(page)
        page.get_by_role("button", name="Notify me").click()
        page.locator("#bell").wait_for(state="hidden")
        build.make(store, "NEW-1", build.phase("NEW-1", status=PhaseStatus.ESCALATED))
        until(lambda: page.evaluate("told.length") == 1)
        page.evaluate("void (setTimeout = (f => (g, ms) => f(g, Math.min(ms, 500)))(setTimeout))")
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        build.make(store, "NEW-2", build.phase("NEW-2", status=PhaseStatus.ESCALATED))
        until(lambda: page.evaluate("told.length") == 2)
        assert page.evaluate("told") == ["Waiting for a human: 1", "Waiting for a human: 2"]
        assert context.said == []
    store.close()


def test_a_commit_shows_by_itself(workspace):
    """A commit of another process and an edit of a legacy program appear on the page."""
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
    """The seventh tab works too, and all tabs follow; hidden tabs open no stream."""
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
    """The page says disconnected; then it is live again, with the changes made meanwhile."""
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
def test_dark_small_and_without_a_script(tmp_path, options):
    """No page is empty or wider than the screen, and Tab reaches its skip link."""
    fill(tmp_path)
    scripted = options.get("java_script_enabled", True)
    with serving(tmp_path) as served, browsing(served, **options) as (_, page):
        for name, path in PAGES.items():
            page.goto(served.url + path)
            page.locator("h1").wait_for()
            assert len(page.screenshot()) > 5_000
            if scripted:
                wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (name, wide)
                page.keyboard.press("Tab")
                assert page.evaluate("document.activeElement.className") == "skip"
            else:
                assert page.locator("button[data-post]:visible").count() == 0
