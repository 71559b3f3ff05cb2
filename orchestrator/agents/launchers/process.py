"""The ``process`` launcher: each agent is a process in its own session; it needs only the OS.

An agent outlives the orchestrator that started it. It is found again by its process identity,
``pid:birth:place``, and by a random tag, which all processes that it starts inherit in their
environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.agents import process_identity
from orchestrator.agents.launchers import starter
from registry_api.plugins import Launch, Running
from registry_api.workspace import STATE_DIR, instance_of

__all__ = ["ProcessLauncher"]

_WORD = "REGISTRY_AGENT_WORD"
_POLL = 0.05
_ENDING = 5.0  # seconds to wait for a killed process to end
_SETTLING = 0.1  # seconds for which a process may show no environment


class _Prepared:
    """A starter process that waits for its launch order, then for ``go``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.identity = ""
        self.pid: int | None = None

    def begin(self, order: Mapping[str, object]) -> int:
        """Send the order; returns the pid of the future agent. Raises OSError if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        with self._process.stdout as told:
            line = told.readline()
        if not line:
            raise OSError("its starter process ended at once")
        self.pid = int(line)
        return self.pid

    def go(self) -> None:
        assert self._process.stdin is not None
        with self._process.stdin as told:
            told.write(b"go\n")

    def cancel(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()


class ProcessLauncher:
    """A launcher that starts agents as processes; see Launcher."""

    def prepare(self, launch: Launch, ended: Callable[[int], None]) -> _Prepared:
        """See Launcher.prepare."""
        word = uuid.uuid4().hex
        order = {
            "argv": launch.argv,
            "environment": {**launch.environment, _WORD: word},
            "files": launch.files,
            "exit_file": launch.exit_file,
        }
        kept = () if launch.exit_file is None else (launch.exit_file,)
        process = subprocess.Popen(  # noqa: S603  (a list of arguments, no shell)
            [sys.executable, "-I", "-S", starter.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(*launch.files, *kept),
            env={},
            cwd="/",
            start_new_session=True,
        )
        prepared = _Prepared(process)
        threading.Thread(
            target=_reap,
            args=(process, prepared, ended),
            name=f"agent-{launch.agent_id}",
            daemon=True,
        ).start()
        try:
            pid = prepared.begin(order)
        except OSError:
            prepared.cancel()
            raise
        prepared.identity = f"{process_identity.identity_of(pid) or f'{pid}:ended:'}:{word}"
        return prepared

    def alive(self, identity: str) -> bool:
        """See Launcher.alive."""
        return process_identity.alive(identity) or bool(_left(identity))

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """See Launcher.running: one entry a session, where the environment names the workspace."""
        found: dict[int, Running] = {}
        instance = instance_of(workspace / STATE_DIR)
        for process, of in _environments():
            word = of.get(_WORD, "")
            # Compare the instance: a renamed workspace keeps its agents, a copy has none of them.
            place = of.get("REGISTRY_WORKSPACE") == str(workspace)
            ours = of["REGISTRY_INSTANCE"] == instance if "REGISTRY_INSTANCE" in of else place
            if not ours or "REGISTRY_AGENT_ID" not in of:
                continue
            with suppress(OSError, KeyError):
                leader = os.getsid(process.pid)
                # If the leader has ended its birth is not needed: the tag identifies what it left.
                identity = process_identity.identity_of(leader) or f"{leader}:gone:"
                found[leader] = Running(
                    task_id=of["REGISTRY_TASK_ID"],
                    agent_id=of["REGISTRY_AGENT_ID"],
                    identity=f"{identity}:{word}",
                )
        return tuple(found.values())

    def stop(self, stopped: Iterable[str], *, grace: float) -> None:
        """See Launcher.stop."""
        left = list(stopped)
        for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _ENDING)):
            left = [identity for identity in left if self.alive(identity)]
            for identity in left:
                pid = process_identity.pid_of(identity)
                assert pid is not None  # it is alive
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, sign)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(map(self.alive, left)):
                time.sleep(_POLL)


def _reap(
    process: subprocess.Popen[bytes], prepared: _Prepared, ended: Callable[[int], None]
) -> None:
    code = process.wait()
    while prepared.identity and process_identity.alive(
        prepared.identity
    ):  # its waiting parent was killed
        time.sleep(_POLL)
    ended(code)


def _environments(group: int | None = None) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Yield the processes that show an environment, with it: all, or those of a group.

    In the middle of an execve a process has memory but shows no environment: it is read again.
    """
    unseen = [p for p in psutil.process_iter() if group is None or _group(p.pid) == group]
    deadline = time.monotonic() + _SETTLING
    while unseen:
        changing = []
        for process in unseen:
            with suppress(psutil.Error, OSError):
                if found := process.environ():
                    yield process, found
                elif process.memory_info().vms:
                    changing.append(process)
        unseen = changing if time.monotonic() < deadline else []  # the rest have none
        if unseen:
            time.sleep(0.001)


def _left(identity: str) -> list[int]:
    """Return the pids that remain in the group of an agent's ended process, known by the tag.

    The group's number alone proves nothing: once the group is empty the number may be reused.
    """
    pid, word = process_identity.pid_of(identity), identity.rpartition(":")[2]
    if pid is None or identity.count(":") != 3 or not word or psutil.pid_exists(pid):
        return []
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [p.pid for p, of in _environments(pid) if of.get(_WORD) == word]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
