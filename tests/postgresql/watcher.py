"""Run a program for a test process, and let nothing that it starts outlive the test process.

A program of its own, `python -I -S watcher.py PARENT HOME UID GID COMMAND...`, and the parent of
the server. PostgreSQL gives each of its processes a session, so no process group holds them all;
and a stopped process (SIGSTOP) does not see that the others are gone. The watcher is the
"subreaper" of all of them: orphans become its children, so while it has no child, there is none.

It ends when the program does, with its exit code. On SIGTERM, or when PARENT is gone, it kills all
processes at once. When PARENT is gone it also removes HOME, the folder of the data. Linux only.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.02

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0


def descendants(ancestor: int) -> dict[int, str]:
    """Return the living processes below `ancestor`, elders first: the id and the state of each.

    The state is the letter of `/proc/ID/stat`, as "T" for a stopped process.
    """
    children: dict[int, list[tuple[int, str]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append((int(stat.parent.name), state))
    found: dict[int, str] = {}
    below = children.get(ancestor, [])
    while below:
        found.update(below)
        below = [grandchild for child, _ in below for grandchild in children.get(child, [])]
    return found


def _kill_all() -> None:
    """Kill all descendants, the server first, so that it starts nothing anew; await their end."""
    with suppress(ChildProcessError):  # there is no child any more, so no descendant either
        while True:
            for pid in descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.001)


def _forget(pid_file: Path) -> None:
    """Remove what a killed server leaves: its shared memory and the file that names its process.

    A restart would remove both as well, but a server that never restarts would leave the memory to
    the machine, and another process may have taken the process id by then.
    """
    with suppress(FileNotFoundError, IndexError):
        _key, memory = pid_file.read_text().splitlines()[6].split()
        _LIBC.shmctl(int(memory), _IPC_RMID, None)
    pid_file.unlink(missing_ok=True)


def _end_with_watcher() -> None:
    """Let the kernel kill the server if the watcher is killed; a change of user would undo it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _terminated(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def watch(parent: int, home: Path, user: tuple[int, int] | None, command: list[str]) -> int:
    """Run `command` on the data in `home` until it ends or must end; return its exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        server = subprocess.Popen(
            command,
            cwd=home,
            user=user and user[0],
            group=user and user[1],
            extra_groups=user and [],
            preexec_fn=_end_with_watcher,  # noqa: PLW1509 - there is one thread
        )
        while server.poll() is None and os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return server.returncode or 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill_all()
        _forget(home / "data" / "postmaster.pid")
        if os.getppid() != parent:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    _parent, _home, _uid, _gid, *_command = sys.argv[1:]
    _user = (int(_uid), int(_gid)) if _uid else None
    sys.exit(watch(int(_parent), Path(_home), _user, _command))
