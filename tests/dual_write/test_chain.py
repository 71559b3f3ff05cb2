"""Moves between any pair of stores, one after the other, under running writers."""

import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager

import pytest

from backends.admin.cli import main
from contract_tests import build
from registry_api import (
    Kind,
    Put,
    TaskQuery,
    find_capability,
    load_settings,
    new_changeset,
    open_migration,
    open_store,
)
from registry_api.capabilities import Stamps
from registry_api.errors import BackendMismatch, PreflightFailed, Unavailable
from registry_api.migration import MigrationPhase, PhaseFile, Switching, SwitchJournal
from registry_api.plugins import OpenContext, load_plugins
from registry_api.roles import ROLE, Role, RoleStamp
from registry_api.workspace import processes as processes_of
from tests import legacy, lmdb_plugin, processes
from tests.dual_write.unwrap import dual
from tests.proof import PROVING

ENV = {"REGISTRY_RETIRE_SECONDS": "0.1"}
TASKS = [f"TASK-{n}" for n in range(3)]
THERE_AND_BACK = (1, 0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4)


@pytest.fixture(autouse=True)
def lmdb(tmp_path_factory, monkeypatch):
    """The store ``lmdb`` of the example is installed."""
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    lmdb_plugin.install(tmp_path_factory.mktemp("plugin"), monkeypatch)


def settings(workspace, **env):
    return load_settings(workspace, env=ENV | env)


def moved(workspace):
    return closing(open_migration(settings(workspace)))


def switch(workspace, phase, **options):
    with moved(workspace) as migration:
        return migration.switch(MigrationPhase(phase), actor="test", **options)


def complete(workspace):
    with moved(workspace) as migration:
        return migration.complete(actor="test")


def walk(workspace, way, target=None):
    """Walk through phases; each store is found equal whenever two are in use."""
    for phase in way:
        switch(workspace, phase, target=target)
        if phase in {1, 2, 3}:
            with moved(workspace) as migration:
                assert migration.verify().mismatches == ()


def feed_of(store, after=None):
    while page := store.changes(after, limit=1000):
        yield from page
        after = page[-1].cursor


@contextmanager
def subscriber(workspace):
    """Follow the feed from its start, across every switch; give the changes seen."""
    seen, stop = [], threading.Event()

    def follow():
        with closing(open_store(settings(workspace))) as store:
            after = None
            while True:
                ended = stop.is_set()
                for change in feed_of(store, after):
                    seen.append(change)
                    after = change.cursor
                if ended:
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _write(workspace, acks):
    # With a pause: each commit to lmdb reads its whole task, and tasks grow with every agent.
    processes.write(workspace, acks, acks.name, TASKS, pause=0.02)


@contextmanager
def writers(workspace, tmp_path, number):
    """Run processes that write from now on; give their files of acknowledgements."""
    acks = [tmp_path / f"w{n}" for n in range(number)]
    started = [processes.start(_write, workspace, a) for a in acks]
    try:
        processes.wait_until(lambda: all(a.exists() and a.stat().st_size for a in acks))
        yield acks
        assert [p.exitcode for p in started] == [None] * number  # no switch made one fail
    finally:
        for process in started:
            process.kill()
            process.join()


@pytest.mark.timeout(1200)  # 36 switches under load: 10 s here, a minute beside busy loops
def test_a_chain_of_moves_under_load(tmp_path):
    """json -> sqlite -> lmdb -> sqlite, back and forth in each move, while processes write that
    were started before the first switch: no acknowledged write is lost, a subscriber sees each
    change once and in order, and a page cursor taken in json is good in the last sqlite.
    """
    workspace = tmp_path / "workspace"
    for task in TASKS:
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(workspace, task, agents=agents)
    with closing(open_store(settings(workspace))) as store:
        page = store.list_tasks(TaskQuery(), limit=1)
    with subscriber(workspace) as seen, writers(workspace, tmp_path, 8 if PROVING else 4) as acks:
        walk(workspace, THERE_AND_BACK)
        complete(workspace)
        walk(workspace, THERE_AND_BACK, target="lmdb")
        complete(workspace)
        walk(workspace, THERE_AND_BACK, target="sqlite")
        last = complete(workspace)
    assert [(m.source, m.target) for m in last.completed] == [
        ("json", "sqlite"),
        ("sqlite", "lmdb"),
        ("lmdb", "sqlite"),
    ]
    count, missing = processes.lost(workspace, acks, where="sqlite")
    assert count > 100
    assert missing == []
    with closing(open_store(settings(workspace))) as store:
        assert store.info.name == "sqlite"
        every = list(feed_of(store))
        names = sorted(t.task_id for t in store.list_tasks(limit=1000).items)
        following = [t.task_id for t in store.list_tasks(after=page.next, limit=1000).items]
    assert [c.cursor for c in seen] == [c.cursor for c in every]
    assert max(Counter(c.changeset.id for c in every).values()) == 1
    assert sorted([page.items[0].task_id, *following]) == names
    rows = sqlite3.connect(workspace / ".registry" / "registry.sqlite3")
    with closing(rows):
        numbers = [n for (n,) in rows.execute("SELECT number FROM feed ORDER BY number")]
    assert numbers == [c.cursor.number for c in every]


