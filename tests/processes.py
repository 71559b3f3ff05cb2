"""Processes that a test kills or stops, and the programs that they run. They start with everything
imported (10 ms instead of 300 ms), so that a kill or a stop hits their work and not their start.

An acknowledgement is a line in a file, written after the commit returned: ``kind task id when``, as
backends.admin.demo.check reads it.
"""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from uuid_utils.compat import uuid7

from contract_tests import build
from registry_api import Kind, Put, RecordQuery, load_settings, new_changeset, open_store, transact
from tests import legacy
from tests.dual_write.unwrap import dual

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "tests.processes",
        "backends.admin.cli",
        "backends.admin.show_move",
        "backends.dual_write.plugin",
        "backends.json_files.plugin",
        "backends.memory",
        "backends.sql.plugin",
        "backends.sql.sqlite.engine",
        "backends.sql.store",
        "filelock",
        "getpass",
    ]
)


def start(program, *args):
    """Start a program in its own process; it ends with the test run at the latest."""
    process = _context.Process(target=program, args=args, daemon=True)
    process.start()
    return process


def event():
    """Return an event that the test and a process can both set and wait for."""
    return _context.Event()


def opened(workspace, **options):
    return open_store(load_settings(workspace, env={}, **options))


def wait_until(happened, *, timeout=30.0):
    """Wait for something that sends no event: the state of a file or of a stopped process."""
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.005)


