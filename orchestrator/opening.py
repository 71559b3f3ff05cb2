"""Open the orchestrator of a workspace: its store, its settings, its launcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from orchestrator.agents.deployment import Endpoint
from orchestrator.service import Orchestrator
from orchestrator.settings import load_orchestrator_settings
from registry_api import Settings, load_plugins, open_store
from registry_api.errors import SettingsError
from registry_api.plugins import Launcher, LauncherFactory, Plugins

__all__ = ["find_launcher", "open_orchestrator"]


@contextmanager
def open_orchestrator(
    settings: Settings, *, plugins: Plugins | None = None, endpoint: Endpoint | None = None
) -> Iterator[Orchestrator]:
    """Open the orchestrator of a workspace; its store is closed at the end.

    Active agents continue after that. ``endpoint``: the HTTP server that agents connect to; without
    it each agent starts a server of its own.
    """
    plugins = plugins or load_plugins()
    options = load_orchestrator_settings(settings)
    launcher = find_launcher(plugins, options.launcher)
    with closing(open_store(settings, plugins=plugins)) as store:
        yield Orchestrator(store, launcher, settings=settings, options=options, endpoint=endpoint)


def find_launcher(plugins: Plugins, name: str) -> Launcher:
    """Return a new launcher of that name; raises SettingsError if no plugin provides one."""
    found: dict[str, LauncherFactory] = {}

    def register(offered: str, factory: LauncherFactory) -> None:
        if offered in found:
            raise SettingsError(
                f"two plugins provide a launcher {offered!r}", next_step="Uninstall one of them"
            )
        found[offered] = factory

    plugins.manager.hook.registry_register_launchers(register=register)
    if name not in found:
        raise SettingsError(
            f"no launcher is called {name!r}", next_step=f"Known: {', '.join(sorted(found))}"
        )
    return found[name]()
