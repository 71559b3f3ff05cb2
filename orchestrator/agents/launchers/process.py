"""The ``process`` launcher: each agent is a process in its own session; it needs only the OS.

An agent outlives the orchestrator that started it. It is found again by its process identity,
``pid:birth:place``, and by a random tag, which all processes that it starts inherit in their
environment.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from orchestrator.agents import process_identity
from orchestrator.agents.launchers import process_marks, process_tree, starter
from registry_api.plugins import Launch, Running, Stopped

__all__ = ["NAME", "ProcessLauncher"]

NAME = "process"
_POLL = 0.05
_STARTING = 30.0  # seconds for the starter to answer; 0.03 on a quiet host


class _Prepared:
    """A starter process that waits for its launch order, then for ``go``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.identity = ""
        self.pid: int | None = None

    def send_launch(self, order: Mapping[str, object]) -> int:
        """Send the order; returns the pid of the future agent. Raises OSError if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        with self._process.stdout as told:
            ready, _, _ = select.select([told], [], [], _STARTING)
            line = told.readline() if ready else b""
        if not ready:
            self._process.kill()
            raise OSError(f"its starter process did not answer within {_STARTING:.0f} s")
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

    def prepare(self, launch: Launch, ended: Callable[[int | None], None]) -> _Prepared:
        """See Launcher.prepare."""
        tag = uuid.uuid4().hex
        marks = {process_marks.TAG: tag, process_marks.LAUNCHER: NAME}
        order = {
            "argv": launch.argv,
            "environment": {**launch.environment, **marks},
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
        exit_file = None if launch.exit_file is None else os.dup(launch.exit_file)
        threading.Thread(
            target=_reap,
            args=(process, prepared, exit_file, ended),
            name=f"agent-{launch.agent_id}",
            daemon=True,
        ).start()
        try:
            pid = prepared.send_launch(order)
        except OSError:
            prepared.cancel()
            raise
        prepared.identity = process_tree.identity_with_tag(pid, tag)
        return prepared

    def alive(self, identity: str) -> bool:
        """See Launcher.alive."""
        return process_tree.alive(identity)

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """See Launcher.running: one entry a session, where the environment names the workspace."""
        return process_tree.running(workspace, NAME)

    def stop(self, stopped: Iterable[str], *, grace: float) -> tuple[Stopped, ...]:
        """See Launcher.stop."""
        return process_tree.stop(stopped, grace=grace)


def _reap(
    process: subprocess.Popen[bytes],
    prepared: _Prepared,
    exit_file: int | None,
    ended: Callable[[int | None], None],
) -> None:
    code: int | None = process.wait()
    while prepared.identity and process_identity.alive(prepared.identity):
        time.sleep(_POLL)  # its waiting parent was killed
    ended(process_tree.exit_code(exit_file, code))
