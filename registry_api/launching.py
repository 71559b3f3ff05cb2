"""How an orchestrator's agents come to run: what a launcher is given and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Launch", "Launcher", "LauncherFactory", "Prepared", "RegisterLauncher", "Running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One agent's program: ``argv`` is executed as it is, never through a shell.

    ``files`` are open descriptors: of the prompt, which becomes its standard input byte for byte;
    of the log and the log of errors, for its output; of its working directory. Who made the launch
    closes them. The paths are theirs, for a launcher that cannot hand descriptors on.
    ``environment`` is all that it gets; it holds REGISTRY_WORKSPACE, REGISTRY_TASK_ID and
    REGISTRY_AGENT_ID, by which ``running`` finds it, and REGISTRY_AGENT_SECRET, by which the agent
    proves who it is: put it on no command line and into no log.

    ``exit_file`` is a descriptor too, None if no exit code is needed: a launcher whose agents
    outlive it keeps an exclusive ``flock`` on it as long as the agent runs, and writes the exit
    code, as ``Popen.returncode`` has it, before it lets go.
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
    """An agent's process as found; ``identity`` names it, also when its pid is used anew."""

    task_id: str
    agent_id: str
    identity: str


class Prepared(Protocol):
    """A process that is there, and runs the agent's program only when told to."""

    @property
    def identity(self) -> str:
        """What names the process in the agent's record."""

    @property
    def pid(self) -> int | None:
        """The process's id, where it has one here."""

    def go(self) -> None:
        """Let it run. Raises OSError where it died meanwhile."""

    def cancel(self) -> None:
        """End it; its program never ran."""


class Launcher(Protocol):
    """Starts, finds and stops agents. A waiting process whose starter dies ends by itself."""

    def prepare(self, launch: Launch, ended: Callable[[int], None]) -> Prepared:
        """Make a waiting process; ``ended`` is called once with its exit code, on any thread.

        Raises OSError where the program or a file cannot be had.
        """

    def alive(self, identity: str) -> bool:
        """Return whether that very process, or anything it started in its group, is alive."""

    def running(self, workspace: Path) -> tuple[Running, ...]:
        """Return the processes of agents of this workspace, whoever started them."""

    def stop(self, stopped: Iterable[str], *, grace: float) -> None:
        """Ask these processes and their groups to end, and after ``grace`` seconds make them."""


LauncherFactory = Callable[[], Launcher]


class RegisterLauncher(Protocol):
    """What ``registry_register_launchers`` is given to call."""

    def __call__(self, name: str, factory: LauncherFactory) -> None:
        """Offer ``factory`` for ``REGISTRY_ORCHESTRATOR_LAUNCHER=name``."""
