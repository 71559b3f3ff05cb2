"""Logs of ended agents are archived and removed; nothing of a live or unknown agent is touched."""

import json
import os
import random
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dashboard.views import logs as dashboard_logs
from orchestrator.agents import process_identity
from orchestrator.cli import main
from orchestrator.log_retention import apply_retention
from orchestrator.settings import AgentKind
from registry_api import (
    AgentStatus,
    Kind,
    Put,
    RecordQuery,
    load_settings,
    open_migration,
    transact,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ENDS = ("stream.jsonl", "stderr.log", "exit")


@pytest.fixture
def kept(opened, tmp_path):
    """Return a function that makes a Play with agents that ended some days ago."""

    def make(days, *, backend="sqlite", **options):
        play = opened(backend, now=lambda: NOW, **options).create("only")
        for n, ago in enumerate(days):
            agent = play.deploy(f"a{n}")
            made(tmp_path / play.task_id, agent)
            if ago is not None:
                ended(play, agent, ago)
        return play

    return make


def made(folder, agent):
    (folder / "logs").mkdir(exist_ok=True, parents=True)
    (folder / f"agent_prompt_{agent}.txt").write_text("prompt of " + agent)
    for end in ENDS:
        (folder / "logs" / f"{agent}_{end}").write_text(f"{end} of {agent}")


def ended(play, agent, ago, status=AgentStatus.COMPLETED):
    at = NOW - timedelta(days=ago)
    over = replace(play.agent(agent), status=status, completed_at=at, last_update=at)
    transact(play.service.store, play.task_id, lambda _: (Put(over),))


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def agents_of(play):
    return [a.agent_id for a in play.now.agents]


def test_old_logs_are_archived_and_stay_readable(kept, tmp_path):
    """The files of an agent that ended long ago move to the archive; every query shows them as
    before, and a second run changes nothing."""
    play = kept([8, 6, None])
    old, new, live = agents_of(play)
    folder = tmp_path / play.task_id
    dry = apply_retention(play.service, dry_run=True)
    assert len(dry.archived) == 4
    assert names(folder / "archive") == []
    assert apply_retention(play.service) == dry
    assert names(folder / "archive") == sorted(
        [f"agent_prompt_{old}.txt", *(f"{old}_{end}" for end in ENDS)]
    )
    assert sorted({n.rpartition("_")[0] for n in names(folder / "logs")}) == sorted([new, live])
    assert apply_retention(play.service).archived == ()
    shown = play.reading.output(play.task_id, old, max_bytes=1000, before=None)
    assert (shown.text, shown.errors) == (f"stream.jsonl of {old}", f"stderr.log of {old}")
    assert dashboard_logs.tail(tmp_path, play.task_id, old, limit=1000)[0] == shown.text
    assert dashboard_logs.errors(tmp_path, play.task_id, old) == shown.errors
    assert play.service.deployment.files.prompt(play.agent(old)) == f"prompt of {old}"
    assert main(["logs", old, "--workspace", str(tmp_path)]) == 0


@pytest.mark.parametrize("where", ["json", "sqlite", *(f"dual{n}" for n in range(5))])
def test_reports_and_findings_stay(kept, tmp_path, where):
    """What agents that finished, failed or were killed reported and found is in every query after
    their logs were removed, in each phase of a move."""
    backend, phase = where.rstrip("01234"), where[-1]
    if backend == "dual":
        (tmp_path / "registry.toml").write_text(f"phase = {phase}\n")
    play = kept([], backend=backend, remove_logs_after=1, archive_logs_after=1)
    finished, failed, killed = (play.deploy(name) for name in ("a", "b", "c"))
    for agent in (finished, failed, killed):
        made(tmp_path / play.task_id, agent)
        play.report(agent, "working", f"half of {agent}", 50)
        play.add_finding(agent, f"found by {agent}")
    play.report(failed, "failed", "cannot", 60)
    play.service.kill(play.task_id, killed, "enough")
    play.done(finished)
    play.service.now = lambda: NOW + timedelta(days=2)
    assert len(apply_retention(play.service).removed) == 12
    said = {finished: "did it", failed: "cannot", killed: f"half of {killed}"}
    assert {e.agent_id: e.message for e in play.now.latest} == said
    shown = {line.agent_id: line for line in play.reading.task(play.task_id).agents_ended}
    assert {name: shown[name].message for name in said} == said
    for agent, progress in ((finished, 100), (failed, 60), (killed, 50)):
        assert play.agent(agent).progress == progress
        (found,) = play.reading.findings(play.task_id, agent_id=agent).findings
        assert found.message == f"found by {agent}"
        query = RecordQuery(task_id=play.task_id, agent_id=agent)
        reports = play.service.store.list_records(Kind.PROGRESS, query).items
        assert f"half of {agent}" in {report.message for report in reports}
    if backend == "dual":
        with closing(open_migration(load_settings(tmp_path, env={}))) as migration:
            assert migration.status().record.phase == int(phase)
            assert migration.verify().mismatches == ()


def test_removal_by_age_and_by_size(kept, tmp_path):
    """Archived logs are removed when they are too old, and the oldest when there are too many."""
    play = kept([100, 50, 20, 10], remove_logs_after=90)
    oldest, older, *_ = agents_of(play)
    done = apply_retention(play.service)
    assert len(done.archived) == 16
    assert {name.split("/")[-1] for name in done.removed} == {
        f"agent_prompt_{oldest}.txt",
        *(f"{oldest}_{end}" for end in ENDS),
    }
    total = sum(p.stat().st_size for p in (tmp_path / play.task_id / "archive").iterdir())
    options = play.service.options.model_copy(update={"logs_max_bytes": total - 1})
    play.service.options = options
    (first, *_) = removed = apply_retention(play.service).removed
    assert older in first
    assert len(removed) == 1


def test_nothing_of_a_live_or_unknown_agent_is_touched(kept, opened, tmp_path):
    """An active agent, one of unknown status, one without a record, one whose process runs, other
    files and links all stay, however old."""
    kinds = {"one": AgentKind(argv=("sleep", "600"), preamble=False)}
    options = {"kinds": kinds, "default_kind": "one"}
    play = kept([None, 400], archive_logs_after=0, remove_logs_after=0.001, **options)
    active, running = agents_of(play)
    unknown = play.deploy("unknown", kind="external")
    made(tmp_path / play.task_id, unknown)
    ended(play, unknown, 400, AgentStatus.UNKNOWN)
    folder = tmp_path / play.task_id
    made(folder, "nobody-1")
    for name in ("progress", "findings", "archive"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{unknown}_progress.jsonl").write_text("")
    (folder / "archive" / "notes_stream.jsonl").write_text("")
    (folder / "logs" / "x.txt").write_text("")
    linked = play.deploy("linked", kind="external")
    ended(play, linked, 400)
    (folder / "logs" / f"{linked}_stream.jsonl").symlink_to("/etc/passwd")
    stray = tmp_path / "TASK-of-nobody" / "logs"
    stray.mkdir(parents=True)
    (stray / "a_stream.jsonl").write_text("")
    before = sorted(p for p in tmp_path.rglob("TASK-*/**/*"))
    try:
        done = apply_retention(play.service)
        assert (done.archived, done.removed) == ((), ())
        assert sorted(p for p in tmp_path.rglob("TASK-*/**/*")) == before
    finally:
        play.service.deployment.stop([play.agent(active), play.agent(running)])


def test_a_file_in_the_archive_is_never_replaced(kept, tmp_path):
    """A name that the archive has already stays in the logs, and is counted as skipped."""
    play = kept([8])
    (agent,) = agents_of(play)
    archive = tmp_path / play.task_id / "archive"
    archive.mkdir()
    (archive / f"{agent}_exit").write_text("other")
    done = apply_retention(play.service)
    assert (len(done.archived), done.skipped) == (3, 1)
    assert (archive / f"{agent}_exit").read_text() == "other"
    assert names(tmp_path / play.task_id / "logs") == [f"{agent}_exit"]


def test_an_archive_that_is_a_link_is_not_followed(kept, tmp_path, tmp_path_factory):
    """Nothing is moved through a link."""
    outside = tmp_path_factory.mktemp("outside")
    play = kept([8])
    (tmp_path / play.task_id / "archive").symlink_to(outside)
    done = apply_retention(play.service)
    assert (done.archived, done.skipped) == ((), 4)
    assert names(outside) == []


def test_any_mixture_of_agents(kept, tmp_path):
    """Of many agents exactly the files of those that ended long ago are archived."""
    rng = random.Random(7)
    days = [rng.choice([None, 0, 3, 6.9, 7.1, 30]) for _ in range(40)]
    play = kept(days, max_agents=100, max_concurrent=100)
    of = {agent: days[int(agent.partition("-")[0][1:])] for agent in agents_of(play)}
    old = {agent for agent, ago in of.items() if ago and ago > 7}
    done = apply_retention(play.service)
    assert len(done.archived) == 4 * len(old)
    kept_logs = {n.rpartition("_")[0] for n in names(tmp_path / play.task_id / "logs")}
    assert kept_logs == set(agents_of(play)) - old


def test_the_command(kept, tmp_path, capsys):
    """clean --dry-run tells what clean then does."""
    play = kept([8])
    play.service.store.close()
    os.environ["REGISTRY_WORKSPACE"] = str(tmp_path)
    try:
        said = []
        for dry in (["--dry-run"], []):
            assert main(["clean", "--json", *dry]) == 0
            said.append(json.loads(capsys.readouterr().out))
    finally:
        del os.environ["REGISTRY_WORKSPACE"]
    assert said[0].pop("dry_run") is True
    assert said[1].pop("dry_run") is False
    assert said[0] == said[1]
    assert len(said[0]["archived"]) == 4


def test_files_of_another_hosts_agent_stay(kept, tmp_path, monkeypatch):
    """Whether the process of an ended agent of another host still runs cannot be seen from here."""
    play = kept([8])
    (agent,) = agents_of(play)
    identity = process_identity.own_identity()
    noted = replace(play.agent(agent), extra=json.dumps({"process": f"{identity}:tag"}))
    transact(play.service.store, play.task_id, lambda _: (Put(noted),))
    monkeypatch.setattr(process_identity, "_place", lambda: "another.machine.1")
    assert apply_retention(play.service).archived == ()
    monkeypatch.undo()
    assert apply_retention(play.service).archived == ()  # it is this process, which runs


def test_a_clean_up_that_died_half_way_is_completed(kept, tmp_path, monkeypatch):
    """A file that has both names, as the last run died between the two steps, loses the first."""
    play = kept([8])
    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.log_retention.os.unlink", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            apply_retention(play.service)
    done = apply_retention(play.service)
    assert (len(done.archived), done.skipped) == (4, 0)
    assert names(tmp_path / play.task_id / "logs") == []
