"""Actions of an operator: migration jobs with their progress, stopping, force-approving."""

import json
import sqlite3
import sys
import time
from contextlib import closing

import httpx2
import pytest

from contract_tests import build
from orchestrator.opening import open_orchestrator
from registry_api import AgentStatus, PhaseStatus, load_settings, open_migration, open_store
from registry_api.migration import Gate, MigrationPhase, PhaseFile
from tests import legacy
from tests.dashboard.serving import serving
from tests.dashboard.test_events import stream
from tests.dashboard.writing import writing
from tests.orchestrator import conducting


@pytest.fixture
def workspace(tmp_path):
    for n in range(3):
        agents = [{"id": f"a{n}", "type": "builder", "status": "running"}]
        legacy.write_task(tmp_path, f"TASK-{n}", agents=agents)
    return tmp_path


def post(served, path, body=None, *, token=None):
    headers = {"authorization": f"Bearer {token or served.operator}"}
    return httpx2.post(served.url + path, json=body or {}, headers=headers, timeout=60)


def told(answer):
    """Return the (name, data) events of a stream that has ended."""
    assert answer.status_code == 200, answer.text
    blocks = answer.text.replace("\r\n", "\n").strip().split("\n\n")
    lines = [dict(line.split(": ", 1) for line in b.split("\n")) for b in blocks]
    return [(e["event"], json.loads(e["data"])) for e in lines]


def act(served, path, body=None):
    """Run a migration job to its end; return its last event."""
    return told(post(served, f"/api/migration/{path}", body))[-1]


def phase_of(workspace):
    return PhaseFile(workspace / ".registry").read().phase


def test_a_whole_move_and_back(workspace):
    """Plan, switch, verify, reconcile, each streamed to its end; the pages follow."""
    with serving(workspace, REGISTRY_RETIRE_SECONDS="0") as served:
        name, job = act(served, "plan", {"to": 1})
        assert (name, job["answer"]["dry_run"]) == ("done", True)
        assert phase_of(workspace) == 0
        for to in (1, 2, 3, 4, 3, 2, 1, 0):
            name, job = act(served, "switch", {"to": to})
            assert (name, [s["to"] for s in job["answer"]["steps"]]) == ("done", [to])
            assert phase_of(workspace) == to
            found = served.get("/api/migration").json()
            assert (found["phase"], found["history"][-1]["by"]) == (to, "dashboard")
            assert found["job"]["what"] == f"switch {to}"
            name, job = act(served, "verify")
            assert (name, job["answer"]["differences"]) == ("done", 0)
            assert act(served, "reconcile")[0] == "done"
            assert f"Phase {to}: " in served.get("/migration").text
        assert act(served, "switch", {"to": 0})[1]["answer"]["steps"] == []


def test_differences_are_named_field_by_field(workspace):
    """A changed row of the target is reported with its task, its field and both values."""
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase(1), actor="test")
    with closing(sqlite3.connect(workspace / ".registry" / "registry.sqlite3")) as db, db:
        db.execute("update agents set type = '<b>wrong</b>' where agent_id = 'a1'")
    with serving(workspace) as served:
        name, job = act(served, "verify")
        (found,) = job["answer"]["mismatches"]
        assert (name, found["task_id"], "a1" in found["pointer"]) == ("done", "TASK-1", True)
        assert (found["source"], found["target"]) == ('"builder"', '"<b>wrong</b>"')
        page = served.get("/migration").text
        assert "&lt;b&gt;wrong" in page
        assert "1 difference." in page
        name, job = act(served, "switch", {"to": 2})
        assert (name, job["answer"]["code"]) == ("failed", "mismatch")
        assert phase_of(workspace) == 1


