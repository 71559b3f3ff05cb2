"""Wait for ``go``, then become the agent's program; a parent process records how it ends.

This file is run as a script and imports nothing of the project. Standard input gives two lines: the
launch as JSON ``{argv, environment, files, exit_file}``, and ``go``. Without the second line the
process ends: the orchestrator that reserved the agent has died or given up, and a program without a
record must not run. ``files`` are inherited descriptors of the prompt, the log, the error log and
the working directory, so that no path is looked up again.

The first line of standard output is the pid of the future agent, which leads its own session. Its
parent waits for it in another session, so that the exit code is known whatever happens to the
server. The parent then ends with the same exit code or signal.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # import only what is needed: each import delays the agent's start
    from typing import Any

NOT_STARTED = 125
NOT_FOUND = 127
_ALL = 2**20  # the largest descriptor that is closed


def main() -> int:
    """Return the agent's exit code; if a signal ended the agent, end by the same signal."""
    launch = json.loads(_line() or "{}")
    exit_file = launch.get("exit_file")
    if exit_file is not None:
        fcntl.flock(exit_file, fcntl.LOCK_EX)
    agent = os.fork()
    if agent == 0:
        os._exit(_become(launch))
    kept = 0 if exit_file is None else exit_file
    os.closerange(0, kept)
    os.closerange(kept + 1, _ALL)
    code = os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])
    if exit_file is not None:
        try:
            os.write(exit_file, f"{code}\n".encode())
            os.fsync(exit_file)
        except OSError:
            pass  # e.g. a full disk: the server still sees how this process ends
        os.close(exit_file)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _as_by_default(-code)
        os.kill(os.getpid(), -code)
    return code


def _as_by_default(number: int) -> None:
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


def _become(launch: dict[str, Any]) -> int:
    """Start a session, print the pid, wait for ``go`` and become the agent's program."""
    if launch.get("exit_file") is not None:
        os.close(launch["exit_file"])  # only the parent holds the lock, until it ends
    os.setsid()
    os.write(1, f"{os.getpid()}\n".encode())
    if _line() != b"go":
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


def _line() -> bytes:
    """Read a line byte by byte, without a buffer: the next line is for the future agent."""
    line = b""
    while (byte := os.read(0, 1)) and byte != b"\n":
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
