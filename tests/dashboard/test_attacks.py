"""Faults that attacks on the dashboard found: a test for each; all are fixed."""

import fcntl
import json
import os
import signal
import socket
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from contract_tests import build
from dashboard.auth import COOKIE
from dashboard.cli import main
from dashboard.live.activity_index import ActivityIndex
from dashboard.views.log_levels import is_at_least
from dashboard.views.summary import Summary
from registry_api import (
    PhaseStatus,
    Review,
    ReviewStatus,
    load_settings,
    open_migration,
    open_store,
)
from registry_api.errors import Unavailable
from registry_api.leases import leases_of
from registry_api.migration import MigrationPhase
from registry_api.settings import in_force
from tests import legacy
from tests.dashboard.serving import serving
from tests.dashboard.test_acting import act


def open_at(workspace, **more):
    return closing(open_store(load_settings(workspace, env={}, **more)))


def test_any_status_and_older_tasks(tmp_path):
    """The form's empty choice and the link to the next page answered 422."""
    with open_at(tmp_path) as store:
        for n in range(30):
            build.make(store, f"T-{n:02}", description="look")
    with serving(tmp_path) as served:
        page = served.get("/?text=look&status=&severity=")
        assert (page.status_code, page.text.count('href="/tasks/')) == (200, 25)
        after = page.text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        assert served.get("/" + after).text.count('href="/tasks/') == 5


def test_numbers_keep_their_text(tmp_path):
    """`1e-7`, twenty digits and `0.10` in legacy files made routes answer 500."""
    cost = {"cost": json.loads("1e-7"), "n": 12345678901234567890}
    legacy.write_task(
        tmp_path,
        "TASK-1",
        agents=[{"id": "a", "status": "running", **cost}],
        task_context={"big": 12345678901234567890},
    )
    with open_at(tmp_path) as store:
        found = build.finding("TASK-1", agent_id="a", data='{"score":0.10}')
        build.put(store, found, expected=None)
    with serving(tmp_path) as served:
        for path, said in (
            ("/api/tasks/summary/dashboard", "12345678901234567890"),
            ("/api/tasks/TASK-1", "1e-07"),
            ("/api/tasks/TASK-1/registry", '"big":12345678901234567890'),
            ("/api/agents/TASK-1", "12345678901234567890"),
            ("/api/agents/TASK-1/a", "1e-07"),
            ("/api/agents/TASK-1/a/findings", '{"score":0.10}'),
        ):
            answer = served.get(path)
            assert (answer.status_code, said in answer.text) == (200, True), (path, answer.text)


def test_two_dashboards_in_one_browser(tmp_path):
    """The second dashboard's cookie replaced the first one's: cookies ignore ports."""
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        jar = httpx2.Cookies()
        for served in (one, two):
            link = f"{served.url}/?token={served.operator}"
            jar.update(httpx2.get(link, follow_redirects=False).cookies)
        assert len(jar) == 2
        for served in (one, two):
            assert httpx2.get(served.url, cookies=jar).status_code == 200


@pytest.mark.parametrize("other", ["aaa=a b", "a", "=;;", 'q="', "é=1", 'j={"a":1}'])
def test_a_cookie_of_another_program(tmp_path, other):
    """A malformed cookie signed the operator out."""
    with serving(tmp_path) as served:
        link = f"{served.url}/?token={served.operator}"
        ((name, value),) = httpx2.get(link, follow_redirects=False).cookies.items()
        assert name.startswith(COOKIE)
        for cookie in (f"{other}; {name}={value}", f"{name}={value}; {other}"):
            answer = httpx2.get(served.url, headers={"cookie": cookie.encode()})
            assert answer.status_code == 200, cookie


