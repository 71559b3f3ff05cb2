"""Several hosts, each with a workspace of its own, that share one registry in PostgreSQL."""

import json
import threading
import time
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime

import psycopg
import pytest

from backends.admin.cli import main
from backends.dual_write import throttle
from contract_tests import build
from registry_api import Capability, find_capability, open_store
from registry_api.capabilities import Stamps
from registry_api.errors import (
    BackendMismatch,
    Busy,
    OutcomeUnknown,
    RegistryError,
    Unavailable,
)
from registry_api.leases import leases_of
from registry_api.migration import MigrationPhase
from registry_api.roles import Role
from tests import processes
from tests.dual_write.test_chain import complete, moved, settings, switch
from tests.postgresql.test_engine import holding, opened
from tests.postgresql.test_move import place, workspace

__all__ = ["place", "workspace"]

HOSTS = 10


@pytest.fixture
def hosts(tmp_path):
    """The workspaces of ten hosts, empty."""
    folders = [tmp_path / f"host{n}" for n in range(HOSTS)]
    for folder in folders:
        folder.mkdir()
    return folders


def direct(workspace, place, **env):
    """Open the database as another host does, through the gate of its own workspace."""
    return open_store(settings(workspace, REGISTRY_BACKEND=place, **env))


def commit_until_refused(workspace, place, told):
    """The program of a host: commit findings to a task of its own, and write a line a commit to the
    file ``told``; when it is refused, write the error and end.
    """
    task_id = f"TASK-of-{workspace.name}"
    with closing(direct(workspace, place)) as store, told.open("a", buffering=1) as file:
        build.make(store, task_id)
        revision = 1
        while True:
            finding = build.finding(task_id, f"f{revision}")
            try:
                revision = build.put(store, finding, expected=revision).revision
                print(revision, file=file)
                time.sleep(0.02)
            except Unavailable:  # while the switch is under way: the caller tries again
                time.sleep(0.01)
            except BackendMismatch as error:
                print(error, file=file)
                return


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_step_back_with_ten_hosts_connected(workspace, tmp_path, hosts, place):
    """Ten hosts write to the database while the workspace that moved there steps back: each is
    refused with the name of the store that writes now, and every commit that it was told is there.
    """
    switch(workspace, 3, target=place)
    files = [tmp_path / f"{folder.name}.told" for folder in hosts]
    running = [
        processes.start(commit_until_refused, folder, place, file)
        for folder, file in zip(hosts, files, strict=True)
    ]
    processes.wait_until(lambda: all(len(lines(file)) > 5 for file in files))
    switch(workspace, 2)
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    with closing(open_store(settings(workspace))) as store:
        for folder, file in zip(hosts, files, strict=True):
            *told, refused = lines(file)
            assert f"the writer of record of the registry in {workspace} is json" in refused
            assert store.head(f"TASK-of-{folder.name}").revision == int(told[-1])
    with moved(workspace) as migration:
        assert migration.verify().mismatches == ()


def test_a_host_that_only_reads_learns_that_the_registry_has_moved(
    workspace, hosts, place, monkeypatch
):
    """A host that reads the database, for writing opened or not, is refused after a step back: it
    would show an old state for ever. The workspace that moved goes on reading.
    """
    monkeypatch.setattr("registry_api.wrappers.role_check.AGE", 0.0)
    switch(workspace, 3, target=place)
    looking = open_store(settings(hosts[1], REGISTRY_BACKEND=place), read_only=True)
    with closing(direct(hosts[0], place)) as host, closing(looking):
        ways = [
            host.counts,
            lambda: host.load("TASK-0"),
            lambda: host.head("TASK-0"),
            host.changes,
            looking.list_tasks,
            looking.counts,
        ]
        for read in ways:
            assert read()
        switch(workspace, 2)
        for read in ways:
            with pytest.raises(BackendMismatch, match="the writer of record"):
                read()
        with closing(open_store(settings(workspace))) as store:
            assert store.load("TASK-0")
            assert store.counts().total_tasks == 3
        for refused in ({"read_only": True}, {}):
            with pytest.raises(BackendMismatch, match="the writer of record"):
                open_store(settings(hosts[2], REGISTRY_BACKEND=place), **refused).counts()
        switch(workspace, 3)
        for read in ways:
            assert read()


def test_the_registry_is_shared_after_the_move(workspace, hosts, place):
    """When the move is complete, other hosts use the database by its URL. None of them may move it:
    it is the registry of the workspace that moved there.
    """
    switch(workspace, 4, target=place)
    complete(workspace)
    with (
        closing(direct(hosts[0], place)) as host,
        closing(open_store(settings(workspace))) as store,
    ):
        assert Capability.MULTI_HOST in host.info.capabilities & store.info.capabilities
        build.make(host, "of-the-host")
        build.put(store, build.finding("of-the-host", "f"), expected=1)
        assert host.head("of-the-host").revision == 2
        assert host.changes() == store.changes()
    with pytest.raises(BackendMismatch, match=f"belongs to the registry in {workspace}"):
        switch(hosts[0], 1, target="sqlite")


