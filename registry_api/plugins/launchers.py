"""The launcher protocol: how an orchestrator's agents are started, found and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = [
    "Launch",
    "Launcher",
    "LauncherFactory",
    "Prepared",
    "RegisterLauncher",
    "Running",
    "Stopped",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One agent's program: ``argv`` is executed as it is, never through a shell.

    ``files`` are open descriptors: of the prompt, which becomes its standard input byte for byte;
    of the log and the error log, for its output; of its working directory. The creator of the
    launch closes them. ``prompt``, ``log``, ``errors`` and ``cwd`` are their paths, for a launcher
    that cannot pass descriptors on. ``environment`` is the program's whole environment; it holds
    REGISTRY_WORKSPACE, REGISTRY_TASK_ID and REGISTRY_AGENT_ID, by which ``running`` finds the
    agent, and REGISTRY_AGENT_SECRET, by which the agent proves its identity: never put that on a
    command line or into a log.

    ``exit_file`` is a descriptor too, None if no exit code is needed: a launcher whose agents
    outlive it holds an exclusive ``flock`` on it while the agent runs, and writes the exit code (as
    in ``Popen.returncode``) before it releases the lock.
    """

    task_id: str
    agent_id: str
    argv: tuple[str, ...]
    files: tuple[int, int, int, int]
    cwd: Path
    prompt: Path
    log: Path
    errors: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    exit_file: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running agent process; ``identity`` still names only it if its pid is reused.

    ``own``: this process belongs to it, as the server that an agent's client starts.
    """

    task_id: str
    agent_id: str
    identity: str
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What ``stop`` found: processes that were told to end, killed, and the pids that are left."""

    identity: str
    signalled: int = 0
    killed: int = 0
    left: tuple[int, ...] = ()


class Prepared(Protocol):
    """A waiting process, which runs the agent's program only after ``go``.

    It may also have ``session``, the name of the terminal that it runs in, and ``attach``, the
    command with its arguments by which a person attaches to that terminal; then the launcher also
    has ``attach_command(workspace, agent_id)``, which returns that command.
    """

    @property
    def identity(self) -> str:
        """The process identity, which is kept in the agent's record."""

    @property
    def pid(self) -> int | None:
        """The process id, None if it has none on this host."""

    def go(self) -> None:
        """Run the program. Raises OSError if the process died meanwhile."""

    def cancel(self) -> None:
        """End the process without running the program."""


class Launcher(Protocol):
    """A way to start, find and stop agents. A waiting process ends itself if its starter dies."""

    def prepare(self, launch: Launch, ended: Callable[[int | None], None]) -> Prepared:
        """Start a waiting process; ``ended`` is called once with its exit code, on any thread.

        The code is None if it is not known. Raises OSError if the program or a file is not
        available.
        """

    def alive(self, identity: str) -> bool:
        """Return whether exactly that process, or any process of its group, is alive."""

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """Return the agent processes of this workspace, whoever started them."""

    def stop(self, stopped: Iterable[str], *, grace: float) -> Iterable[Stopped] | None:
        """Ask these processes and all that they started to end, and kill them after ``grace`` s.

        An identity that names no process here is no error. Returns what was found, None if that is
        not known.
        """


LauncherFactory = Callable[[], Launcher]


class RegisterLauncher(Protocol):
    """The callback that ``registry_register_launchers`` receives."""

    def __call__(self, name: str, factory: LauncherFactory) -> None:
        """Register ``factory`` for ``REGISTRY_ORCHESTRATOR_LAUNCHER=name``."""