def test_a_client_that_does_not_read(tmp_path):
    """Such a client kept the server from ending."""
    legacy.write_task(tmp_path, "T", agents=[{"id": "a", "status": "running"}])
    (tmp_path / "T" / "logs" / "a_stream.jsonl").write_bytes(b"x" * 2**21)
    with serving(tmp_path) as served, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = served.url.removeprefix("http://").partition(":")
        client.connect((host, int(port)))
        ask = (
            "GET /api/agents/T/a/output?max_bytes=1048576 HTTP/1.1\r\n"
            f"host: {host}\r\nauthorization: Bearer {served.reader}\r\n\r\n"
        )
        client.sendall(ask.encode() * 3)
        client.recv(100)
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(timeout=20)


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "7", '{"at":"x"}', '{"at":"x","phase":9}', '{"at":"x","phase":1,"pause_ms":"3"}'),
        *('{"at":3,"phase":1}', '{"at":"x","phase":"1"}', '{"at":"x","phase":true}'),
        '{"at":"x","phase":[1]}',
    ],
)
def test_an_odd_line_in_the_history(tmp_path, line):
    """The migration page answered 500, so its buttons were missing too."""
    legacy.write_task(tmp_path, "T")
    with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
        migration.switch(MigrationPhase(1), actor="test")
    with (tmp_path / ".registry" / "history.jsonl").open("a") as file:
        file.write(line + "\n")
    with serving(tmp_path) as served:
        assert len(served.get("/api/migration").json()["history"]) == 1
        assert "Step back to 0" in served.get("/migration").text


def test_a_name_that_is_not_utf8(tmp_path):
    """The system page, which should report the name, answered 500."""
    legacy.write_task(tmp_path, "T")
    folder = tmp_path / os.fsdecode(b"T\xff")
    folder.mkdir()
    (folder / "AGENT_REGISTRY.json").write_text("{}")
    with serving(tmp_path) as served:
        for path in ("/system", "/api/system", "/migration", "/"):
            assert served.get(path).status_code == 200, path


def test_a_read_that_failed_leaves_no_untruth(tmp_path, monkeypatch):
    """Changes that arrived while a read failed were never read again."""
    now = datetime.now(UTC)
    before, long_ago = now - timedelta(minutes=5), now - timedelta(hours=1)
    with open_at(tmp_path) as store:
        for name in "ABC":
            build.make(store, name, build.agent(name, "x", last_update=long_ago))
        kept = ActivityIndex(store)
        assert kept.quiet(before).tasks == {"A", "B", "C"}
        build.put(store, build.agent("A", "x", status="blocked", last_update=long_ago), expected=1)
        build.put(store, build.agent("B", "x", status="completed"), expected=1)
        load = store.load

        def failing(task_id, **more):
            monkeypatch.undo()
            raise Unavailable("the disk is gone", next_step="Wait")

        monkeypatch.setattr(store, "load", failing)
        with pytest.raises(Unavailable):
            kept.quiet(before)
        assert store.load == load
        assert kept.quiet(before).tasks == {"A", "C"}


def test_the_headline_dates_the_silence_of_tasks(tmp_path):
    """It took the date from an agent of a task that is not silent."""
    now = datetime.now(UTC)
    with open_at(tmp_path) as store:
        build.make(
            store,
            "A",
            build.agent("A", "fresh", last_update=now),
            build.agent("A", "old", last_update=datetime(2020, 1, 1, tzinfo=UTC)),
        )
        build.make(
            store, "B", build.agent("B", "x", last_update=datetime(2025, 10, 17, tzinfo=UTC))
        )
        quiet = ActivityIndex(store).quiet(now - timedelta(minutes=15))
        said = Summary(counts=store.counts(), quiet=quiet, stored={}).headline()
    assert said.endswith("1 task is marked active but silent since 17 October 2025.")


