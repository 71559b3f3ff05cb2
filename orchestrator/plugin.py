"""The orchestrator's plugin, which registers its launchers."""

from __future__ import annotations

from registry_api import hookimpl
from registry_api.plugins import Launcher, RegisterLauncher


@hookimpl
def registry_register_launchers(register: RegisterLauncher) -> None:
    """Register the launchers ``process`` and ``tmux``."""
    register("process", _process)
    register("tmux", _tmux)


def _process() -> Launcher:
    from orchestrator.agents.launchers.process import ProcessLauncher  # noqa: PLC0415  (imported when needed: slow)

    return ProcessLauncher()


def _tmux() -> Launcher:
    from orchestrator.agents.launchers.tmux import TmuxLauncher  # noqa: PLC0415  (imported when needed: slow)

    return TmuxLauncher()
