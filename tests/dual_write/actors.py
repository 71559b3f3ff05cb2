"""Programs that stop after every durable step until the test lets them go on or kills them.

Each is its own process that runs the real code. The test watches where it touches the task's files
(system calls) and the target (statements and writes), and so decides which of several programs
takes the next step. A program that waits for a lock reports it and tries again when the test lets
it.
"""

import errno
import fcntl
import json
import multiprocessing
import os
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from backends.json_files.migration_source import JsonMigrationSource
from backends.sql.store import SqlStore
from registry_api import (
    RecordQuery,
    all_records,
    load_settings,
    new_changeset,
    open_migration,
    open_store,
)
from registry_api.errors import Conflict, RegistryError, Unavailable
from registry_api.migration import MigrationPhase, PhaseFile, SwitchJournal
from registry_api.plugins import load_plugins

TASK = "TASK-1"
TARGET_WRITES = ("apply", "apply_all", "replace")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", f"{__package__}.warm"])


def document_of(workspace):
    return workspace / TASK / "AGENT_REGISTRY.json"


def log_of(workspace):
    return workspace / TASK / "progress" / "old_progress.jsonl"


def settings_of(workspace):
    """Return settings without fsync, since programs are killed here but the machine is not. The
    lock timeout is long, so that no program gives up on a lock: the test decides how long a lock is
    held."""
    return load_settings(workspace, env={}, durable=False, lock_timeout=20.0)


plugins = cache(load_plugins)


def opened(workspace):
    return open_store(settings_of(workspace), plugins=plugins())


def migrating(workspace):
    return open_migration(settings_of(workspace), plugins=plugins())


# -- inside the process ----------------------------------------------------------------------


class Stops:
    """Reports its step to the test and waits for the answer: ``go``, or ``fail`` the next step."""

    def __init__(self, wire, workspace):
        self.workspace = workspace
        self._wire = wire
        self._failing = False
        self._last = ""
        state = workspace / ".registry"
        self._files = {
            "document": document_of(workspace),
            "intent": state / "intents" / TASK,
            "journal": state / "json" / f"{TASK}.journal",
            "log": log_of(workspace),
        }

    def tell(self, what, value):
        self._wire.send((what, value))

    def unlocked(self):
        """Stop where other programs can get the lock, but not after a lock for reading only."""
        if self._last != "unlock":
            self.at("unlock")

    def at(self, step):
        self._last = step
        self.tell("at", step)
        self._failing = self._wire.recv() == "fail"

    def fails(self):
        failing, self._failing = self._failing, False
        return failing

    def wait(self):
        self.tell("blocked", None)
        self._wire.recv()

    def name_of(self, file):
        """Return which of the task's files a descriptor or path is, None for any other file."""
        with suppress(OSError):
            found = os.stat(getattr(file, "fileno", lambda: file)())  # noqa: PTH116  (hot path)
            for name, path in self._files.items():
                with suppress(OSError):
                    if os.path.samestat(found, path.stat()):
                        return name
        return None


def _watch_files(stops):
    def watch(name):
        original = getattr(os, name)

        def watched(file, *args):
            place = stops.name_of(file)
            if name == "posix_fallocate" and place == "journal":
                place = None  # no reader reads past the last newline
            if place and stops.fails():
                raise OSError(errno.ENOSPC, "no space, as the test asked")
            out = original(file, *args)
            if place:
                stops.at(f"{name} {place}")
            return out

        setattr(os, name, watched)

    for name in ("write", "pwrite", "truncate", "posix_fallocate", "chmod", "fchmod"):
        watch(name)
    original = fcntl.flock

    def flock(file, operation):
        try:
            original(file, operation)
        except BlockingIOError:
            fd = getattr(file, "fileno", lambda: file)()
            fd = getattr(file, "fileno", lambda: file)()
            if "/procs/" not in str(Path(f"/proc/self/fd/{fd}").readlink()):
                stops.wait()  # not a check which processes are alive
            raise
        if operation == fcntl.LOCK_UN and stops.name_of(file) == "document":
            stops.unlocked()

    fcntl.flock = flock


def _watch_calls(stops, kind, names):
    def watch(name):
        original = getattr(kind, name)

        def watched(self, *args, **options):
            stops.at(f"to {name}")
            if stops.fails():
                raise Unavailable(f"{name} fails, as the test asked")
            out = original(self, *args, **options)
            stops.at(f"{name} done")
            return out

        setattr(kind, name, watched)

    for name in names:
        watch(name)


