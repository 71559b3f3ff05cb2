"""The gate on a busy host: a switch still closes it, and no caller gets Busy because of that."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from registry_api.errors import Busy, SwitchTimedOut
from registry_api.migration import Gate
from registry_api.workspace import Flock, Process
from registry_api.wrappers import GatedStore


@pytest.fixture
def gate(tmp_path):
    found = Gate(tmp_path, timeout=30)
    yield found
    found.close()


class Waiting:
    """A store whose calls all wait for one lock, as writers wait for the lock of a task."""

    def __init__(self, path):
        self.path = path
        self.tried = threading.Event()
        self.calls = 0

    def head(self, task_id):
        self.calls += 1
        self.tried.set()
        lock = Flock(self.path)
        try:
            with lock.exclusive(120):
                return task_id
        finally:
            lock.close()

    def close(self):
        pass


@contextmanager
def running(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_it_closes_though_each_operation_outlives_the_first_rounds(tmp_path):
    """Eight callers, each inside for three times the first round, so that one is always inside:
    rounds of constant length never close the gate, rounds that double do.
    """
    done, idle = threading.Event(), threading.Event()
    process = Process(tmp_path, every=0)
    gate = Gate(tmp_path, timeout=30, measure=process.passed_gate)

    def work():
        while not done.is_set():
            with gate.passing():
                idle.wait(0.3)

    with running(*[work] * 8):
        try:
            with gate.closed():
                pass
        finally:
            done.set()
    process.close()
    gate.close()


def test_who_waits_inside_leaves_for_a_switch(gate, tmp_path):
    """A call that waits for a lock inside leaves the gate for a switch, and continues after it."""
    store = Waiting(tmp_path / "lock")
    gated, answers = GatedStore(store, gate), []
    holder = Flock(store.path)
    with holder.exclusive(1), running(lambda: answers.append(gated.head("t"))):
        assert store.tried.wait(30)
        with gate.closed(timeout=30):
            assert answers == []
            seen = store.calls
        holder.release()
    assert answers == ["t"]
    assert store.calls > seen
    holder.close()


def test_waits_grow_with_what_operations_take(tmp_path):
    """The slowest process decides: its newest operations set how long callers and switches wait."""
    gate, process = Gate(tmp_path, timeout=5), Process(tmp_path, every=0)
    assert gate.timeout() == 5
    process.passed_gate(0.0, 0.5)
    assert gate.timeout() == pytest.approx(30, rel=0.01)
    for _ in range(1000):
        process.passed_gate(0.0, 0.001)
    assert gate.timeout() == 5
    process.close()
    gate.close()


def test_a_lock_that_stays_taken_makes_no_wait_longer(tmp_path):
    """Waiting is not work: calls that end in Busy or waited long do not count as slow operations.
    Slow operations of more than ten seconds ago do not count either.
    """
    process = Process(tmp_path, every=0)
    gate = Gate(tmp_path, timeout=0.3, measure=process.passed_gate)
    store = Waiting(tmp_path / "lock")
    holder = Flock(store.path)
    with holder.exclusive(1):
        for _ in range(3):
            with pytest.raises(Busy):
                GatedStore(_Impatient(store), gate).head("t")
        assert gate.timeout() == 0.3
        threading.Timer(0.2, holder.release).start()
        assert GatedStore(store, gate).head("t") == "t"
    assert gate.slow() < 0.15
    process.passed_gate(0.0, 9.0)
    assert gate.timeout() > 60
    entry = next((tmp_path / "procs").iterdir())
    os.utime(entry, (0, time.time() - 11))
    assert gate.timeout() == 0.3
    process.close()
    gate.close()
    holder.close()


def test_a_call_that_gave_way_for_long_waits_inside(gate, tmp_path):
    """A call that left for repeated switches finally waits inside, and so gets its lock."""
    gate = Gate(tmp_path, timeout=0.2)
    store, answers = Waiting(tmp_path / "lock"), []
    holder, switch = Flock(store.path), Gate(tmp_path, timeout=1)
    done = threading.Event()

    def closing():
        while not done.is_set():
            with suppress(SwitchTimedOut), switch.closed(timeout=0.05):
                pass

    with holder.exclusive(1), running(closing):
        try:
            with running(lambda: answers.append(GatedStore(store, gate).head("t"))):
                assert store.tried.wait(30)
                seen = 0
                while seen != store.calls:  # until it no longer gives way, but waits inside
                    seen = store.calls
                    time.sleep(1)
                holder.release()
        finally:
            done.set()
    assert answers == ["t"]
    for each in (holder, gate, switch):
        each.close()


def test_a_time_out_says_for_how_long_and_for_whom(gate, tmp_path):
    """The message names the process inside, its state and the wait; no lock is held afterwards."""
    script = (
        "import sys; from pathlib import Path; from registry_api.migration.gate import Gate\n"
        "with Gate(Path(sys.argv[1]), timeout=1).passing(): print('in', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as inside:
        assert inside.stdout.readline() == "in\n"
        inside.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(SwitchTimedOut) as found, gate.closed(timeout=0.3):
                pass
        finally:
            inside.send_signal(signal.SIGCONT)
        inside.communicate("\n", timeout=60)
    assert f"process {inside.pid} (python" in found.value.message
    assert "stopped" in found.value.message
    assert "in 0.3 s" in found.value.message
    with gate.closed(timeout=5):
        pass


class Kept:
    """A store that only collects its changesets."""

    def __init__(self):
        self.commits = []

    def commit(self, changeset):
        self.commits.append(changeset)


def test_commits_wait_while_a_switch_asks_for_it(gate, tmp_path, monkeypatch):
    """Commits of every process wait for the time that the switch asks for; an expired request, or
    one of an earlier boot, is ignored.
    """
    slept = []
    monkeypatch.setattr("registry_api.migration.gate.time.sleep", slept.append)
    store = GatedStore(Kept(), gate)
    store.commit("a")
    switch = Gate(tmp_path, timeout=1)
    switch.slow_down(0.25)
    store.commit("b")
    assert slept == [0.25]
    now = time.monotonic()
    monkeypatch.setattr("registry_api.migration.gate.time.monotonic", lambda: now + 11)
    store.commit("c")
    monkeypatch.setattr("registry_api.migration.gate.time.monotonic", lambda: now - 3600)
    store.commit("d")
    monkeypatch.undo()
    switch.slow_down(0)
    store.commit("e")
    assert (slept, store.inner.commits) == ([0.25], ["a", "b", "c", "d", "e"])
    switch.close()


def test_a_lock_that_stays_taken_is_busy(gate, tmp_path):
    """Without a switch a call inside waits until its own limit, then raises Busy."""
    store = Waiting(tmp_path / "lock")
    gate = Gate(tmp_path, timeout=0.2)
    holder = Flock(store.path)
    with holder.exclusive(1), pytest.raises(Busy):
        GatedStore(_Impatient(store), gate).head("t")
    holder.close()
    gate.close()


class _Impatient:
    def __init__(self, inner):
        self.inner = inner

    def head(self, task_id):
        lock = Flock(self.inner.path)
        try:
            with lock.exclusive(0.05):
                return task_id
        finally:
            lock.close()
