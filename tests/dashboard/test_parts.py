"""The parts of the pages: times, charts, rows of tasks, what a task waits for, what happened."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from contract_tests import build
from dashboard.last_record import last_record
from dashboard.pages import charts
from dashboard.pages.formatting import duration, exact, short
from dashboard.pages.markdown import rendered
from dashboard.pages.terminal_text import styled
from dashboard.views.migration import MigrationView
from dashboard.views.stream import stream_of
from dashboard.views.task_rows import TaskRows
from dashboard.views.waiting import waiting_of
from registry_api import (
    AgentStatus,
    PhaseStatus,
    Review,
    ReviewStatus,
    TaskStatus,
    load_settings,
    open_store,
)
from registry_api.migration import PhaseFile
from tests.dashboard.serving import serving
from tests.samples import copy_of

NOW = datetime(2025, 12, 1, 9, 30, tzinfo=UTC)


def ago(**units):
    return NOW - timedelta(**units)


@pytest.fixture
def store(tmp_path):
    with closing(open_store(load_settings(tmp_path, env={}, backend="memory"))) as found:
        yield found


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (ago(seconds=0), "now"),
        (ago(seconds=-30), "now"),
        (ago(seconds=59), "59 s ago"),
        (ago(minutes=3, seconds=59), "3 min ago"),
        (ago(hours=2, minutes=5), "2 h 05 min ago"),
        (ago(hours=23), "23 h ago"),
        (ago(days=1), "30 Nov"),
        (ago(days=410), "17 Oct 2024"),
    ],
)
def test_a_time_is_relative_within_a_day(moment, said):
    """Before that it is a date, with the year if that is another one."""
    assert short(moment, now=NOW) == said
    assert exact(moment).endswith(" UTC")


def test_durations_have_at_most_two_units():
    assert [duration(s) for s in (-1, 5, 60, 3600, 3660, 90_000, 400_000)] == [
        *("0 s", "5 s", "1 min", "1 h", "1 h 01 min", "1 d", "4 d"),
    ]


@pytest.mark.parametrize("span", [1, 59, 600, 5401, 86_400, 10 * 86_400, 4000 * 86_400])
def test_a_time_axis_has_few_round_ticks(store, span):
    """Each phase has its bar inside the axis; the ticks are at most seven, in order, inside too."""
    start = ago(seconds=span)
    phases = [
        build.phase(
            "t", status=PhaseStatus.APPROVED, started_at=start, completed_at=ago(seconds=span / 2)
        ),
        build.phase("t", 1, status=PhaseStatus.ACTIVE, started_at=ago(seconds=span / 2)),
        build.phase("t", 2, status=PhaseStatus.PENDING),
    ]
    build.make(store, "t", *phases)
    gantt = charts.gantt(store.load("t"), NOW)
    assert len(gantt.bars) == 2
    places = [x for x, _ in gantt.ticks]
    assert places == sorted(places)
    assert len(places) <= 7
    assert all(0 <= x <= charts.AXIS for x in (*places, gantt.now))
    assert gantt.bars[1].x + gantt.bars[1].width == pytest.approx(charts.AXIS, abs=3)
    if 600 <= span <= 10 * 86_400:
        assert len(places) >= 3


def test_the_newest_record_says_when_a_task_changed(tmp_path):
    """In a copied registry every file is new; a time in the future is no change."""
    workspace = copy_of("recorded-2025-10", tmp_path)
    with closing(open_store(load_settings(workspace, env={}))) as store:
        rows = TaskRows(store).rows(store.list_tasks().items)
    assert {row.changed.strftime("%B %Y") for row in rows} == {"October 2025"}


def test_a_time_in_the_future_is_no_change(store):
    later = datetime.now(UTC) + timedelta(days=3)
    build.make(store, "t", build.agent("t", last_update=later, started_at=ago(days=1)))
    assert last_record(store.load("t"), later) <= datetime.now(UTC)


def test_rows_are_read_again_when_a_task_changes(store):
    """An unchanged task is not; one that was removed meanwhile is left out."""
    build.make(store, "t", build.phase("t", name="one"))
    rows = TaskRows(store)
    (first,) = rows.rows(store.list_tasks().items)
    assert rows.rows(store.list_tasks().items) == [first]
    assert first.phases == (("one", PhaseStatus.PENDING),)
    build.put(store, build.phase("t", name="one", status=PhaseStatus.ACTIVE), expected=1)
    (second,) = rows.rows(store.list_tasks().items)
    assert second.phases == (("one", PhaseStatus.ACTIVE),)
    assert rows.of(["gone", "t"]) == [second]


def review(**fields):
    fields.setdefault("created_at", ago(minutes=5))
    return Review(task_id="t", review_id="r", phase_index=0, num_reviewers=2, **fields)


@pytest.mark.parametrize(
    ("records", "says", "decide"),
    [
        ((), "No agent is active: it waits for one to be deployed.", None),
        (
            (build.phase("t", name="build", status=PhaseStatus.ESCALATED, revision_round=3),),
            "Phase build waits for a human: its reviewers did not approve it after 3 revisions.",
            0,
        ),
        (
            (build.phase("t", status=PhaseStatus.IN_REVIEW), review(status=ReviewStatus.PENDING)),
            "It waits for reviewers: 0 of 2 verdicts given.",
            None,
        ),
        (
            (build.agent("t", started_at=ago(days=2)), build.agent("t", "b", last_update=ago())),
            "2 agents are active. 1 agent is silent.",
            None,
        ),
        ((build.agent("t", status=AgentStatus.COMPLETED),), "It has ended: completed.", None),
    ],
)
def test_what_a_task_waits_for(store, records, says, decide):
    """One sentence; a phase that a person must decide on has its index."""
    build.make(store, "t", *records)
    waits = waiting_of(store.load("t"), ago(minutes=10))
    assert (waits.says, waits.decide) == (says, decide)


def test_what_happened_is_one_list(store):
    """Reports, findings, verdicts and handovers, newest first, or only those of one kind."""
    build.make(store, "t", build.agent("t"))
    for minutes in (9, 5):
        build.put(store, build.report("t", timestamp=ago(minutes=minutes)), expected=None)
    build.put(store, build.finding("t", timestamp=ago(minutes=7)), expected=None)
    snapshot = store.load("t")
    found = stream_of(store, snapshot, "")
    assert [e.kind for e in found] == ["report", "finding", "report"]
    assert [e.at for e in found] == sorted((e.at for e in found), reverse=True)
    assert [e.kind for e in stream_of(store, snapshot, "findings")] == ["finding"]
    assert stream_of(store, snapshot, "handovers") == []


def test_who_is_silent_comes_first(tmp_path):
    """The tile leads to the silent tasks; a silent agent is listed before the others."""
    settings = load_settings(tmp_path, env={})
    long_ago, now = datetime(2025, 10, 17, tzinfo=UTC), datetime.now(UTC)
    with closing(open_store(settings)) as store:
        build.make(store, "S", build.agent("S", "zz", last_update=long_ago), description="stuck")
        for n in range(30):
            agent = build.agent("W", f"a{n:02}", last_update=now)
            (build.make(store, "W", agent, description="busy") if n == 0 else None)
            if n:
                build.put(store, agent, expected=n)
    with serving(tmp_path) as served:
        page = served.get("/").text
        agents = page.partition('id="agents"')[2]
        assert re.findall(r"/agents/(\w+)", agents)[:2] == ["zz", "a00"]
        shown = served.get("/?silent=true").text
        assert "/tasks/S" in shown.partition('id="agents"')[0]
        assert "/tasks/W" not in shown.partition('id="agents"')[0]
        assert served.get("/?status=FAILED").text.count("No task matches.") == 1
        assert str(TaskStatus.ACTIVE) in shown
        found = served.get("/?text=zz").text
        assert "Agents and findings with this text" in found


def test_entries_have_links_of_their_own(tmp_path):
    """A finding or a report can be linked to; hostile text is quoted."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "t", build.agent("t"), description="<b>bold</b>")
        finding = build.finding("t", message="<script>alert(1)</script>", severity="high")
        build.put(store, finding, expected=None)
    with serving(tmp_path) as served:
        page = served.get("/tasks/t?show=findings").text
        assert f'id="finding-{finding.finding_id}"' in page
        assert f'href="#finding-{finding.finding_id}"' in page
        assert "<b>bold" not in page
        assert "<script>alert" not in page
        assert served.get("/tasks/t?show=nonsense").status_code == 422