def test_logs_beside_a_shared_store_only_if_asked_for(hosts, place):
    """A host keeps no logs of progress and findings, which would be of its own commits only; with
    REGISTRY_LOGS=jsonl it does.
    """

    with closing(direct(hosts[0], place)) as store:
        build.make(store, "t")
        build.put(store, build.finding("t", "f1"), expected=1)
    assert not logged(hosts[0])
    with closing(direct(hosts[1], place, REGISTRY_LOGS="jsonl")) as store:
        build.put(store, build.finding("t", "f2"), expected=2)
    assert len(logged(hosts[1])) == 1


def test_the_copy_of_one_host_slows_the_others_down(workspace, hosts, place, monkeypatch):
    """What the switch of one host demands of writers reaches the other hosts, until it is no longer
    renewed: a switch that was killed slows nobody down for long.
    """
    waited = []
    monkeypatch.setattr(throttle, "patience", lambda seconds: waited.append(seconds) or 0.0)
    monkeypatch.setattr(throttle, "_LOOK", 0.0)
    switch(workspace, 3, target=place)
    with closing(direct(hosts[0], place)) as host, closing(opened(hosts[1], place)) as store:
        throttle.SharedPace.tell(store, 0.04)
        build.make(host, "t")
        build.put(host, build.finding("t", "f0"), expected=1)
        assert waited == []  # it may be of a switch that was killed long ago
        throttle.SharedPace.tell(store, 0.04)
        build.put(host, build.finding("t", "f1"), expected=2)
        throttle.SharedPace.tell(store, 100)
        build.put(host, build.finding("t", "f2"), expected=3)
        assert waited == [0.04, 0.32]
        monkeypatch.setattr(throttle, "_EXPIRES", 0.0)
        build.put(host, build.finding("t", "f3"), expected=4)
        monkeypatch.undo()
        throttle.SharedPace.tell(store, 0)
        build.put(host, build.finding("t", "f4"), expected=5)
    assert waited == [0.04, 0.32]


def logged(folder):
    return [line for path in folder.rglob("*.jsonl") for line in lines(path) if "finding" in line]


def test_logs_are_complete_when_a_shared_store_is_left(tmp_path, hosts, place):
    """What another host has committed is in the logs of the workspace right after a step back, and
    right after a move to a store with logs.
    """
    workspace = tmp_path / "born-in-sqlite"
    workspace.mkdir()
    with closing(open_store(settings(workspace))) as store:
        build.make(store, "t")
    switch(workspace, 3, target=place)

    def commit(first):
        with closing(direct(hosts[0], place)) as host:
            for n in range(first, first + 5):
                finding = build.finding("t", f"f{n}", timestamp=datetime.now(UTC))
                build.put(host, finding, expected=1 + n)

    commit(0)
    switch(workspace, 2)
    assert len(logged(workspace)) == 5
    switch(workspace, 4)
    complete(workspace)
    commit(5)
    switch(workspace, 3, target=f"sqlite://{tmp_path / 'next.sqlite3'}")
    assert len(logged(workspace)) == 10


def test_a_step_back_leaves_no_delay_behind(workspace, place, database):
    """The delay is ended in the store that was slowed down, not in the one that writes now."""
    switch(workspace, 3, target=place)
    with moved(workspace) as migration:
        migration._session.slow_down(0.3)
        migration.switch(MigrationPhase(2), actor="test")
        migration._session.slow_down(0.0)
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT value FROM meta WHERE name = 'stamp.pace'").fetchone()
    assert row[0].split()[0] == "0"


