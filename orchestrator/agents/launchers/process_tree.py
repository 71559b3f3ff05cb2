"""The processes of agents on this host: found by identity and tag, and ended as whole trees.

Every launcher whose agents are processes here shares this module. An agent's program leads a
session of its own; all that it starts inherits a random tag in its environment. Nothing is
signalled but a process that was found in an agent's tree and still has the same start time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.agents import process_identity
from orchestrator.agents.launchers import starter
from orchestrator.agents.launchers.process_marks import LAUNCHER, TAG
from registry_api.plugins import Running, Stopped
from registry_api.records import is_id
from registry_api.workspace import STATE_DIR, instance_of

__all__ = ["alive", "exit_code", "identity_with_tag", "running", "stop"]

_POLL = 0.05
_ENDING = 5.0  # seconds to wait for a killed process to end
_SETTLING = 0.1  # seconds for which a process may show no environment


def identity_with_tag(pid: int, tag: str) -> str:
    """Return the identity of an agent's new process: ``pid:birth:place:tag``."""
    return f"{process_identity.identity_of(pid) or f'{pid}:ended:'}:{tag}"


def exit_code(exit_file: int | None, told: int | None) -> int | None:
    """Return the exit code in the file, which is closed, else what the starter told.

    If a signal ended the starter before it could write the file, the code is not known.
    """
    if exit_file is None:
        return told
    with suppress(OSError, ValueError):
        try:
            return int(os.pread(exit_file, 16, 0))
        finally:
            os.close(exit_file)
    return told if told is not None and told >= 0 else None


def alive(identity: str) -> bool:
    """Return whether exactly that process, or any process of its group, is alive."""
    return process_identity.alive(identity) or bool(_left(identity))


def running(workspace: Path, launcher: str) -> tuple[Running, ...]:
    """Return one entry a session, where the environment names the workspace and the launcher."""
    found: dict[int, Running] = {}
    instance = instance_of(workspace / STATE_DIR)
    own = os.getsid(0)
    shown: dict[int, dict[str, str]] = {}
    # One in the middle of an execve is found by the next look: to wait would cost each idle scan.
    for process, of in _environments(settling=0.0):
        shown[process.pid] = of
    for pid, of in shown.items():
        # Compare the instance: a renamed workspace keeps its agents, a copy has none of them.
        place = of.get("REGISTRY_WORKSPACE") == str(workspace)
        ours = of["REGISTRY_INSTANCE"] == instance if "REGISTRY_INSTANCE" in of else place
        # Agents that version 0.1 started name no launcher: they are processes.
        ours = ours and of.get(LAUNCHER, "process") == launcher
        if not ours or not (
            is_id(of.get("REGISTRY_AGENT_ID")) and is_id(of.get("REGISTRY_TASK_ID"))
        ):
            continue
        with suppress(OSError):
            leader = os.getsid(pid)
            # In a session of somebody else, as a person's, it is alone: not that session is its.
            if (
                leader in shown
                and shown[leader].get("REGISTRY_AGENT_ID") != of["REGISTRY_AGENT_ID"]
            ):
                leader = pid
            # If the leader has ended its birth is not needed: the tag identifies what it left.
            identity = process_identity.identity_of(leader) or f"{leader}:gone:"
            found[leader] = Running(
                task_id=of["REGISTRY_TASK_ID"],
                agent_id=of["REGISTRY_AGENT_ID"],
                identity=f"{identity}:{of.get(TAG, '')}",
                own=os.getsid(pid) == own,
            )
    return tuple(found.values())


def stop(stopped: Iterable[str], *, grace: float) -> tuple[Stopped, ...]:
    """End whole trees of processes: SIGTERM, then SIGKILL for what is left after ``grace``."""
    ends = [_End(identity) for identity in stopped]
    found = ends
    for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _ENDING)):
        deadline = time.monotonic() + patience
        found = open_ends = _signalled(found, sign)
        while open_ends and time.monotonic() < deadline:
            time.sleep(_POLL)
            open_ends = [end for end in open_ends if end.left()]
            if sign is signal.SIGKILL:  # what was started meanwhile
                open_ends = _signalled(open_ends, sign)
    return tuple(end.told() for end in ends)


def _signalled(ends: list[_End], sign: signal.Signals) -> list[_End]:
    """Signal the trees; returns those of which there was a process.

    The processes are looked at once for all: a task may have many agents that have ended.
    """
    if not any(end.may_have_processes() for end in ends):
        return []
    seen = _Processes()
    return [end for end in ends if end.signal_tree(sign, seen)]