def test_more_reviews_than_are_shown(tmp_path):
    """Fifty of sixty were shown as if they were all, and sixty open ones hid the decided one."""
    with open_at(tmp_path) as store:
        for n in range(60):
            name = f"T-{n}"
            made = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=n)
            build.make(
                store,
                name,
                build.phase(name, name="p", status=PhaseStatus.ESCALATED),
                Review(task_id=name, review_id="r", phase_index=0, created_at=made),
            )
        done = Review(
            task_id="T-0", review_id="s", phase_index=0, status=ReviewStatus.COMPLETED, notes="done"
        )
        build.put(store, done, expected=1)
    with serving(tmp_path) as served:
        page = served.get("/reviews").text
        assert "More than 50 phases wait for a human." in page
        assert page.count("Not all are shown.") == 2
        assert "No review was decided yet." not in page


def test_nothing_is_compared_in_phase_0(tmp_path):
    """A verification in phase 0 said that there was no difference."""
    legacy.write_task(tmp_path, "T")
    with serving(tmp_path, REGISTRY_TARGET="elsewhere") as served:
        assert act(served, "verify")[1]["answer"]["compared"] is False
        page = served.get("/migration").text
        assert "there is nothing to compare before phase 1" in page
        assert "writes: json, then elsewhere" in page


def test_odd_lines_of_a_log(tmp_path):
    """Deep nesting made it answer 500, U+2028 split a line in two, a symlink was shown as empty."""
    legacy.write_task(
        tmp_path, "T", agents=[{"id": n, "status": "running"} for n in ("a", "b", "c")]
    )
    logs = tmp_path / "T" / "logs"
    deep = '{"a":' * 900 + "1" + "}" * 900
    (logs / "a_stream.jsonl").write_text(f'{deep}\n{{"text": "one\u2028line", "n": 1e-9}}\n')
    (logs / "b_stream.jsonl").symlink_to("/etc/passwd")
    with serving(tmp_path) as served:
        first, second = served.get("/api/agents/T/a/logs").json()
        assert first == {"text": deep}
        assert second == {"text": "one\u2028line", "n": 1e-9}
        answer = served.get("/api/agents/T/b/logs")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        page = served.get("/tasks/T/agents/b").text
        assert "No output is kept." not in page
        assert "root:" not in page
        assert "No output is kept." in served.get("/tasks/T/agents/c").text