def test_a_fence_waits_for_slow_hosts(workspace, tmp_path, place, database):
    """Two hosts whose transactions take 0.2 s each, one beginning before the other ends: longer
    than any operation of the host that moves. The switch still finds its moment.
    """
    switch(workspace, 3, target=place)
    ended = threading.Event()

    def work(task_id):
        with closing(opened(tmp_path, database)) as store:
            while not ended.is_set():
                with suppress(RegistryError), holding(store, task_id):
                    time.sleep(0.2)

    threads = [threading.Thread(target=work, args=(f"slow{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    try:
        switch(workspace, 2)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_an_interrupted_switch_does_not_hide_the_status(workspace, place, capsys):
    """With the store fenced and the switch not committed, as a kill leaves it, status of the own
    workspace still answers.
    """
    switch(workspace, 3, target=place)
    with moved(workspace) as migration:
        session = migration._session
        session.store.roles.give(session.replicator().target, session.record(), Role.FENCED)
    assert main(["status", "--workspace", str(workspace), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["migration"]["phase"] == 3


@contextmanager
def committing(store, task_id):
    """Commit in a thread; give the durations of the commits, in seconds."""
    took, stop = [], threading.Event()

    def work():
        n = store.head(task_id).revision
        while not stop.is_set():
            start = time.monotonic()
            build.put(store, build.finding(task_id, f"w{n}"), expected=n)
            took.append(time.monotonic() - start)
            n += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def test_a_fence_that_waits_lets_others_write(tmp_path, database):
    """A client sleeps in a transaction that writes. The fence that waits for it gives up with Busy,
    which names that transaction; other tasks were written meanwhile. When it has ended, the fence
    goes through.
    """
    with (
        closing(opened(tmp_path, database, lock_timeout=3.0)) as store,
        closing(opened(tmp_path, database)) as other,
    ):
        for task_id in ("t", "u"):
            build.make(store, task_id)
        fence = find_capability(store, Stamps)
        with committing(other, "u") as took:
            with holding(other, "t") as held:
                held.await_answers()
                pid = held.info.backend_pid
                before, start = len(took), time.monotonic()
                with pytest.raises(Busy, match=rf"server process {pid} .* is idle in transaction"):
                    fence.write_stamp("role", '{"role": "writer"}')
                waited = time.monotonic() - start
                assert len(took) > before + 5
                assert (
                    max(took[before:]) < 0.8 * waited
                )  # none was held up for as long as the fence
            fence.write_stamp("role", '{"role": "writer"}')
        assert store.head("t").revision == 1
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT name FROM meta WHERE name = 'stamp.role'").fetchall()
    assert names == [("stamp.role",)]


def hold_the_lease(workspace, place, told):
    """Renew a lease for ever, and note each token in the file ``told``."""
    with closing(direct(workspace, place)) as store, told.open("a", buffering=1) as file:
        while True:
            lease = leases_of(store).acquire_lease("health", workspace.name, seconds=4.0)
            print(lease and lease.token, file=file)
            time.sleep(0.1)


def test_a_lease_moves_to_another_host(tmp_path, hosts, place):
    """Of two hosts one holds a lease, by the clock of the server; when its process is killed the
    other one gets it with a higher token."""
    told = tmp_path / "told"
    with closing(direct(hosts[1], place)) as other:
        holder = processes.start(hold_the_lease, hosts[0], place, told)
        processes.wait_until(lambda: len(lines(told)) > 15)
        leases = leases_of(other)
        assert leases.lease_holder("health").holder == hosts[0].name
        assert leases.acquire_lease("health", hosts[1].name, seconds=60) is None
        holder.kill()
        holder.join()
        assert set(lines(told)) == {"1"}
        processes.wait_until(lambda: leases.acquire_lease("health", hosts[1].name, seconds=60))
        assert leases.lease_holder("health").token == 2
    assert not (hosts[1] / ".registry" / "leases").exists()


def test_the_leases_follow_the_registry(workspace, hosts, place):
    """In phase 3 the leases of the workspace are those of the database, which other hosts share;
    after a step back they are its own again."""
    with closing(open_store(settings(workspace))) as store:
        leases = leases_of(store)  # found once, before the switch
        assert leases.acquire_lease("health", "before", seconds=60)
        switch(workspace, 3, target=place)
        with closing(direct(hosts[0], place)) as host:
            assert leases.acquire_lease("health", "workspace", seconds=60)
            assert leases_of(host).acquire_lease("health", "host", seconds=60) is None
        switch(workspace, 2)
        assert leases.lease_holder("health").holder == "before"


def test_a_lease_whose_answer_is_lost_can_be_taken_again(hosts, place, database):
    """The outcome is unknown then; asking again renews the lease with the same token."""
    with closing(direct(hosts[0], place)) as store:
        leases = leases_of(store)
        assert leases.acquire_lease("health", "a", seconds=60).token == 1
        with psycopg.connect(database) as other:
            other.execute("SELECT * FROM leases FOR UPDATE")
            answers = []

            def ask():
                try:
                    answers.append(leases.acquire_lease("health", "a", seconds=60))
                except RegistryError as error:
                    answers.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            with psycopg.connect(database, autocommit=True) as watching:
                waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                processes.wait_until(lambda: watching.execute(waits).fetchall())
                ((pid,),) = watching.execute(waits).fetchall()
                watching.execute("SELECT pg_terminate_backend(%s)", (pid,))
            asking.join(30)
        assert isinstance(answers[0], OutcomeUnknown), answers
        assert leases.acquire_lease("health", "a", seconds=60).token == 1