def test_a_registry_born_in_sqlite_moves_under_its_writers(tmp_path):
    """A process that opened a registry which no move had touched follows every phase to lmdb and
    back, without being opened again.
    """
    with closing(open_store(settings(tmp_path))) as store:
        assert store.info.name == "sqlite"
        build.make(store, "t", build.agent("t"))
        revision = 1
        for phase in (1, 2, 3, 4, 3, 2, 1, 0, 4):
            switch(tmp_path, phase, target="lmdb")
            build.put(store, build.report("t", progress=phase), expected=None)
            revision += 1
            assert store.load("t").revision == revision
            assert store.info.name == "dual"
            build.make(store, f"new{revision}")
            assert store.load(f"new{revision}").revision == 1
            assert dual(store).followed["lagging"] == dual(store).followed["fallbacks"] == 0
        complete(tmp_path)
        build.put(store, build.report("t"), expected=None)
        assert store.info.name == "lmdb"
        assert store.counts().records[Kind.PROGRESS] == revision
    assert not (tmp_path / ".registry" / "registry.sqlite3").exists()
    log = tmp_path / "t" / "progress" / "a1_progress.jsonl"
    assert len(log.read_text().splitlines()) == revision  # each report once, whatever the store


@pytest.mark.parametrize("source", ["sqlite", "json"])
def test_a_store_opened_around_the_gate_is_fenced(tmp_path, source):
    """A process that holds the source open without the gate cannot write to it after the cut-over,
    nor to the target before it; it is told which store to use.
    """
    with closing(open_store(settings(tmp_path, REGISTRY_BACKEND=source))) as store:
        build.make(store, "t")
    plugins = load_plugins()
    context = OpenContext(settings=settings(tmp_path), plugins=plugins)
    with closing(plugins.factory(source)(context)) as around:
        build.put(around, build.agent("t"), expected=1)
        switch(tmp_path, 2, target="lmdb")
        with pytest.raises(BackendMismatch):
            open_store(settings(tmp_path, REGISTRY_BACKEND="lmdb"), gated=False)
        build.put(around, build.agent("t", "b"), expected=2)  # it is the writer of record
        switch(tmp_path, 3)
        for _ in range(2):
            with pytest.raises(BackendMismatch, match=r"the writer of record .* is lmdb"):
                build.put(around, build.agent("t", "c"), expected=3)
        switch(tmp_path, 2)
        build.put(around, build.agent("t", "c"), expected=3)
    with closing(open_store(settings(tmp_path))) as store:
        assert {a.agent_id for a in store.load("t").agents} == {"a1", "b", "c"}
        assert {a.agent_id for a in store.load("t").agents} == {"a1", "b", "c"}


def test_json_opened_around_the_gate_is_fenced_after_its_move(tmp_path):
    """A process that has held json open since before the move writes no document after it ended."""
    with closing(open_store(settings(tmp_path, REGISTRY_BACKEND="json"))) as store:
        build.make(store, "t")
    plugins = load_plugins()
    context = OpenContext(settings=settings(tmp_path), plugins=plugins)
    with closing(plugins.factory("json")(context)) as around:
        assert around.load("t").revision == 1
        switch(tmp_path, 4, target="lmdb")
        complete(tmp_path)
        for changeset in (
            build.creating("u"),
            new_changeset("t", [Put(build.agent("t"))], expected=1),
        ):
            with pytest.raises(BackendMismatch, match=r"the writer of record .* is lmdb"):
                around.commit(changeset)
    assert not list(tmp_path.rglob("AGENT_REGISTRY.json"))


@pytest.fixture
def shared(tmp_path):
    """Two workspaces that name one lmdb file as the target; the first has moved there, phase 3."""
    first, second = tmp_path / "first", tmp_path / "second"
    target = f"lmdb://{tmp_path / 'shared.lmdb'}"
    for workspace in (first, second):
        workspace.mkdir()
        with closing(open_store(settings(workspace))) as store:
            build.make(store, workspace.name)
    switch(first, 3, target=target)
    return first, second, target