@pytest.mark.parametrize("year", [1, 9999])
def test_odd_times_are_shown(tmp_path, year):
    """A legacy program may write any date: the page of its task is there all the same."""
    odd = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        phases = [
            build.phase("t", status=PhaseStatus.APPROVED, started_at=NOW, completed_at=odd),
            build.phase("t", 1, status=PhaseStatus.ACTIVE, started_at=odd, completed_at=NOW),
        ]
        build.make(store, "t", *phases, build.agent("t", started_at=odd, completed_at=odd))
        build.put(store, build.report("t", timestamp=odd), expected=None)
    with serving(tmp_path) as served:
        for path in ("/", "/tasks/t", "/tasks/t/agents/a1"):
            page = served.get(path)
            assert page.status_code == 200, path
        assert f'datetime="{year:04}-12-31T23:59:59Z"' in page.text


def test_a_finding_is_a_change(store):
    """A task whose last record is a finding changed when that was found."""
    build.make(store, "t", build.agent("t", started_at=ago(days=5)), created_at=ago(days=5))
    build.put(store, build.finding("t", timestamp=ago(minutes=1)), expected=None)
    (row,) = TaskRows(store).rows(store.list_tasks().items)
    assert row.changed == ago(minutes=1)


def test_a_cancelled_task_waits_for_nobody(store):
    escalated = build.phase("t", status=PhaseStatus.ESCALATED)
    build.make(store, "t", escalated, recorded_status=TaskStatus.CANCELLED)
    waits = waiting_of(store.load("t"), NOW)
    assert (waits.says, waits.decide) == ("It has ended: cancelled.", None)