def _watch_switch(stops):
    _watch_calls(stops, SwitchJournal, ("write", "clear"))
    _watch_calls(stops, PhaseFile, ("advance",))
    _watch_calls(stops, JsonMigrationSource, ("fence", "sweep", "unfence"))


def _watch_target(stops, *, reads):
    _watch_calls(stops, SqlStore, (*TARGET_WRITES, "commit"))
    reading = SqlStore._reading

    @contextmanager
    def watched_reading(self, *, once=False):
        with reading(self, once=once) as execute:

            def statement(name, /, **parameters):
                rows = execute(name, **parameters)
                if name in reads:
                    stops.at(name)
                return rows

            yield statement

    SqlStore._reading = watched_reading


def _main(wire, program, workspace, arguments):
    stops = Stops(wire, workspace)
    program(stops, **arguments)
    stops.tell("done", None)


# -- programs of ours ------------------------------------------------------------------------


def writer(stops, changeset):
    """Commit until acknowledged; after a conflict, commit a new changeset at the new revision."""
    store = opened(stops.workspace)
    _watch_files(stops)
    _watch_target(stops, reads=())
    _watch_switch(stops)
    stops.at("ready")
    while True:
        stops.tell("sent", changeset)
        try:
            commit = store.commit(changeset)
        except Conflict:
            changeset = new_changeset(
                TASK, changeset.ops, expected=store.head(TASK).revision, actor="test"
            )
        else:
            stops.tell("acked", commit)
            return


def attempt(stops, changeset):
    """Commit once; do not repeat a refused commit."""
    store = opened(stops.workspace)
    _watch_files(stops)
    stops.at("ready")
    try:
        stops.tell("acked", store.commit(changeset))
    except RegistryError as error:
        stops.tell("refused", error.code)


def reader(stops):
    """Load the task once."""
    store = opened(stops.workspace)
    _watch_files(stops)
    _watch_switch(stops)
    _watch_target(stops, reads=("load_task_row", "load_agents", "load_latest", "head"))
    stops.at("ready")
    stops.tell("returned", store.load(TASK))


def reconciler(stops):
    """Absorb the edits of other programs, and bring the target up to date."""
    migration = migrating(stops.workspace)
    _watch_files(stops)
    _watch_target(stops, reads=())
    stops.at("ready")
    migration.reconcile()


def switcher(stops, way):
    """Switch from phase to phase; after a kill, begin again with the phase that was interrupted."""
    migration = migrating(stops.workspace)
    _watch_files(stops)
    _watch_target(stops, reads=())
    _watch_switch(stops)
    stops.at("ready")
    for n, phase in enumerate(way):
        stops.tell("left", way[n:])
        migration.switch(MigrationPhase(phase), actor="test", timeout=20.0)
        stops.at(f"phase {phase}")


# -- legacy programs: plain json and flock ---------------------------------------------------


def _lock(stops, file):
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return


def _load(stops, file):
    """Return the document, None where it does not parse: a legacy program gives up there."""
    _lock(stops, file)
    try:
        return json.load(file)
    except ValueError:
        return None
    finally:
        stops.at("read")


def _added(document, name):
    document["agents"].append({"id": name, "type": "legacy", "status": "running"})
    document["total_spawned"] = document.get("total_spawned", 0) + 1
    return json.dumps(document, indent=2)


def legacy_edit(stops, name):
    """Read, change and write the document under one lock: overwrite the old text, then truncate."""
    with document_of(stops.workspace).open("r+") as file:
        _watch_files(stops)
        stops.at("ready")
        document = _load(stops, file)
        if document is None:
            return
        file.seek(0)
        file.write(_added(document, name))
        file.flush()
        stops.at("written")
        file.truncate()
        stops.tell("acked", name)
        fcntl.flock(file, fcntl.LOCK_UN)


