"""Open the orchestrator of a workspace: its store, its settings, its launcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from orchestrator.agents.client_config import Endpoint
from orchestrator.agents.launchers.selection import installed_launchers
from orchestrator.observer import Observer
from orchestrator.service import Orchestrator
from orchestrator.settings import load_orchestrator_settings
from registry_api import RegistryStore, Settings, load_plugins, open_store
from registry_api.plugins import Plugins

__all__ = ["open_orchestrator"]


@contextmanager
def open_orchestrator(
    settings: Settings,
    *,
    plugins: Plugins | None = None,
    endpoint: Endpoint | None = None,
    observer_of: Callable[[RegistryStore], Observer] = lambda _: Observer(),
) -> Iterator[Orchestrator]:
    """Open the orchestrator of a workspace; its store is closed at the end.

    Active agents continue after that. ``endpoint``: the HTTP server that agents connect to; without
    it each agent starts a server of its own. ``observer_of`` makes the listener of its work.
    """
    plugins = plugins or load_plugins()
    options = load_orchestrator_settings(settings)
    launchers = installed_launchers(plugins, options.launcher)
    with closing(open_store(settings, plugins=plugins)) as store:
        yield Orchestrator(
            store,
            launchers,
            settings=settings,
            options=options,
            endpoint=endpoint,
            observer=observer_of(store),
        )