def test_a_status_in_free_text_is_no_class_of_the_page(tmp_path):
    """An agent may report any status: it is shown, cut, and cannot hide or move itself."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "t", build.agent("t"))
        for status in ("skip", "without", "running", 'x" onclick="y', "long" * 500):
            build.put(store, build.report("t", status=status), expected=None)
        build.put(store, build.finding("t", severity="card"), expected=None)
    with serving(tmp_path) as served:
        for path in ("/tasks/t", "/tasks/t/agents/a1"):
            page = served.get(path).text
            assert '<span class="status ">skip</span>' in page
            assert '<span class="status ">without</span>' in page
            assert '<span class="status running">running</span>' in page
            assert '<span class="severity ">card</span>' in page
            assert 'onclick="y"' not in page
            assert "long" * 20 not in page


def test_a_running_job_is_not_delayed_by_its_page(tmp_path, monkeypatch):
    """While a switch runs the page asks the store for nothing that would wait for it."""
    with closing(open_store(load_settings(tmp_path, env={}, backend="sqlite"))) as store:
        build.make(store, "t")
        view = MigrationView(load_settings(tmp_path, env={}))
        PhaseFile(tmp_path / ".registry").record_store("sqlite")
        assert view.to_dict(store, busy=False)["tasks"] == 1
        monkeypatch.setattr(store, "counts", None)
        assert "tasks" not in view.to_dict(store, busy=True)


# -- texts of agents ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**done** and `x < y`", "<p><strong>done</strong> and <code>x &lt; y</code></p>\n"),
        ("# Handover", "<h4>Handover</h4>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("<b onclick=x>raw</b>", "<p>&lt;b onclick=x&gt;raw&lt;/b&gt;</p>\n"),
        ("[run](javascript:alert(1))", "<p>[run](javascript:alert(1))</p>\n"),
        ("[run](data:text/html,x)", "<p>[run](data:text/html,x)</p>\n"),
        (
            "[there](https://a.example)",
            '<p><a href="https://a.example" rel="noreferrer nofollow">there</a></p>\n',
        ),
        (
            "![seen](https://a.example/x.png)",
            '<p>!<a href="https://a.example/x.png" rel="noreferrer nofollow">seen</a></p>\n',
        ),
    ],
)
def test_markdown_of_an_agent(text, shown):
    """Raw HTML stays text, no link runs something, and no image is fetched from a foreign host."""
    assert rendered(text) == shown


def test_long_markdown_is_cut():
    """The page says so, and which command prints the rest."""
    shown = rendered("a" * 10**6)
    assert len(shown) < 20_200
    assert "registry-orchestrator handover TASK" in shown


def test_a_table_is_no_bomb():
    """A row is filled up to the width of its table: 19 kB became 680 kB."""
    bomb = "|a" * 200 + "|\n" + "|-" * 200 + "|\n" + "|x\n" * 4000
    assert len(rendered(bomb)) < 4 * len(bomb)
    assert "<table" not in rendered(bomb)


def test_a_cell_has_no_inline_style():
    """The page's policy forbids it, and the browser would complain about each one."""
    assert "style=" not in rendered("|a|\n|:-:|\n|b|")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain <b>", "plain &lt;b&gt;"),
        ("\x1b[31mred\x1b[0m rest", '<span class="ansi-1">red</span> rest'),
        ("\x1b[1;92mgood <i>", '<span class="bold ansi-2">good &lt;i&gt;</span>'),
        ("\x1b[38;2;1;2;3mexact\x1b[2K", "exact"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1b[999999999999mb", "ab"),
        ("\x1b[31mcut\x1b[", '<span class="ansi-1">cut[</span>'),
        ("\x1b", ""),
        ("\x1b[31mred\x1b[0m\r", '<span class="ansi-1">red</span>'),
        ("10%\r\x1b[32m20%\r", '10%<span class="ansi-2">20%</span>'),
        ("a\x1b[" + "9" * 5000 + "mb", "ab"),
        ("a\x1b\x1b]x\x07]b", "a]b"),
    ],
)
def test_output_of_a_terminal_program(line, shown):
    """Colours become classes; other escape sequences are left out, and all else stays text."""
    assert styled(line) == shown


def test_the_work_for_output_follows_its_length():
    """Names of windows that do not end took the square of it: 64 kB half a minute."""
    many = "\x1b[1m" + "\x1b]0;" * 100_000
    assert styled(many) == ""