def test_a_link_to_nobody(tmp_path, capsys):
    """A port that the dashboard has left may be another program's, which would get the token."""
    with serving(tmp_path) as served:
        token = served.operator
    assert main(["link", "--workspace", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert token not in said.out + said.err
    assert "registry-dashboard serve" in said.err
    with serving(tmp_path) as served:
        served.process.kill()
        served.process.wait()
        assert main(["link", "--workspace", str(tmp_path)]) == 2


def test_what_waits_is_said_and_who_is_silent_is_shown(tmp_path):
    """Four faults: a phase that waited for a human was only called silent; an agent's own page did
    not say that it is silent; a forced approval was not shown; failed agents could not be listed.
    """
    long_ago = datetime(2025, 10, 17, tzinfo=UTC)
    with open_at(tmp_path) as store:
        build.make(
            store,
            "T",
            build.phase("T", name="p", status=PhaseStatus.ESCALATED),
            build.phase(
                "T",
                1,
                name="q",
                status=PhaseStatus.APPROVED,
                extra='{"force_reason":"seen <b>it</b>"}',
            ),
            build.agent("T", "quiet", status="working", last_update=long_ago),
            build.agent("T", "broken", status="failed"),
        )
    with serving(tmp_path) as served:
        front = served.get("/").text
        assert "Nothing is running. 1 phase waits for a human. 1 task is marked" in front
        for path in ("/tasks/T", "/tasks/T/agents/quiet"):
            assert '<span class="status silent">silent</span>' in served.get(path).text
        assert "force-approved: seen &lt;b&gt;it" in served.get("/tasks/T").text
        found = served.get("/?agents=failed").text
        assert "/tasks/T/agents/broken" in found
        assert "/tasks/T/agents/quiet" not in found.partition('id="agents"')[2]


def test_who_is_lost_is_shown(tmp_path):
    """An active agent of a host without a health daemon is shown as lost, until one runs there."""
    place, long_ago = "5:1:other.boot.4026531836", datetime(2025, 10, 17, tzinfo=UTC)
    lost = '<span class="status lost"'
    with open_at(tmp_path) as store:
        away = {"extra": json.dumps({"process": place}), "last_update": long_ago}
        build.make(
            store,
            "T",
            build.agent("T", "away", status="working", **away),
            build.agent("T", "ended", status="failed", **away),
            build.agent("T", "here", status="working", last_update=long_ago),
        )
        with serving(tmp_path) as served:
            for path in ("/", "/tasks/T", "/tasks/T/agents/away"):
                assert served.get(path).text.count(lost) == 1, path
            assert "start <code>registry-orchestrator health" in served.get(path).text
            for agent in ("ended", "here"):
                assert lost not in served.get(f"/tasks/T/agents/{agent}").text
            said = served.get("/api/health").json()["silent_agents"]
            assert {a["agent_id"]: a["lost"] for a in said} == {"away": True, "here": False}
            leases_of(store).acquire_lease("health-other", "its daemon", seconds=600)
            assert lost not in served.get("/").text


def test_a_log_is_read_to_its_beginning(tmp_path):
    """The page showed the end of a log, without a link to the earlier parts."""
    legacy.write_task(tmp_path, "T", agents=[{"id": "a", "status": "running"}])
    lines = "".join(f"line {n:06}\n" for n in range(5000))
    (tmp_path / "T" / "logs" / "a_stream.jsonl").write_text(lines)
    with serving(tmp_path) as served:
        seen, path = "", "/tasks/T/agents/a"
        while path:
            page = served.get(path).text
            seen += page
            before = page.partition('href="?before=')[2].partition("#")[0]
            path = f"/tasks/T/agents/a?before={before}" if before else ""
        cut = [n for n in range(5000) if f"line {n:06}" not in seen]
        assert len(cut) <= 3, "only lines at the borders of the four parts may be cut"
        assert 0 not in cut


def test_a_text_is_found_in_a_log(tmp_path):
    """The last lines with it, in any case, of the last MiB; the page says how much it searched."""
    legacy.write_task(tmp_path, "T", agents=[{"id": "a", "status": "running"}])
    log = tmp_path / "T" / "logs" / "a_stream.jsonl"
    log.write_text("an ERROR far away\n" + "x" * 2**20 + "\n\x1b[31mError: <b>\x1b[0m\nother\n")
    with serving(tmp_path) as served:
        page = served.get("/tasks/T/agents/a?find=error").text
        assert f"1 line matches in the last {2**20} of {log.stat().st_size} bytes" in page
        assert '<span class="ansi-1">Error: &lt;b&gt;</span>' in page
        assert "far away" not in page
        log.write_text("y hit\n" * 300)
        assert "The last 200 lines match" in served.get("/tasks/T/agents/a?find=HIT").text
        assert "0 lines match" in served.get("/tasks/T/agents/a?find=%3Cscript").text
        assert 'value="&lt;script"' in served.get("/tasks/T/agents/a?find=%3Cscript").text


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("all is well, no terrors", ""),
        ("WARNING: disk", "warning"),
        ("Traceback (most recent call last):", "error"),
        ("KeyError: 'x'", "error"),
        ('{"level": "warn", "message": "an error in a text"}', "warning"),
        ('{"type": "result", "subtype": "error_max_turns"}', "error"),
        ('{"type": "result", "is_error": true}', "error"),
        ('{"type": "result", "is_error": false, "error": null}', ""),
        ('{"message": "fatal: not a repository"}', "error"),
        ('{"level": 3, "message": "error"}', ""),
        ('{"level": 50, "msg": "x"}', "error"),
        ('{"level": 40, "msg": "error"}', "warning"),
        ('{"msg": "2 errors found"}', "error"),
        ("E1201 12:00:00 file.cc:3] gone", "error"),
        ("ERR gone", "error"),
        ('{"level": "error"', "error"),
        ('{"a": ' * 2000, ""),
    ],
)
def test_the_level_of_a_line(line, level):
    """By its words, or by what names the level of an object; errors are shown with warnings."""
    found = [name for name in ("warning", "error") if is_at_least(line, name)]
    assert found == {"": [], "warning": ["warning"], "error": ["warning", "error"]}[level]
    assert is_at_least(line, "")


