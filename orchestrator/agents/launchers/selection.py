"""The launchers that are installed: the one for new agents, and the one that an agent names."""

from __future__ import annotations

from collections.abc import Mapping

from registry_api.errors import SettingsError
from registry_api.plugins import Launcher, LauncherFactory, Plugins

__all__ = ["Launchers", "installed_launchers"]


class Launchers:
    """Launchers by name, each made when it is first used.

    An agent is judged and stopped by the launcher that started it, whatever the setting is now.
    """

    def __init__(self, factories: Mapping[str, LauncherFactory], *, name: str) -> None:
        self._factories = factories
        self._made: dict[str, Launcher] = {}
        self.name = name
        current = self.get(name)
        if current is None:
            raise SettingsError(
                f"no launcher is called {name!r}",
                next_step=f"Known: {', '.join(sorted(factories))}",
            )
        self.current = current  # the launcher of new agents

    def get(self, name: str) -> Launcher | None:
        """Return a launcher, None if no installed plugin provides it."""
        if name not in self._made and name in self._factories:
            self._made[name] = self._factories[name]()
        return self._made.get(name)

    def all(self) -> dict[str, Launcher]:
        """Return every installed launcher, by name."""
        return {name: made for name in self._factories if (made := self.get(name)) is not None}


def installed_launchers(plugins: Plugins, name: str) -> Launchers:
    """Return the launchers of the plugins; raises SettingsError if none is called ``name``."""
    found: dict[str, LauncherFactory] = {}

    def register(offered: str, factory: LauncherFactory) -> None:
        if offered in found:
            raise SettingsError(
                f"two plugins provide a launcher {offered!r}", next_step="Uninstall one of them"
            )
        found[offered] = factory

    plugins.manager.hook.registry_register_launchers(register=register)
    return Launchers(found, name=name)
