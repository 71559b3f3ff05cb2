"""Every local store on a disk that is full or read-only: typed errors, and nothing lost."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import closing, suppress

import pytest

from backends.dual_write import switch as switching
from contract_tests import build
from registry_api import (
    Finding,
    Kind,
    ProgressEntry,
    Put,
    RecordQuery,
    all_records,
    load_settings,
    new_changeset,
    open_migration,
    open_store,
)
from registry_api.errors import Conflict, OutcomeUnknown, Unavailable
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.records import record_key
from tests import legacy
from tests.disks import mounted

pytestmark = pytest.mark.root

STORES = ["json", "sqlite", "dual1", "dual2"]


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk") as found:
        yield found


def variables(name):
    if name.startswith("dual"):
        return {"REGISTRY_PHASE": name.removeprefix("dual")}
    return {"REGISTRY_BACKEND": name}


def opened(disk, name):
    return open_store(load_settings(disk.workspace, env=variables(name)))


def begin(disk, name):
    """Make two tasks; return the ids of the changesets."""
    with closing(opened(disk, name)) as store:
        return {build.make(store, t, build.agent(t)).changeset_id for t in ("TASK-a", "TASK-b")}


def changes_of_every_kind(n):
    """Yield changesets that append, rewrite and create, small and large."""
    for size in (10, 9000, 40):
        text = "x" * size
        report = build.report("TASK-a", message=text)
        yield new_changeset("TASK-a", [Put(report)], expected=None)
        yield new_changeset("TASK-b", [Put(build.finding("TASK-b", message=text))], expected=None)
        new = f"TASK-{n}-{size}"
        yield build.creating(new, build.agent(new, type=text))


def spawning(store, text):
    agent = build.agent("TASK-b", f"b{len(text)}", type=text)
    return new_changeset("TASK-b", [Put(agent)], expected=store.head("TASK-b").revision)


def attempt(store, changeset, acked, refused, unknown):
    try:
        acked.add(store.commit(changeset).changeset_id)
    except OutcomeUnknown:
        unknown.append(changeset)
    except Unavailable:
        refused.add(changeset.id)


@pytest.mark.parametrize("name", STORES)
def test_a_full_disk(disk, name):
    """On a full disk, with a few more free blocks each time, each refusal is Unavailable and
    nothing happened, or is OutcomeUnknown; reads go on. With space again the same store goes on,
    and every acknowledged change is there exactly once."""
    acked, refused, unknown = begin(disk, name), set(), []
    store = opened(disk, name)
    for spare in range(24):
        disk.fill(spare=spare)
        for changeset in changes_of_every_kind(spare):
            attempt(store, changeset, acked, refused, unknown)
            assert store.load("TASK-a").task.task_id == "TASK-a"
            assert store.counts().total_tasks >= 2
        attempt(store, spawning(store, "y" * (spare + 1)), acked, refused, unknown)
        with suppress(Unavailable):
            opened(disk, name).close()
        disk.free()
    assert len(refused) > 24
    for changeset in unknown:
        with suppress(Conflict):  # it had not been applied, and other changes were
            acked.add(store.commit(changeset).changeset_id)
    acked.add(build.put(store, build.finding("TASK-a"), expected=None).changeset_id)
    store.close()
    with closing(opened(disk, name)) as store:
        acked.add(build.make(store, "TASK-after", build.agent("TASK-after")).changeset_id)
        assert_whole(store, acked, refused)
    if name.startswith("dual"):
        assert_equal(disk)


def assert_whole(store, acked, refused):
    """Assert that every acknowledged change is in the feed, once and in order, that no refused
    change is, and that the histories hold exactly the appended records."""
    found, revisions, appended, after = Counter(), Counter(), set(), None
    while page := store.changes(after, limit=1000):
        for change in page:
            revisions[change.changeset.task_id] += 1
            assert change.revision == revisions[change.changeset.task_id]
            found[change.changeset.id] += 1
            records = [op.record for op in change.changeset.ops]
            appended |= {record_key(r) for r in records if isinstance(r, ProgressEntry | Finding)}
        after = page[-1].cursor
    assert set(found.values()) == {1}
    assert acked <= found.keys()
    assert not refused & found.keys()
    histories = {
        record_key(r)
        for k in (Kind.PROGRESS, Kind.FINDING)
        for r in all_records(store, k, RecordQuery())
    }
    assert histories == appended
    assert revisions.keys() == {t.task_id for t in store.list_tasks(limit=1000).items}


def assert_equal(disk):
    with closing(open_migration(load_settings(disk.workspace, env={}))) as migration:
        migration.reconcile()
        assert migration.verify().mismatches == ()


@pytest.mark.parametrize("name", STORES)
def test_a_read_only_disk(disk, name):
    """On a disk remounted read-only, status shows the registry, exits 0 and writes nothing, and
    opening for writing or the first write is refused as Unavailable; once the disk is writable
    again, all operations go on."""
    acked = begin(disk, name)
    if name != "sqlite":
        agents = [{"id": "a1", "type": "x", "status": "running", "progress": 1}]
        legacy.write_task(disk.workspace, "TASK-new", agents=agents)
    with disk.read_only():
        before = contents(disk)
        found = status(disk, name)
        assert found["counts"]["tasks"]["total"] == (2 if name == "sqlite" else 3)
        assert found["migration"]["phase"] == {"json": 0, "dual1": 1, "dual2": 2}.get(name)
        assert contents(disk) == before
        with pytest.raises(Unavailable), closing(opened(disk, name)) as store:
            build.put(store, build.finding("TASK-a"), expected=None)
    with closing(opened(disk, name)) as store:
        acked.add(build.put(store, build.finding("TASK-a"), expected=None).changeset_id)
        assert acked <= {c.changeset.id for c in store.changes()}
        assert store.counts().total_tasks == (2 if name == "sqlite" else 3)
    if name.startswith("dual"):
        assert_equal(disk)


def status(disk, name):
    program = [sys.executable, "-m", "backends.admin", "status", "--json"]
    done = subprocess.run(
        [*program, "--workspace", str(disk.workspace)],
        env=variables(name),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return json.loads(done.stdout)


def contents(disk):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in disk.root.rglob("*")
    }


# -- the cut-over and the rollback -----------------------------------------------------------

STEPS = [(2, 3), (3, 4), (3, 2), (4, 3)]


def settings(disk):
    return load_settings(disk.workspace, env={"REGISTRY_RETIRE_SECONDS": "0"})


def switch(disk, phase):
    with closing(open_migration(settings(disk))) as migration:
        migration.switch(MigrationPhase(phase), actor="test")


def phase_of(disk):
    return PhaseFile(disk.workspace / ".registry").current().phase


def frozen(disk):
    """Return the documents that are read-only."""
    documents = disk.workspace.glob("*/AGENT_REGISTRY.json")
    return [p for p in documents if not p.stat().st_mode & 0o200]


@pytest.fixture(params=STEPS, ids=["2-3", "3-4", "3-2", "4-3"])
def about_to_switch(disk, request):
    """A workspace of large documents before a switch, with writes since the last one."""
    before, after = request.param
    legacy.write_task(disk.workspace, "TASK-legacy", agents=[], own_key={"b": 1, "a": 2})
    with closing(open_store(settings(disk))) as store:
        for n in range(8):
            task = f"TASK-{n}"
            build.make(store, task, build.agent(task, type="x" * 40_000))
    switch(disk, before)
    with closing(open_store(settings(disk))) as store:
        for n in range(4):
            agent = build.agent(f"TASK-{n}", "since", type="y" * 20_000)
            build.put(store, agent, expected=1)
            build.put(store, build.report(f"TASK-{n}", "since"), expected=None)
    return disk, before, after


def assert_untouched(disk, before, counts):
    """Assert that the phase is ``before``, documents are writable up to 2, and writers go on."""
    assert phase_of(disk) == before
    if before <= MigrationPhase.READ_MIGRATION:
        assert frozen(disk) == []
    with closing(open_store(settings(disk))) as store:
        assert store.counts() == counts
        build.put(store, build.report("TASK-0", "since"), expected=None)
        return store.counts()


def test_a_switch_on_a_disk_that_fills_up(about_to_switch, monkeypatch):
    """A switch whose disk fills up right after the check for space succeeds or gives up as
    Unavailable with the phase unchanged and, up to phase 2, no document frozen; with space again
    all writers go on, and the way there and back loses nothing."""
    disk, before, after = about_to_switch
    monkeypatch.setattr(switching, "check_place", lambda _: None)
    with closing(open_store(settings(disk))) as store:
        counts = store.counts()
    gave_up = 0
    for spare in (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 256, 384, 512):
        disk.fill(spare=spare)
        try:
            switch(disk, after)
        except Unavailable:
            gave_up += 1
            if before <= MigrationPhase.READ_MIGRATION:
                assert frozen(disk) == []
            disk.free()
            counts = assert_untouched(disk, before, counts)
        else:
            disk.free()
            assert phase_of(disk) == after
            counts = assert_untouched(disk, after, counts)
            switch(disk, before)
            counts = assert_untouched(disk, before, counts)
    assert gave_up
    switch(disk, after)
    assert_equal(disk)
    switch(disk, 0)
    switch(disk, 2)
    assert_equal(disk)
    assert_untouched(disk, 2, counts)


def test_a_switch_on_a_read_only_disk(about_to_switch):
    """A switch on a read-only disk gives up as Unavailable and changes nothing."""
    disk, before, after = about_to_switch
    with closing(open_store(settings(disk))) as store:
        counts = store.counts()
    with disk.read_only():
        there = contents(disk)
        with pytest.raises(Unavailable):
            switch(disk, after)
        assert contents(disk) == there
    counts = assert_untouched(disk, before, counts)
    switch(disk, after)
    assert_untouched(disk, after, counts)
    assert_equal(disk)


@pytest.mark.parametrize("phase", [3, 4])
def test_looking_on_a_read_only_disk_after_the_cut_over(disk, phase):
    """On a read-only disk with a late write, status shows the registry and writes nothing."""
    begin(disk, "dual2")
    switch(disk, phase)
    legacy.write_task(disk.workspace, "TASK-late", agents=[])
    with disk.read_only():
        before = contents(disk)
        found = status(disk, f"dual{phase}")
        assert (found["migration"]["phase"], found["counts"]["tasks"]["total"]) == (phase, 2)
        assert contents(disk) == before
