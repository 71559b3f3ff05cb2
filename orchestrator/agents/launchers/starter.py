"""Wait for ``go``, then become the agent's program; a parent process records how it ends.

This file is run as a script and imports nothing of the project. It is told two lines: the launch as
JSON ``{argv, environment, files, exit_file, shown}``, and ``go``. Without the second line the
process ends: the orchestrator that reserved the agent has died or given up, and a program without a
record must not run. ``files`` are descriptors of the prompt, the log, the error log and the working
directory, so that no path is looked up again.

Without an argument the lines come on standard input, the descriptors are inherited, and the first
line of standard output is the pid of the future agent. With the path of a socket as its argument it
runs in a terminal: the lines and the descriptors come over the socket, and so go the pid and, at
the end, the exit code; what the agent adds to its logs, the descriptors ``shown``, is copied to
the terminal.

The agent leads its own session. Its parent waits for it in another session, so that the exit code
is known whatever happens to the server. The parent then ends with the same exit code or signal. If
the parent's terminal is closed or it is told to end, it ends the agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # import only what is needed: each import delays the agent's start
    from collections.abc import Iterable
    from typing import Any

NOT_STARTED = 125
NOT_FOUND = 127
_ALL = 2**20  # the largest descriptor that is closed
_LOOK = 0.2  # seconds between two looks into the logs
_GRACE = 5.0  # seconds after which an agent is killed whose terminal was closed
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Return the agent's exit code; if a signal ended the agent, end by the same signal."""
    in_terminal = len(sys.argv) > 1
    heard, said = (_connected(sys.argv[1]),) * 2 if in_terminal else (0, 1)
    launch = json.loads(_line(heard) or "{}")
    if in_terminal and launch:
        launch = _received(launch, heard)
    exit_file = launch.get("exit_file")
    if exit_file is not None:
        with contextlib.suppress(OSError):  # it is new: who holds it wants to stop the start
            fcntl.flock(exit_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if in_terminal:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, *_SIGNALS))
    agent = os.fork()
    if agent == 0:
        if in_terminal:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, *_SIGNALS))
        os._exit(_become(launch, heard, said))
    shown = launch.get("shown", [])
    _close_all_but({exit_file, *shown, *((1, said) if in_terminal else ())})
    code = _wait_in_terminal(agent, shown) if in_terminal else _wait(agent)
    if exit_file is not None:
        try:
            os.write(exit_file, f"{code}\n".encode())
            os.fsync(exit_file)
        except OSError:
            pass  # e.g. a full disk: the server still sees how this process ends
        os.close(exit_file)
    if in_terminal:
        with contextlib.suppress(OSError):  # the server has ended: the next one reads the file
            os.write(said, f"{code}\n".encode())
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _as_by_default(-code)
        os.kill(os.getpid(), -code)
    return code


def _connected(path: str) -> int:
    """Return the descriptor of a connected socket."""
    import socket  # noqa: PLC0415  (only in a terminal: it delays the start)

    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection.detach()


def _received(launch: dict[str, Any], channel: int) -> dict[str, Any]:
    """Return the launch with the descriptors that follow it, in place of their numbers."""
    import socket  # noqa: PLC0415  (only in a terminal: it delays the start)

    connection = socket.socket(fileno=os.dup(channel))
    _, found, _, _ = socket.recv_fds(connection, 1, 16)
    connection.close()
    launch["files"] = [found[n] for n in launch["files"]]
    launch["shown"] = [found[n] for n in launch["shown"]]
    if launch["exit_file"] is not None:
        launch["exit_file"] = found[launch["exit_file"]]
    return launch


def _close_all_but(kept: set[int | None]) -> None:
    first = 0
    for descriptor in sorted(d for d in kept if d is not None):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _ALL)


def _wait(agent: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])


def _wait_in_terminal(agent: int, shown: list[int]) -> int:
    """Copy the logs to the terminal until the agent ends; pass the signals on to it."""
    with contextlib.suppress(OSError):  # a terminal that takes nothing must not delay the exit code
        os.set_blocking(1, False)
    kill_at, said = None, 0
    while True:
        told = _signal_within(_LOOK)
        if told in _SIGNALS and not said:
            said, kill_at = told, time.monotonic() + _GRACE
            _tell(agent, told)
        if kill_at is not None and time.monotonic() > kill_at:
            _tell(agent, signal.SIGKILL)
        ended, status = os.waitpid(agent, os.WNOHANG)
        _show(shown)
        if ended:
            return os.waitstatus_to_exitcode(status)


def _signal_within(seconds: float) -> int:
    """Wait for one of the blocked signals; returns 0 if none came."""
    awaited = (signal.SIGCHLD, *_SIGNALS)
    if hasattr(signal, "sigtimedwait"):
        found = signal.sigtimedwait(awaited, seconds)
        return found.si_signo if found else 0
    time.sleep(seconds)  # macOS
    pending = signal.sigpending() & set(awaited)
    return int(signal.sigwait(pending)) if pending else 0


def _tell(agent: int, number: int) -> None:
    """Signal the agent's group; it is alive or waits to be reaped, so the number is still its."""
    try:
        os.killpg(agent, number)
    except ProcessLookupError:  # it has not begun its session yet
        os.kill(agent, number)


def _show(shown: Iterable[int]) -> None:
    for log in shown:
        try:
            while text := os.read(log, 65536):
                done = os.write(1, text)
                if done < len(text):
                    os.lseek(log, done - len(text), os.SEEK_CUR)
                    break
        except BlockingIOError:
            os.lseek(log, -len(text), os.SEEK_CUR)
        except OSError:
            pass  # the terminal is closed


def _as_by_default(number: int) -> None:
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


def _become(launch: dict[str, Any], heard: int, said: int) -> int:
    """Start a session, tell the pid, wait for ``go`` and become the agent's program."""
    if launch.get("exit_file") is not None:
        os.close(launch["exit_file"])  # only the parent holds the lock, until it ends
    os.setsid()
    os.write(said, f"{os.getpid()}\n".encode())
    if _line(heard) != b"go":
        return NOT_STARTED
    prompt, log, errors, folder = launch["files"]
    try:
        os.fchdir(folder)
        for descriptor, standard in ((prompt, 0), (log, 1), (errors, 2)):
            os.dup2(descriptor, standard)
        os.closerange(3, _ALL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            _as_by_default(number)
        os.execvpe(launch["argv"][0], launch["argv"], launch["environment"])  # noqa: S606  (replaces the process on purpose)
    except (OSError, ValueError) as error:
        os.write(2, f"cannot start {launch['argv'][0]}: {error}\n".encode())
        return NOT_FOUND


def _line(heard: int) -> bytes:
    """Read a line byte by byte, without a buffer: the next line is for the future agent."""
    line = b""
    while (byte := os.read(heard, 1)) and byte != b"\n":
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