def test_a_log_is_filtered_by_level(tmp_path):
    """Together with a text, and the page keeps what was asked."""
    legacy.write_task(tmp_path, "T", agents=[{"id": "a", "status": "running"}])
    log = tmp_path / "T" / "logs" / "a_stream.jsonl"
    log.write_text("fine one\nwarning one\nerror one\nerror two\n")
    with serving(tmp_path) as served:
        page = served.get("/tasks/T/agents/a?level=warning").text
        assert "3 lines match" in page
        assert '<option value="warning" selected>' in page
        page = served.get("/tasks/T/agents/a?level=error&find=one").text
        assert "1 line matches" in page
        assert "error two" not in page
        assert served.get("/tasks/T/agents/a?level=loud").status_code == 422


def test_the_settings_in_force(tmp_path):
    """Each with where it came from when the program started, and without credentials."""
    (tmp_path / "registry.toml").write_text("lock_timeout = 7\n")
    legacy.write_task(tmp_path, "T")
    told = {name: origin for name, _, origin in in_force(load_settings(tmp_path, env={}, phase=1))}
    assert told["REGISTRY_WORKSPACE"] == told["REGISTRY_PHASE"] == "argument"
    target = "postgresql://u:geheim@h.example/db?sslpassword=secret2"
    with serving(tmp_path, REGISTRY_SILENT_AFTER="60", REGISTRY_TARGET=target) as served:
        (tmp_path / "registry.toml").write_text("no toml\n")
        page = served.get("/system").text
    for name, value, origin in (
        ("LOCK_TIMEOUT", "7.0", "registry.toml"),
        ("SILENT_AFTER", "60.0", "environment"),
        ("TARGET", "h.example", "environment"),
        ("LEGACY_TZ", "not set", "default"),
    ):
        row = page.partition(f"REGISTRY_{name}</code>")[2].partition("</tr>")[0]
        assert value in row
        assert origin in row
    assert "geheim" not in page
    assert "secret2" not in page


@pytest.mark.parametrize("path", ["/system", "/migration"])
def test_a_page_waits_for_no_switch_to_count_what_waits(tmp_path, path):
    """While another program holds the gate, these pages show what they know."""
    legacy.write_task(tmp_path, "T")
    with serving(tmp_path, REGISTRY_LOCK_TIMEOUT="2") as served:
        assert served.get(path).status_code == 200
        time.sleep(1.2)  # the count is read again after a second
        with (tmp_path / ".registry" / "gate").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert served.get(path).status_code == 200


def test_the_page_answers_while_a_switch_waits(tmp_path):
    """A locked document delayed the page: for seconds it showed the job before."""
    folder = legacy.write_task(tmp_path, "T")
    with serving(tmp_path) as served, (folder / "AGENT_REGISTRY.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        headers = {"authorization": f"Bearer {served.operator}"}
        where = f"{served.url}/api/migration/switch"
        with httpx2.stream("POST", where, json={"to": 1}, headers=headers, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: progress"
            assert served.get("/api/migration").json()["job"]["state"] == "running"
            events = [line for line in lines if line.startswith("event")]
        assert events[-1] == "event: failed"


def test_a_question_leaves_nothing_behind(tmp_path):
    """`link` in an empty folder created a token there, and so a registry folder."""
    assert main(["link", "--workspace", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