class _Processes:
    """All processes at one moment: by tag, with their children and sessions."""

    def __init__(self) -> None:
        self.tagged: dict[str, set[int]] = {}
        for process, of in _environments():
            if TAG in of:
                self.tagged.setdefault(of[TAG], set()).add(process.pid)
        self.children: dict[int, list[int]] = {}
        self.sessions: dict[int, set[int]] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                self.children.setdefault(process.ppid(), []).append(process.pid)
                self.sessions.setdefault(os.getsid(process.pid), set()).add(process.pid)

    def tree(self, identity: str) -> set[str]:
        """Return the identities of an agent's processes.

        Three groups: processes with its tag; processes of its session, if the agent is alive or a
        tagged process is in that session; and the descendants of both. The starter of another
        agent and its descendants are excluded: an agent's server may have deployed them.
        """
        pid = process_identity.pid_of(identity)
        if pid is None:
            return set()
        leads = process_identity.alive(identity)
        tagged = self.tagged.get(_tag_of(identity), set())
        members = tagged | ({pid} if leads else set())
        session = self.sessions.get(pid, set())
        if leads or session & tagged:
            members |= session
        looked_at = list(members)
        while looked_at:  # a process whose environment was cleared, in a session of its own
            for child in self.children.get(looked_at.pop(), ()):
                if child not in members and not _is_starter(child):
                    members.add(child)
                    looked_at.append(child)
        members.discard(os.getpid())  # an agent's own server finishes its answer
        found = (process_identity.identity_of(member) for member in members if member > 1)
        return {member for member in found if member is not None}


class _End:
    """The end of one agent's tree."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._members: set[str] = set()
        self._signalled: set[str] = set()
        self._killed: set[str] = set()

    def may_have_processes(self) -> bool:
        """Return False if it is certain, without a look at all processes, that there are none."""
        return bool(_tag_of(self._identity)) or process_identity.alive(self._identity)

    def signal_tree(self, sign: signal.Signals, seen: _Processes) -> bool:
        """Signal every process of the tree; returns whether there was one."""
        self._members = seen.tree(self._identity)
        for member in self._members:
            if _send(member, sign):
                self._signalled.add(member)
                if sign is signal.SIGKILL:
                    self._killed.add(member)
                else:
                    _send(member, signal.SIGCONT)  # a stopped process handles nothing
        return bool(self._members)

    def left(self) -> bool:
        return any(map(process_identity.alive, self._members))

    def told(self) -> Stopped:
        return Stopped(
            identity=self._identity,
            signalled=len(self._signalled),
            killed=len(self._killed),
            left=tuple(sorted(map(_pid, filter(process_identity.alive, self._signalled)))),
        )


def _pid(identity: str) -> int:
    pid = process_identity.pid_of(identity)
    assert pid is not None
    return pid


def _send(identity: str, sign: signal.Signals) -> bool:
    """Signal exactly this process; returns whether it was there to be signalled."""
    pid = _pid(identity)
    with suppress(ProcessLookupError, PermissionError):
        if not hasattr(os, "pidfd_open"):  # macOS: the pid may be reused between the two calls
            if not process_identity.alive(identity):
                return False
            os.kill(pid, sign)
            return True
        fd = os.pidfd_open(pid)
        try:  # the descriptor holds one process; compare its start time before the signal
            if not process_identity.alive(identity):
                return False
            signal.pidfd_send_signal(fd, sign)
        finally:
            os.close(fd)
        return True
    return False


def _is_starter(pid: int) -> bool:
    with suppress(psutil.Error, OSError):
        return starter.__file__ in psutil.Process(pid).cmdline()
    return False


def _environments(
    group: int | None = None, *, settling: float = _SETTLING
) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Yield the processes that show an environment, with it: all, or those of a group.

    In the middle of an execve a process has memory but shows no environment: it is read again for
    ``settling`` seconds.
    """
    unseen = [p for p in psutil.process_iter() if group is None or _group(p.pid) == group]
    deadline = time.monotonic() + settling
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
    pid, tag = process_identity.pid_of(identity), _tag_of(identity)
    if pid is None or not tag or psutil.pid_exists(pid):
        return []
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [p.pid for p, of in _environments(pid) if of.get(TAG) == tag]


def _tag_of(identity: str) -> str:
    return identity.rpartition(":")[2] if identity.count(":") == 3 else ""


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