def test_one_target_of_two_registries_is_refused(shared):
    """The second registry's plan and switch are refused and say whose store it is."""
    first, second, target = shared
    for dry_run in (True, False):
        with pytest.raises(BackendMismatch, match=f"belongs to the registry in {first}"):
            switch(second, 1, target=target, dry_run=dry_run)
    assert PhaseFile(second / ".registry").read() is None
    with closing(open_store(settings(second))) as store:
        build.make(store, "more")
    with closing(open_store(settings(first))) as store:
        assert [t.task_id for t in store.list_tasks().items] == ["first"]


def test_another_host_writes_to_the_target_while_the_first_steps_back(shared):
    """A process with a workspace of its own that uses the target directly in phase 3 loses nothing:
    what it wrote is taken along by a step back, after which it is refused.
    """
    first, second, target = shared
    other = open_store(load_settings(second, env=ENV | {"REGISTRY_BACKEND": target}), gated=False)
    with closing(other):
        for n in range(20):
            build.put(other, build.agent("first", f"other{n}"), expected=1 + n)
        switch(first, 2)
        with pytest.raises(BackendMismatch, match=r"the writer of record .* is sqlite"):
            build.put(other, build.agent("first", "late"), expected=21)
    with closing(open_store(settings(first))) as store:
        assert len(store.load("first").agents) == 20
        assert len(store.load("first").agents) == 20


def test_doctor_tells_the_second_host(shared, capsys):
    """A workspace that used the target of another one directly is told by doctor, once a step back
    has taken the target from it, whose store it is and which one to use."""
    first, second, target = shared
    third = second.with_name("third")
    third.mkdir()
    direct = load_settings(third, env=ENV | {"REGISTRY_BACKEND": target})
    with closing(open_store(direct)) as other:
        build.put(other, build.agent("first", "other"), expected=1)
        switch(first, 2)
        with pytest.raises(BackendMismatch):
            build.put(other, build.agent("first", "late"), expected=2)
    assert main(["doctor", "--workspace", str(first)]) == 0
    assert main(["doctor", "--workspace", str(third)]) != 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"the writer of record of the registry in {first} is sqlite" in said


def test_targets_that_are_refused(tmp_path):
    """Source as target, a store with tasks of its own, a store that cannot be a target, no target,
    an unreachable one: a typed error that says what to do; nothing is recorded.
    """
    with closing(open_store(settings(tmp_path))) as store:
        build.make(store, "t")
        here = store.info.location
    other = tmp_path / "other.sqlite3"
    with closing(open_store(load_settings(tmp_path, env={}), gated=False)) as store:
        assert store.info.location == here
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with closing(open_store(settings(elsewhere, REGISTRY_BACKEND=f"sqlite://{other}"))) as store:
        build.make(store, "theirs")
    refused = {
        None: "has no target",
        "sqlite": "is the source",
        f"sqlite://{here}": "is the source",
        f"sqlite://{other}": "is not empty: it holds 1 task",
        "json": "cannot be the target",
    }
    for target, message in refused.items():
        for dry_run in (True, False):
            with pytest.raises((PreflightFailed, BackendMismatch), match=message) as caught:
                switch(tmp_path, 1, target=target, dry_run=dry_run)
            assert caught.value.next_step
    assert PhaseFile(tmp_path / ".registry").read() is None


def test_a_store_fenced_by_a_dead_switch_is_free_after_recover(tmp_path):
    """A program around the gate gets Unavailable from a store that a killed switch has fenced;
    after ``recover`` in the workspace it can write again."""
    with closing(open_store(settings(tmp_path))) as store:
        build.make(store, "t")
    around = open_store(settings(tmp_path, REGISTRY_BACKEND="sqlite"), gated=False)
    switch(tmp_path, 2, target="lmdb")
    record = PhaseFile(tmp_path / ".registry").read()
    with closing(around):
        stamped = find_capability(around, Stamps)
        fenced = RoleStamp(role=Role.FENCED, workspace=str(tmp_path), epoch=record.epoch)
        stamped.write_stamp(ROLE, fenced.dump())
        under_way = Switching(
            before=MigrationPhase(2), after=MigrationPhase(3), epoch=record.epoch, inside=True
        )
        SwitchJournal(tmp_path / ".registry").write(under_way)
        with pytest.raises(Unavailable, match="registry-backend recover"):
            build.put(around, build.agent("t"), expected=1)
        with moved(tmp_path) as migration:
            assert migration.recover()
        assert build.put(around, build.agent("t"), expected=1).revision == 2


