"""Wait for the word, then become the agent's program, watched by a process that notes its end.

Run as a file; nothing of ours is imported. Standard input gives two lines: the launch as JSON
``{argv, environment, files, exit_file}`` and ``go``. Without the second line the process ends:
whoever reserved the agent has died or has changed its mind, and a program that nobody recorded
must not run. ``files`` are inherited descriptors of the prompt, the log, the log of errors and the
working directory: no path is looked up again.

The first line of standard output is the pid of the future agent. It leads a session of its own; its
parent waits for it in another one, so that its exit code is known whatever becomes of the server,
and ends as it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # nothing is imported that is not needed: an agent waits for it
    from typing import Any

NOT_STARTED = 125
NOT_FOUND = 127
_ALL = 2**20  # the largest descriptor that is closed


def main() -> int:
    """Return an exit code; where all is well this process ends as the agent did."""
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
            pass  # a full disk: the server is told by how this process ends
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
    """Lead a session, print its pid, wait for the word and become the agent's program."""
    if launch.get("exit_file") is not None:
        os.close(launch["exit_file"])  # the lock is the parent's alone, and ends with it
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
        os.execvpe(launch["argv"][0], launch["argv"], launch["environment"])  # noqa: S606
    except (OSError, ValueError) as error:
        os.write(2, f"cannot start {launch['argv'][0]}: {error}\n".encode())
        return NOT_FOUND


def _line() -> bytes:
    """Read a line byte by byte: what follows is for the future agent, nothing may be buffered."""
    line = b""
    while (byte := os.read(0, 1)) and byte != b"\n":
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