def test_what_is_asked_wrongly(workspace):
    """Unknown fields, invalid phases and invalid times answer 422, and nothing has changed."""
    wrong = [
        ("switch", {}),
        ("switch", {"to": 5}),
        ("switch", {"to": "x"}),
        ("switch", {"to": 1, "force": True}),
        ("switch", {"to": 1, "timeout": 0}),
        ("switch", {"to": 1, "anyway": " "}),
        ("verify", {"to": 1}),
        ("plan", {"to": -1}),
    ]
    with serving(workspace) as served:
        for path, body in wrong:
            answer = post(served, f"/api/migration/{path}", body)
            assert answer.status_code == 422, (path, body, answer.text)
        # The caller saw another epoch than the record's: the phase was switched meanwhile.
        assert act(served, "switch", {"to": 1, "epoch": 7})[1]["answer"].get("steps") == []
        assert phase_of(workspace) == 0
        answer = post(served, "/api/migration/switch", {"to": 1}, token=served.reader)
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only")


def test_a_registry_that_is_in_no_move(tmp_path):
    """A registry created in SQLite: the page says so, a switch is refused with a next step."""
    open_store(load_settings(tmp_path, env={})).close()
    with serving(tmp_path) as served:
        assert "No move is under way." in served.get("/migration").text
        name, job = act(served, "switch", {"to": 1})
        assert (name, job["answer"]["code"]) == ("failed", "preflight")
        assert "--to" in job["answer"]["next_step"]


def test_a_completed_move_is_named(tmp_path):
    """After ``complete`` the page says that no move is under way, and which one is complete; in the
    next move the history names the completion."""
    env = {"REGISTRY_RETIRE_SECONDS": "0"}
    settings = load_settings(tmp_path, env=env)
    open_store(settings).close()
    with closing(open_migration(settings)) as migration:
        migration.switch(MigrationPhase(4), actor="x", target=f"sqlite://{tmp_path}/b.sqlite3")
        migration.complete(actor="x")
        with serving(tmp_path) as served:
            page = served.get("/migration").text
        assert "No move is under way." in page
        assert f"sqlite → sqlite://{tmp_path}/b.sqlite3" in page
        migration.switch(MigrationPhase(1), actor="x", target=f"sqlite://{tmp_path}/c.sqlite3")
    with serving(tmp_path) as served:
        assert "(move complete)" in served.get("/migration").text


def test_a_move_is_completed_from_the_page(tmp_path):
    """In phase 4 an operator completes the move; in another phase that is refused with a next step,
    and the page offers it in phase 4 only.
    """
    settings = load_settings(tmp_path, env={"REGISTRY_RETIRE_SECONDS": "0"})
    open_store(settings).close()
    with closing(open_migration(settings)) as migration:
        migration.switch(MigrationPhase(3), actor="x", target=f"sqlite://{tmp_path}/b.sqlite3")
    with serving(tmp_path, REGISTRY_RETIRE_SECONDS="0") as served:
        assert "Complete the move" not in served.get("/migration").text
        name, job = act(served, "complete", {})
        assert (name, job["answer"]["code"]) == ("failed", "preflight")
        assert job["answer"]["next_step"] == "registry-backend switch 4"
        act(served, "switch", {"to": 4})
        assert "Complete the move" in served.get("/migration").text
        name, job = act(served, "complete", {"epoch": 1})  # of a page that is out of date
        assert (name, job["answer"]["code"]) == ("failed", "preflight")
        assert phase_of(tmp_path) == 4
        name, job = act(served, "complete", {})
        assert name == "done", job["answer"]
        assert "b.sqlite3 is the store of this workspace" in job["answer"]["notes"][0]
        page = served.get("/migration").text
    assert "No move is under way." in page
    assert f"sqlite → sqlite://{tmp_path}/b.sqlite3" in page


def test_one_at_a_time_and_everybody_sees_it(workspace):
    """A second job is refused while the first runs; the first continues when its client leaves."""
    with serving(workspace) as served, stream(served) as following:
        with Gate(workspace / ".registry", timeout=5).passing():
            headers = {"authorization": f"Bearer {served.operator}"}
            where = served.url + "/api/migration/switch"
            with httpx2.stream(
                "POST", where, json={"to": 1, "timeout": 30}, headers=headers, timeout=60
            ) as first:
                assert first.status_code == 200
                assert following()["event"] == "job"
            answer = post(served, "/api/migration/verify")
            assert (answer.status_code, answer.json()["code"]) == (409, "job_running")
            assert "Switch 1: running" in served.get("/migration").text
        seen = set()
        while not {"migration", "job done"} <= seen:
            event = following()
            state = json.loads(event["data"]).get("state", "")
            seen.add(f"{event['event']} {state}".strip())
        assert phase_of(workspace) == 1