def test_a_process_of_an_earlier_version_stops_the_first_switch(tmp_path, monkeypatch):
    """A live process whose entry does not say that it passes the gate is named by pid; nothing is
    changed. Without it the switch is made."""
    settled = processes_of.Flock.write
    monkeypatch.setattr(
        processes_of.Flock,
        "write",
        lambda self, data, at: settled(self, data.replace(b'"gated":true', b'"other":true'), at),
    )
    with closing(open_store(settings(tmp_path))) as store:
        monkeypatch.undo()
        build.make(store, "t")
        with pytest.raises(PreflightFailed, match=f"use the registry: {os.getpid()}"):
            switch(tmp_path, 1, target=f"sqlite://{tmp_path / 'other.sqlite3'}")
    assert PhaseFile(tmp_path / ".registry").read() is None
    switch(tmp_path, 1, target=f"sqlite://{tmp_path / 'other.sqlite3'}")


def test_a_completed_move_cannot_be_stepped_back(tmp_path):
    """After ``complete`` a step back is a new move; ``complete`` in another phase is refused."""
    with closing(open_store(settings(tmp_path))) as store:
        build.make(store, "t")
    with pytest.raises(PreflightFailed, match="phase 0"):
        complete(tmp_path)
    switch(tmp_path, 4, target="lmdb")
    record = complete(tmp_path)
    assert (record.phase, record.source, record.target) == (0, "lmdb", "")
    assert switch(tmp_path, 0).steps == ()
    with pytest.raises(PreflightFailed, match="has no target"):
        switch(tmp_path, 1)
    switch(tmp_path, 1, target="sqlite")
    with pytest.raises(PreflightFailed, match="is under way"):
        switch(tmp_path, 2, target="lmdb:///elsewhere")


def test_a_damaged_archive_does_not_bar_the_way_back(tmp_path):
    """With the archive of a removed source damaged, the steps 4 to 3 to 2 fill the source again
    from the store that took over."""
    with closing(open_store(settings(tmp_path))) as store:
        build.make(store, "t", build.agent("t"))
        switch(tmp_path, 4, target="lmdb")
        build.put(store, build.report("t"), expected=None)
        (archive,) = (tmp_path / ".registry" / "archive").iterdir()
        archive.write_bytes(b"damaged")
        assert "is empty until a step back to 2" in " ".join(switch(tmp_path, 3).notes)
        switch(tmp_path, 2)
        build.put(store, build.report("t"), expected=None)
        with moved(tmp_path) as migration:
            assert migration.verify().mismatches == ()
        switch(tmp_path, 0)
        assert store.load("t").revision == 3
        assert [c.revision for c in store.changes()] == [1, 2, 3]


def test_reading_creates_no_removed_store(tmp_path, capsys):
    """In phase 4 no command that reads, and no program, creates the removed source again."""
    with closing(open_store(settings(tmp_path))) as store:
        build.make(store, "t")
    switch(tmp_path, 4, target="lmdb")
    for command in ("status", "verify", "doctor", "plan 3", "reconcile", "recover", "history"):
        main([*command.split(), "--workspace", str(tmp_path)])
    with closing(open_store(settings(tmp_path))) as store:
        build.put(store, build.agent("t"), expected=1)
    with closing(open_store(settings(tmp_path), read_only=True)) as store:
        assert store.load("t").revision == 2
    assert not (tmp_path / ".registry" / "registry.sqlite3").exists()
    capsys.readouterr()


def test_a_copy_of_a_workspace_does_not_use_the_originals_target(tmp_path, capsys):
    """A copy is refused the target outside it that the original uses; ``recover --take-over`` gives
    it the target, and refuses the original from then on."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    with closing(open_store(settings(original))) as store:
        build.make(store, "t")
    switch(original, 3, target=f"lmdb://{tmp_path / 'outside.lmdb'}")
    shutil.copytree(original, copy)
    with pytest.raises(BackendMismatch, match="recover --take-over"):
        open_store(settings(copy))
    assert main(["recover", "--take-over", "--workspace", str(copy)]) == 0
    with closing(open_store(settings(copy))) as store:
        build.put(store, build.agent("t"), expected=1)
    with pytest.raises(BackendMismatch, match="is a copy of"):
        open_store(settings(original))
    capsys.readouterr()


def test_the_store_of_a_url_is_recorded(tmp_path):
    """A workspace that uses a store by URL keeps its name: a program without that
    setting opens the same store, one that names another store is refused."""
    place = f"lmdb://{tmp_path / 'mine.lmdb'}"
    with closing(open_store(settings(tmp_path, REGISTRY_BACKEND=place))) as store:
        build.make(store, "t")
    with closing(open_store(settings(tmp_path))) as store:
        assert store.head("t").revision == 1
    assert not (tmp_path / ".registry" / "registry.sqlite3").exists()
    with pytest.raises(BackendMismatch, match="is not the store in use"):
        open_store(settings(tmp_path, REGISTRY_BACKEND="sqlite"))
