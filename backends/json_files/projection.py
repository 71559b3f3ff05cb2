"""GLOBAL_REGISTRY.json for the older programs: our true counts, written into their file.

It is never read back as truth. It must never be seen empty or torn, since those programs then make
it anew, EMPTY: one write, padded with spaces to the old length, then the file is cut. Its lock is
waited for 100 ms at most; then the file stays as it is, marked as out of date, and whoever comes
next brings it up to date.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from typing import Any

from backends.files import open_regular
from backends.json_files.shared import Shared
from registry_api import jsontext
from registry_api.ownership import make_folder, open_owned
from registry_api.snapshot import RegistryCounts, TaskSnapshot

__all__ = ["Projection"]

_PATIENCE = 0.1


class Projection:
    """Keeps the older programs' global file in step with the registry; never fails its caller."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._mark = shared.folder("json") / "global.stale"
        self._written: tuple[bytes, Any] = (b"", None)

    def is_stale(self) -> bool:
        """Whether an earlier update did not get through."""
        return self._mark.exists()

    def mark(self) -> None:
        """Note, before a change, that the file will be out of date."""
        os.close(open_owned(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))

    def update(self, counts: RegistryCounts, tasks: list[TaskSnapshot]) -> bool:
        """Write the counts and the entries of some tasks; return whether it got through."""
        path = self._shared.layout.global_file
        try:
            make_folder(path.parent, parents=True)
            try:
                fd = open_owned(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                fd = open_regular(path, os.O_RDWR)
            try:
                if not _locked(fd):
                    return False
                self._rewrite(fd, counts, tasks)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # by name: a fork child may hold a descriptor too
                os.close(fd)
        except (OSError, ValueError):
            return False  # the mark stays: tried again with the next change
        self._mark.unlink(missing_ok=True)
        return True

    def _rewrite(self, fd: int, counts: RegistryCounts, tasks: list[TaskSnapshot]) -> None:
        old = os.pread(fd, os.fstat(fd).st_size, 0)
        value: Any = self._parsed(old) if old else self._empty()
        if not isinstance(value, dict):
            raise ValueError("the global file is no object")  # left alone, named by status
        value |= {
            "total_tasks": counts.total_tasks,
            "active_tasks": counts.active_tasks,
            "total_agents_spawned": counts.total_agents,
            "active_agents": counts.active_agents,
        }
        for snapshot in tasks:
            self._entries(value, snapshot)
        new = jsontext.dump(value, indent=True)
        self._written = new, value
        if new != old:
            if len(new) > len(old) and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, len(new))  # a full disk shows before anything is written
            padded = new.ljust(len(old))
            if os.pwrite(fd, padded, 0) == len(padded):
                os.ftruncate(fd, len(new))
            self._shared.sync(fd)

    def _parsed(self, data: bytes) -> Any:
        """Parse the file; what we wrote last ourselves is known already."""
        written, value = self._written
        return value if data == written else jsontext.parse(data)

    def _empty(self) -> dict[str, Any]:
        now = self._shared.times.write(self._shared.now())
        return {
            "created_at": now,
            "total_tasks": 0,
            "active_tasks": 0,
            "total_agents_spawned": 0,
            "active_agents": 0,
            "max_concurrent_agents": 20,
            "tasks": {},
            "agents": {},
        }

    def _entries(self, value: dict[str, Any], snapshot: TaskSnapshot) -> None:
        task, write = snapshot.task, self._shared.times.write
        tasks, agents = value.setdefault("tasks", {}), value.setdefault("agents", {})
        if not isinstance(tasks, dict) or not isinstance(agents, dict):
            return
        if task.task_id not in tasks:
            tasks[task.task_id] = {
                "description": task.description,
                "created_at": write(task.created_at),
                "workspace": task.workspace,
                "workspace_base": task.workspace_base,
            }
        entry = tasks[task.task_id]
        if isinstance(entry, dict):
            entry["status"] = snapshot.status.value
        for agent in snapshot.agents:
            if agent.agent_id not in agents:
                agents[agent.agent_id] = {
                    "task_id": task.task_id,
                    "type": agent.type,
                    "parent": agent.parent,
                    "started_at": write(agent.started_at) if agent.started_at else None,
                }
                if agent.tmux_session is not None:  # its presence means that it runs
                    agents[agent.agent_id]["tmux_session"] = agent.tmux_session
            entry = agents[agent.agent_id]
            # One id in two tasks: the entry is the first one's, and stays what it says.
            if isinstance(entry, dict) and entry.get("task_id") == task.task_id:
                entry["status"] = agent.status.value


def _locked(fd: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(0.0005, 0.001))
        else:
            return True