def legacy_stale(stops, name):
    """Read under the lock, release it, and write the whole document later: truncate, then write."""
    path = document_of(stops.workspace)
    _watch_files(stops)
    stops.at("ready")
    with path.open("r+") as file:
        document = _load(stops, file)
        fcntl.flock(file, fcntl.LOCK_UN)
    if document is None:
        return
    try:
        file = path.open("r+")
    except PermissionError:
        stops.tell("refused", "frozen")
        return
    with file:
        _lock(stops, file)
        file.truncate(0)
        stops.at("cut")
        file.write(_added(document, name))
        file.flush()
        stops.tell("acked", name)
        fcntl.flock(file, fcntl.LOCK_UN)


def legacy_torn(stops, ours):
    """Overwrite the document, and exit once the mix of two texts parses without our agent."""
    with document_of(stops.workspace).open("r+") as file:
        _watch_files(stops)
        stops.at("ready")
        document = _load(stops, file)
        if document is None:
            return
        file.seek(0)
        old = file.read()
        document["agents"][0]["note"] = "x" * len(old)
        new = json.dumps(document, indent=2)
        length = _mixing(old, new, without=ours)
        file.seek(0)
        file.write(new[:length])
        file.flush()
        stops.tell("mixed", length)
        os._exit(9)


def _mixing(old, new, *, without):
    """Return how many characters of ``new`` before the rest of ``old`` lose an agent, or 0."""
    for length in range(len(old)):
        with suppress(ValueError):
            mix = json.loads(new[:length] + old[length:], object_pairs_hook=_once)
            agents = {agent["id"] for agent in mix["agents"]}
            if "old" in agents and without not in agents:
                return length
    return 0


def _once(pairs):
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


LATE = '{"timestamp": "2026-01-04T22:16:01", "agent_id": "old", "message": "late"}\n'


def legacy_appender(stops):
    """Append a line to the log without any lock, as the legacy agents do."""
    stops.at("ready")
    with log_of(stops.workspace).open("a") as file:
        file.write(LATE)
    stops.tell("acked", "late")


def legacy_mover(stops):
    """Move the log to archive/ and append one more line, which creates the log again."""
    log = log_of(stops.workspace)
    stops.at("ready")
    (log.parent.parent / "archive").mkdir()
    log.rename(log.parent.parent / "archive" / log.name)
    stops.at("moved")
    with log.open("a") as file:
        file.write(LATE)
    stops.tell("acked", "late")


# -- in the test -----------------------------------------------------------------------------


class Actor:
    """A program under the test's control: the step it is at, and the results it sent."""

    def __init__(self, workspace, program, **arguments):
        self.program = program
        self.at = "ready"
        self.acked = None
        self.returned = None
        self.refused = None
        self.mixed = None  # how many characters were overwritten
        self.failing = False  # every write to the target fails
        self._workspace = workspace
        self._arguments = arguments
        self._start()

    def _start(self):
        self._wire, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_main, args=(theirs, self.program, self._workspace, self._arguments)
        )
        self._process.start()
        theirs.close()

    def wait_ready(self):
        self._listen()
        assert self.at == "ready"

    @property
    def is_done(self):
        return self.at == "done"

    @property
    def is_dead(self):
        return self.at == "dead"

    @property
    def is_over(self):
        return self.is_done or self.is_dead

    def _listen(self):
        try:
            while True:
                what, value = self._wire.recv()
                if what == "sent":
                    self._arguments["changeset"] = value  # sent again after a kill
                elif what == "left":
                    self._arguments["way"] = value
                elif what in {"at", "blocked", "done"}:
                    self.at = value if what == "at" else what
                    break
                else:
                    setattr(self, what, value)
        except EOFError:
            self.at = "dead"
        if self.is_over:
            self._end()

    def _end(self):
        self._process.join()
        assert self._process.exitcode in ({0, -9} if self.mixed is None else {9})
        self._process.close()
        self._wire.close()

    def step(self, answer="go"):
        """Let the program take the next step."""
        failing = self.failing and self.at in {f"to {name}" for name in TARGET_WRITES}
        self._wire.send("fail" if failing else answer)
        self._listen()

    def kill(self):
        """Kill the program with SIGKILL at its current step."""
        if not self.is_over:
            self._process.kill()
            self.at = "dead"
            self._end()

    def restart(self):
        """Start a killed program again: a writer with the changeset that it had sent."""
        assert self.is_dead
        self.failing = False
        self._start()
        self.wait_ready()


def history_of(store, kind):
    return list(all_records(store, kind, RecordQuery(task_id=TASK)))
