"""The ``process`` launcher: an agent is a process of its own session, and needs nothing but the OS.

It outlives the orchestrator that started it, and is found again by its mark.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator import marks
from orchestrator.launchers import starter
from registry_api.launching import Launch, Running

__all__ = ["ProcessLauncher"]

_POLL = 0.05
_ENDING = 5.0  # seconds that a killed process may take to be gone


class _Waiting:
    """A starter that has its orders but not yet the word."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self._process = process
        self.mark = mark
        self.pid: int | None = process.pid

    def go(self) -> None:
        assert self._process.stdin is not None
        with self._process.stdin as told:
            told.write(b"go\n")

    def cancel(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()


class ProcessLauncher:
    """Starts agents as processes; see Launcher."""

    def prepare(self, launch: Launch, ended: Callable[[int], None]) -> _Waiting:
        """See Launcher.prepare."""
        order = {
            "argv": launch.argv,
            "cwd": str(launch.cwd),
            "environment": dict(launch.environment),
            "prompt": str(launch.prompt),
            "log": str(launch.log),
            "errors": str(launch.errors),
        }
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", starter.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        # It waits to be reaped, so its mark is there even if it ended at once.
        waiting = _Waiting(process, marks.mark_of(process.pid) or f"{process.pid}:ended")
        threading.Thread(
            target=_reap, args=(process, ended), name=f"agent-{launch.agent_id}", daemon=True
        ).start()
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            waiting.cancel()
            raise
        return waiting

    def alive(self, mark: str) -> bool:
        """See Launcher.alive."""
        if marks.alive(mark):
            return True
        # Where the leader is gone its number is not given out again while its group has members.
        pid = marks.pid_of(mark)
        return pid is not None and not psutil.pid_exists(pid) and _group_lives(pid)

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """See Launcher.running: the leaders of sessions whose environment names the workspace."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if os.getsid(process.pid) != process.pid:
                    continue
                of = process.environ()
                mark = marks.mark_of(process.pid)
                ours = of.get("REGISTRY_WORKSPACE") == str(workspace)
                if ours and mark and "REGISTRY_AGENT_ID" in of and "REGISTRY_TASK_ID" in of:
                    task_id, agent_id = of["REGISTRY_TASK_ID"], of["REGISTRY_AGENT_ID"]
                    found.append(Running(task_id=task_id, agent_id=agent_id, mark=mark))
        return tuple(found)

    def stop(self, mark: str, *, grace: float) -> None:
        """See Launcher.stop."""
        for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _ENDING)):
            if not self.alive(mark):
                return
            pid = marks.pid_of(mark)
            assert pid is not None
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, sign)
            deadline = time.monotonic() + patience
            while self.alive(mark) and time.monotonic() < deadline:
                time.sleep(_POLL)


def _reap(process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
    ended(process.wait())


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError, OverflowError):
        return False
    return True