def is_stopped(pid):
    """Return whether a process is stopped by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def lost(workspace, acks, *, where="json"):
    """Return how many writes were acknowledged, and the acknowledged writes that plain json, or
    sqlite3, or ``both`` do not find."""
    program = [sys.executable, "-m", "backends.admin.demo.check", str(workspace)]
    files = [str(path) for path in acks if path.exists()]
    done = subprocess.run([*program, where, *files], check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    return len(found), [entry for entry in found if not entry[-1]]


# -- programs ------------------------------------------------------------------------------------


def write(workspace, acks, name, tasks, options=None, *, pause=0.0):
    """Report, add findings, spawn agents and create tasks, until killed; ``pause``: seconds between
    two writes."""
    store, rng = opened(workspace, **(options or {})), random.Random(name)
    with Path(acks).open("a", buffering=1) as out:
        for n in range(10**9):
            time.sleep(pause)
            kind, task, key = _write_once(store, rng.choice(tasks), name, n)
            out.write(f"{kind} {task} {key} {time.monotonic()}\n")


def _write_once(store, task, name, n):
    key = uuid7().hex
    if n % 40 == 39:
        task = f"TASK-new-{name}-{n}"
        build.make(store, task, build.agent(task, key))
        return "agent", task, key
    if n % 4 == 3:
        agent = build.agent(task, key, started_at=datetime.now(UTC))
        transact(store, task, lambda _: [Put(agent)], attempts=1000)
        return "agent", task, key
    record = build.report(task, entry_id=key) if n % 4 else build.finding(task, finding_id=key)
    store.commit(new_changeset(task, [Put(record)], expected=None))
    return "line", task, key


def work(workspace, acks, name, task):
    """Rewrite the task's document and append to its logs in alternation, without a pause, until
    killed.

    It is always equally slow, as on a slow disk: the document stays locked for 30 ms, without a
    real fsync.
    """
    from backends.json_files.task import write_ahead

    original = write_ahead.write_in_place

    def write_in_place(fd, data, *, sync):
        original(fd, data, sync=lambda fd: (sync(fd), time.sleep(0.01)))

    write_ahead.write_in_place = write_in_place
    store = opened(workspace, durable=False)
    with Path(acks).open("a", buffering=1) as out:
        for n in range(10**9):
            agent = build.agent(task, name, extra=f'{{"turn":{n}}}')
            transact(store, task, lambda _, agent=agent: [Put(agent)], attempts=1000)
            out.write(f"agent {task} {name} {time.monotonic()}\n")
            entry = build.report(task, name, progress=n % 100)
            build.put(store, entry, expected=None)
            out.write(f"line {task} {entry.entry_id} {time.monotonic()}\n")


def edit(workspace, acks, name, tasks, stop):
    """Edit documents as a legacy program, under flock alone, until told to stop.

    It skips a document that does not parse because its writer was killed halfway, that does not
    exist, or that it may not write.
    """
    rng = random.Random(name)
    with Path(acks).open("a", buffering=1) as out:
        n = 0
        while not stop.wait(0.01):
            n += 1
            task, key = rng.choice(tasks), f"{name}-{n}"
            try:
                legacy.edit(Path(workspace) / task / "AGENT_REGISTRY.json", legacy.add_agent(key))
            except (ValueError, FileNotFoundError, PermissionError):
                continue
            out.write(f"agent {task} {key} {time.monotonic()}\n")


def command(*tokens, out=os.devnull, env=None):
    """Run ``registry-backend``; the process's exit code is the command's exit code."""
    from backends.admin.cli import main

    os.environ |= env or {}

    with Path(out).open("w") as sys.stdout, Path(os.devnull).open("w") as sys.stderr:
        code = main([str(t) for t in tokens])
    sys.exit(code)


def stand_still(workspace, task, where):
    """Commit an agent, stopped (SIGSTOP) in the commit with ``document`` or ``target`` locked."""
    store = opened(workspace)
    store.load(task)
    if where == "document":
        from backends.json_files.task import write_ahead

        original = write_ahead.write_in_place

        def write_in_place(fd, data, *, sync):
            original(fd, data, sync=lambda fd: (sync(fd), _stop()))

        write_ahead.write_in_place = write_in_place
    else:
        from backends.sql.sqlite.engine import SqliteEngine

        commit = SqliteEngine._commit
        SqliteEngine._commit = lambda self, connection: (_stop(), commit(self, connection))
    build.put(store, build.agent(task, f"still{os.getpid()}"), expected=store.head(task).revision)
    store.close()


_stopped_once = []


def _stop():
    if not _stopped_once:
        _stopped_once.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)


def call(workspace, task, stop, said):
    """Call the store for one task until told to stop; send the longest wait of each kind of call,
    and the counters of replication.

    Without fsync: the measurement is how long other processes hold up a call, not the disk.
    """
    store, longest = opened(workspace, durable=False), {}
    names = iter(range(10**9))

    def spawn():
        agent = build.agent(task, f"called{next(names)}")
        transact(store, task, lambda _: [Put(agent)])

    calls = {
        "head": lambda: store.head(task),
        "load": lambda: store.load(task),
        "report": lambda: build.put(store, build.report(task), expected=None),
        "spawn": spawn,
        "changes": lambda: store.changes(task_id=task, limit=10),
        "progress": lambda: store.list_records(Kind.PROGRESS, RecordQuery(task_id=task), limit=10),
    }
    said.send("ready")
    while not stop.is_set():
        for name, one in calls.items():
            with Watch() as watch:
                one()
            longest[name] = max(longest.get(name, 0.0), watch.seconds)
    said.send((longest, dict(dual(store).followed)))
    store.close()


class Watch:
    """Measures how long a block takes, without the time in which this thread was ready to run while
    other programs had the processors (Linux): that time is not a wait for one of our locks."""

    def __enter__(self):
        self._delayed, self._start = _delayed(), time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._start - (_delayed() - self._delayed)


def _delayed():
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Callers:
    """Processes that each call the store for one task while the test goes on."""

    def __init__(self, workspace, tasks):
        self._stop, self._pipes, self._processes = event(), [], []
        self.followed = []
        for task in tasks:
            here, there = _context.Pipe()
            self._processes.append(start(call, workspace, task, self._stop, there))
            self._pipes.append(here)

    def __enter__(self):
        for pipe in self._pipes:
            assert pipe.poll(30)
            assert pipe.recv() == "ready"
        return self

    def longest(self):
        """Stop the processes; return the longest wait of each kind of call."""
        self._stop.set()
        found = {}
        for pipe in self._pipes:
            assert pipe.poll(30)
            longest, followed = pipe.recv()
            self.followed.append(followed)
            for name, seconds in longest.items():
                found[name] = max(found.get(name, 0.0), seconds)
        return found

    def __exit__(self, *_):
        self._stop.set()
        for process in self._processes:
            process.join()
