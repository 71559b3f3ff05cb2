"""Routes and pages: what the legacy dashboard answered with 500 works; agents' text stays text."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from contract_tests import build
from registry_api import Handover, PhaseStatus, Review, Verdict, load_settings, open_store
from registry_api.records import json_text
from tests import legacy
from tests.dashboard.serving import serving

NOW = datetime.now(UTC)
WAYS_IN = ["", '">', "'>", "</title>", "</script>", "-->", "]]>", "</textarea>", "\x0b", "\u2028"]
ACTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "' onmouseover='alert(1)' \" onfocus=\"alert(1)\" autofocus",
    "{{ 1234567*3 }}{% raw %}<a href=javascript:alert(1)>",
]
SCRIPTS = [way + act for way in WAYS_IN for act in ACTS]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("pages")
    agents = [
        {"id": "a", "type": "builder", "status": "running", "progress": 250},
        {"id": "b", "type": "tester", "status": "completed", "parent": "a", "depth": 2},
    ]
    phases = [{"id": "p", "order": 1, "name": "build", "status": "COMPLETED"}]
    folder = legacy.write_task(
        workspace, "TASK-1", agents=agents, phases=phases, client_cwd=None, current_phase_index=0
    )
    (folder / "logs" / "a_stream.jsonl").write_text('{"type": "result"}\nplain\n')
    with serving(workspace) as found:
        found.workspace = workspace
        yield found


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/tasks", "task_id"),
        ("/api/tasks?status=ACTIVE&limit=1", "active_agents"),
        ("/api/tasks/TASK-1", "client_cwd"),
        ("/api/tasks/TASK-1/registry", "agent_hierarchy"),
        ("/api/agents/TASK-1", "id"),
        ("/api/agents/TASK-1?status=running", "tmux_session"),
        ("/api/agents/TASK-1/a", "progress"),
        ("/api/agents/TASK-1/a/progress", None),
        ("/api/agents/TASK-1/a/findings", None),
        ("/api/agents/TASK-1/a/logs", "type"),
        ("/api/agents/TASK-1/a/output", "metadata"),
        ("/api/phases/TASK-1", "order"),
        ("/api/phases/TASK-1/current", "agent_stats"),
        ("/api/migration", "writer_of_record"),
        ("/api/health", "silent_agents"),
        ("/api/system", "plugins"),
    ],
)
def test_routes_that_once_answered_500(served, path, key):
    """With a null client_cwd, a progress of 250, an unknown phase status, existing log files."""
    answer = served.get(path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    shown = found[0] if isinstance(found, list) and found else found
    assert key is None or key in shown


def test_the_log_is_read_as_what_it_is(served):
    """Lines of JSON are returned as objects, others as text; `output` returns all as text."""
    lines = served.get("/api/agents/TASK-1/a/logs").json()
    assert lines == [{"type": "result"}, {"text": "plain"}]
    assert served.get("/api/agents/TASK-1/a/output?max_bytes=6").json() == {
        "output": "plain\n",
        "metadata": {"start": 19, "size": 25},
    }


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks/TASK-9",
        "/api/agents/TASK-1/z",
        "/api/phases/TASK-9/current",
        "/tasks/TASK-9",
        "/tasks/TASK-1/agents/z",
    ],
)
def test_what_is_not_there(served, path):
    """A missing task, agent or phase answers a typed 404."""
    answer = served.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] in {"task_not_found", "not_found"}
    assert "list_tasks" not in answer.json()["next_step"]
    page = served.get(path, headers={"accept": "text/html"})
    assert (page.status_code, "<h1>" in page.text) == (404, True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks?stauts=ACTIVE",
        "/api/migration?x=1",
        "/metrics?x=",
        "/api/tasks?cursor=zzz",
        "/api/tasks?limit=0",
        "/api/tasks?status=x",
        "/api/tasks?since=now",
    ],
)
def test_bad_questions(served, path):
    """An invalid query answers a typed 422, never 500."""
    answer = served.get(path)
    assert answer.status_code == 422
    assert answer.json()["code"] in {"invalid_query", "invalid_input"}
    assert answer.json()["next_step"]


def test_lists_are_paged(served):
    """The header X-Next-Cursor continues the list."""
    store = open_store(load_settings(served.workspace, env={}))
    for n in range(5):
        build.make(store, f"P-{n}", description="paged")
    store.close()
    seen, cursor = [], ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        answer = served.get(f"/api/tasks?text=paged&limit=2{more}")
        seen += [t["task_id"] for t in answer.json()]
        cursor = answer.headers.get("x-next-cursor")
    assert seen == [f"P-{n}" for n in reversed(range(5))]


def test_an_agents_attempts_are_shown(served):
    """The page of an agent shows its attempt, the one before and the next, its last output and the
    command that attaches to it; values of other types, which another program may write, show
    nothing."""
    noted = {
        "attempt": 2,
        "retry_of": "b-1",
        "retried_by": "b-3",
        "host": "node <7>",
        "launcher": "tmux",
        "attach": ["tmux", "-L", "registry-1", "attach-session", "-t", "=agent_b 2"],
        "last_output": "out of memory",
    }
    odd = {
        "attempt": "x",
        "retry_of": 3,
        "attach": 5,
        "host": 1,
        "last_output": ["x"],
        "launcher": {},
    }
    with closing(open_store(load_settings(served.workspace, env={}))) as store:
        agents = [
            build.agent("AT-1", name, extra=json_text.dump_text(extra))
            for name, extra in (("b-2", noted), ("odd", odd))
        ]
        build.make(store, "AT-1", *agents)
    page = served.get("/tasks/AT-1/agents/b-2").text
    for shown in (
        '2, after <a href="/tasks/AT-1/agents/b-1">b-1</a>',
        '<a href="/tasks/AT-1/agents/b-3">b-3</a>',
        "<dd>tmux</dd>",
        "<dd>node &lt;7&gt;</dd>",
        "<code>tmux -L registry-1 attach-session -t &#39;=agent_b 2&#39;</code>",
        "out of memory",
    ):
        assert shown in page
    page = served.get("/tasks/AT-1/agents/odd").text
    for hidden in ("Attempt", "Host", "Launcher", "Attach", "Last output"):
        assert hidden not in page


def test_what_agents_write_is_text(served):
    """Fifty scripts in every field that is shown: none becomes markup on a page."""
    assert len(SCRIPTS) == 50
    store = open_store(load_settings(served.workspace, env={}))
    for n, script in enumerate(SCRIPTS):
        name = f"X-{n}"
        words = ("failure_reason", "retried_by", "retry_of", "launcher", "last_output")
        noted = dict.fromkeys(words, script) | {"attempt": 2, "attach": ["tmux", script]}
        reason = json_text.dump_text(noted)
        logs = served.workspace / name / "logs"
        logs.mkdir(parents=True)
        for log in ("a_stream.jsonl", "a_stderr.log"):
            (logs / log).write_text(script)
        records = [
            build.phase(
                name, name=script, description=script, status=PhaseStatus.ESCALATED, started_at=NOW
            ),
            build.agent(name, "a", type=script, model=script, prompt=script, extra=reason),
            Review(task_id=name, review_id="r", phase_index=0, verdict=script, notes=script),
            Verdict(
                task_id=name,
                verdict_id="v",
                review_id="r",
                reviewer_id=script,
                verdict=script,
                notes=script,
            ),
        ]
        build.make(store, name, *records, description=script, priority=script)
        said = build.report(name, "a", message=script)
        found = build.finding(
            name, agent_id="a", message=script, severity=script, finding_type=script
        )
        left = Handover(
            task_id=name,
            handover_id="h",
            from_phase_index=0,
            to_phase_index=1,
            summary=script,
            key_findings=(script,),
            blockers=(script,),
            recommendations=(script,),
        )
        build.put(store, said, found, left, expected=None)
    store.close()
    for n, script in enumerate(SCRIPTS):
        for path in ("/", "/reviews", f"/tasks/X-{n}", f"/tasks/X-{n}/agents/a"):
            page = served.get(path).text
            body = page.partition("<main")[2]
            for tag in ("<script", "<img", "<svg onload", "<a href=javascript", "3703701"):
                assert tag not in body, (path, script)
            assert "' onmouseover='" not in body
            assert '" onfocus="' not in body


def test_the_newest_handovers_are_shown(tmp_path):
    """Twenty of them, by their time and not by their id, which is random."""
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        build.make(store, "T", build.phase("T"))
        for n in range(22):
            left = Handover(
                task_id="T",
                handover_id=f"h{99 - n}",
                from_phase_index=0,
                to_phase_index=1,
                summary=f"handover number {n:02}",
                created_at=NOW + timedelta(seconds=n - 60),
            )
            build.put(store, left, expected=None)
    with serving(tmp_path) as served:
        shown = served.get("/tasks/T").text.partition('id="handovers"')[2]
    assert "The newest 20 of 22." in shown
    found = [n for n in range(22) if f"handover number {n:02}" in shown]
    assert found == list(range(2, 22))


def test_pages_are_small_and_whole_without_a_script(served):
    """The first page with its style and script: below 50 kB on the wire, and one local script."""
    page, style, script = (served.get(p) for p in ("/", "/static/page.css", "/static/live.js"))
    assert sum(a.num_bytes_downloaded for a in (page, style, script)) < 50_000
    assert "content-encoding" not in page.headers  # a page holds secrets beside others' texts
    assert page.text.count("<script") == 1
    assert "<h1>" in page.text
    assert "http://" not in page.text.replace(served.url, "")
    assert served.get("/tasks/TASK-1").text.count("<li") > 2


def test_the_schema_names_every_route(served):
    """The OpenAPI schema has every API route; the HTML pages are not in it."""
    paths = json.loads(served.get("/openapi.json").text)["paths"]
    assert len(paths) == 24
    assert [p for p in paths if not p.startswith("/api/")] == ["/metrics"]
