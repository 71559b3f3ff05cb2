"""The ``tmux`` launcher: each agent has a terminal session that a person can attach to.

The sessions live in a tmux server of the registry's own, never the user's. The agent itself is
started, found and stopped as by the ``process`` launcher; its terminal shows what it adds to its
logs, and the agent ends if the terminal is closed. The server gets no environment of ours: it
would pass on the secret of an agent that deploys another one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from orchestrator.agents import process_identity
from orchestrator.agents.launchers import process_marks, process_tree, starter
from registry_api.plugins import Launch, Running, Stopped
from registry_api.workspace import STATE_DIR, instance_of

__all__ = ["NAME", "TmuxLauncher"]

NAME = "tmux"
_POLL = 0.05
_CONNECTING = 30.0  # seconds for the starter to connect; a second on a quiet host
_SHORT = 80  # characters
_TRIES = 3  # the server ends with its last session: it may be ending when it is asked
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMUX_TMPDIR")


class _Prepared:
    """A starter in a terminal, which waits for ``go``."""

    def __init__(
        self, connection: socket.socket, *, pid: int, tag: str, session: str, server: str
    ) -> None:
        self._connection = connection
        self.pid = pid
        self.identity = process_tree.identity_with_tag(pid, tag)
        self.session = session
        self.attach = _attach(server, session)

    def go(self) -> None:
        """See Prepared.go."""
        self._connection.sendall(b"go\n")

    def cancel(self) -> None:
        """See Prepared.cancel."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


class TmuxLauncher:
    """A launcher that starts agents in tmux; see Launcher."""

    def prepare(self, launch: Launch, ended: Callable[[int | None], None]) -> _Prepared:
        """See Launcher.prepare."""
        if shutil.which("tmux") is None:
            raise OSError("tmux is not installed: install it, or use the launcher 'process'")
        server = _server_of(launch.environment.get("REGISTRY_INSTANCE", ""))
        session = _session_of(launch.agent_id)
        tag = uuid.uuid4().hex
        with ExitStack() as opened:
            folder = opened.enter_context(
                tempfile.TemporaryDirectory(prefix="registry-", dir=_short_folder())
            )
            place = f"{folder}/s"
            listener = opened.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(place)
            listener.listen(1)
            listener.settimeout(_CONNECTING)
            _new_session(server, session, place)
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                _tmux(server, "kill-session", "-t", f"={session}")
                raise OSError(f"its terminal did not start within {_CONNECTING:.0f} s") from None
        try:
            pid = _send_order(connection, launch, tag)
        except BaseException:
            connection.close()
            raise
        prepared = _Prepared(connection, pid=pid, tag=tag, session=session, server=server)
        exit_file = None if launch.exit_file is None else os.dup(launch.exit_file)
        threading.Thread(
            target=_reap,
            args=(connection, exit_file, prepared.identity, ended),
            name=f"agent-{launch.agent_id}",
            daemon=True,
        ).start()
        return prepared

    def attach_command(self, workspace: Path, agent_id: str) -> tuple[str, ...]:
        """Return the command that attaches a person to the terminal of an agent."""
        return _attach(_server_of(instance_of(workspace / STATE_DIR)), _session_of(agent_id))

    def alive(self, identity: str) -> bool:
        """See Launcher.alive."""
        return process_tree.alive(identity)

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """See Launcher.running."""
        return process_tree.running(workspace, NAME)

    def stop(self, stopped: Iterable[str], *, grace: float) -> tuple[Stopped, ...]:
        """See Launcher.stop; the session ends with the agent."""
        return process_tree.stop(stopped, grace=grace)


def _short_folder() -> str | None:
    """Return a folder for a socket, whose path must be short; None: the usual one."""
    return "/tmp" if len(tempfile.gettempdir()) > _SHORT else None  # noqa: S108  (a folder of ours in it)


def _server_of(instance: str) -> str:
    """Return the name of a registry's own tmux server (``tmux -L``)."""
    return f"registry-{uuid.uuid5(uuid.NAMESPACE_URL, instance).hex[:12]}"


def _session_of(agent_id: str) -> str:
    return f"agent_{agent_id}"


def _attach(server: str, session: str) -> tuple[str, ...]:
    return ("tmux", "-L", server, "attach-session", "-t", f"={session}")


def _new_session(server: str, session: str, place: str) -> None:
    """Start the starter in a new session; raises OSError with what tmux says."""
    program = (sys.executable, "-I", "-S", starter.__file__, place)
    for left in reversed(range(_TRIES)):
        done = _tmux(
            server,
            *("set-option", "-g", "history-limit", "50000", ";"),
            *("new-session", "-d", "-s", session, "-c", "/", "-x", "200", "-y", "50"),
            *("--", *program),
        )
        if done.returncode == 0:
            return
        if "duplicate session" in done.stderr or not left:
            raise OSError(f"tmux: {done.stderr.strip() or f'exit code {done.returncode}'}")
        time.sleep(_POLL)


def _tmux(server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the registry's own server, without a configuration file."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.run(  # noqa: S603  (a list of arguments, no shell)
        ["tmux", "-L", server, "-f", os.devnull, *arguments],  # noqa: S607  (found by PATH, as the user's)
        env={"TERM": "screen", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CONNECTING,
    )


def _send_order(connection: socket.socket, launch: Launch, tag: str) -> int:
    """Send the launch and its descriptors to the starter; returns the future agent's pid."""
    marks = {process_marks.TAG: tag, process_marks.LAUNCHER: NAME}
    # Of the orchestrator's own terminal: the agent runs in another one.
    environment = {k: v for k, v in launch.environment.items() if k not in {"TMUX", "TMUX_PANE"}}
    with ExitStack() as opened:
        passed = [*launch.files]
        if launch.exit_file is not None:
            passed.append(launch.exit_file)
        shown = []
        for path, log in ((launch.log, launch.files[1]), (launch.errors, launch.files[2])):
            reader = _reader_of(path, log)
            if reader is not None:
                opened.callback(os.close, reader)
                shown.append(len(passed))
                passed.append(reader)
        order = {
            "argv": launch.argv,
            "environment": environment | marks,
            "files": [0, 1, 2, 3],
            "exit_file": None if launch.exit_file is None else 4,
            "shown": shown,
        }
        connection.settimeout(_CONNECTING)
        connection.sendall(json.dumps(order).encode() + b"\n")
        socket.send_fds(connection, [b"f"], passed)
        line = _line(connection)
    connection.settimeout(None)
    if not line:
        raise OSError("its starter process ended at once")
    return int(line)


def _reader_of(path: Path, log: int) -> int | None:
    """Open a log for reading; None if the path no longer leads to it."""
    with suppress(OSError):
        found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if os.path.sameopenfile(found, log):
            os.lseek(found, 0, os.SEEK_END)
            return found
        os.close(found)
    return None


def _reap(
    connection: socket.socket,
    exit_file: int | None,
    identity: str,
    ended: Callable[[int | None], None],
) -> None:
    """Wait for the exit code; if the starter was killed, for the agent's end."""
    with connection:
        line = _line(connection)
    while not line and process_identity.alive(identity):
        time.sleep(_POLL)
    ended(process_tree.exit_code(exit_file, int(line) if line else None))


def _line(connection: socket.socket) -> bytes:
    line = b""
    with suppress(OSError):
        while (byte := connection.recv(1)) and byte != b"\n":
            line += byte
    return line