def test_an_agent_is_stopped(tmp_path):
    """Its process is stopped too; the reason is recorded; a second stop is refused."""
    conducting.configure(tmp_path, argv=[sys.executable, "-c", "import time; time.sleep(600)"])
    with open_orchestrator(load_settings(tmp_path, env={})) as service:
        task_id = service.create_task("stop one").task.task_id
        agent = service.deploy(task_id, "builder", "work")
        with serving(tmp_path) as served:
            page = served.get(f"/tasks/{task_id}/agents/{agent.agent_id}").text
            where = f"/api/agents/{task_id}/{agent.agent_id}/stop"
            assert where in page
            reading = served.get(f"/tasks/{task_id}/agents/{agent.agent_id}", token=served.reader)
            assert where not in reading.text
            assert post(served, where, {"reason": ""}).status_code == 422
            answer = post(served, where, {"reason": "it went <i>astray</i>"})
            assert answer.json()["status"] == "terminated", answer.text
            assert service.deployment.process(service.agent(task_id, agent.agent_id)) != "alive"
            assert "astray" in service.agent(task_id, agent.agent_id).extra
            page = served.get(f"/tasks/{task_id}/agents/{agent.agent_id}").text
            assert "Why it ended: it went &lt;i&gt;astray" in page
            again = post(served, where, {"reason": "again"})
            assert (again.status_code, again.json()["code"]) == (409, "agent_ended")
            nobody = post(served, f"/api/agents/{task_id}/nobody/stop", {"reason": "x"})
            assert nobody.status_code == 404


def test_an_escalated_phase_is_approved_by_force(tmp_path):
    """The reviews page has a button for operators; only an escalated phase can be approved."""
    store = open_store(load_settings(tmp_path, env={}))
    build.make(
        store,
        "T",
        build.phase("T", 0, name="build", status=PhaseStatus.ESCALATED, revision_round=3),
        build.phase("T", 1, name="prove"),
        build.agent("T", "a", status=AgentStatus.COMPLETED, phase_index=0),
    )
    with serving(tmp_path) as served:
        assert "1 phase waits for a human." in served.get("/reviews").text
        assert "/api/phases/T/0/approve" in served.get("/reviews").text
        assert "/api/phases/T/0/approve" not in served.get("/reviews", token=served.reader).text
        assert post(served, "/api/phases/T/1/approve", {"reason": "x"}).status_code == 409
        assert post(served, "/api/phases/T/9/approve", {"reason": "x"}).status_code == 404
        answer = post(served, "/api/phases/T/0/approve", {"reason": "looked at it myself"})
        assert answer.json() == {"task_id": "T", "phase_index": 0, "status": "APPROVED"}
        assert "looked at it myself" in store.load("T").phase(0).extra
        assert "No review is open." in served.get("/reviews").text
    store.close()


def test_writers_go_on_while_it_moves(workspace):
    """Eight writers, while this API switches up and down: no acknowledged write is lost."""
    settings = load_settings(workspace, env={})
    with (
        closing(open_store(settings)) as store,
        serving(workspace) as served,
        writing(store, pause=0),
    ):
        for to in (3, 0):
            name, job = act(served, "switch", {"to": to, "timeout": 60})
            assert name == "done", json.dumps(job)
            time.sleep(0.2)


def test_metrics(workspace):
    """Prometheus's text format: every line is valid, each metric is declared once."""
    with serving(workspace) as served:
        answer = served.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        lines = answer.text.splitlines()
        assert 'registry_agents{status="running"} 3' in lines
        assert "registry_silent_agents 3" in lines
        named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
        assert len(named) == len(set(named))
        assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)
