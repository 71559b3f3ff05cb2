"""The orchestrator's commands on the dashboard's store; needs the extra ``mcp``."""

from __future__ import annotations

from orchestrator.agents.launchers.selection import installed_launchers
from orchestrator.service import Orchestrator
from orchestrator.settings import load_orchestrator_settings
from registry_api import Plugins, RegistryStore, Settings

__all__ = ["orchestrator_on"]


def orchestrator_on(store: RegistryStore, settings: Settings, *, plugins: Plugins) -> Orchestrator:
    """Return the orchestrator of a workspace; it finds the agents' processes by their records."""
    options = load_orchestrator_settings(settings)
    launchers = installed_launchers(plugins, options.launcher)
    return Orchestrator(store, launchers, settings=settings, options=options)
