"""The plugin manager: entry points loaded one by one, so that a broken one breaks nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

import pluggy

from registry_api.errors import SettingsError, UnknownBackend
from registry_api.hooks import PROJECT, Hooks, StoreFactory

__all__ = ["LoadedPlugin", "Plugins", "load_plugins"]

log = logging.getLogger("registry_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlugin:
    """One entry point: the distribution it came with, and why it is broken, if it is."""

    name: str
    distribution: str
    version: str
    schemes: tuple[str, ...] = ()
    broken: str = ""


@dataclass(slots=True)
class Plugins:
    """The loaded plugins and the stores they registered, by scheme."""

    manager: pluggy.PluginManager
    stores: dict[str, StoreFactory] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    loaded: tuple[LoadedPlugin, ...] = ()

    def factory(self, scheme: str) -> StoreFactory:
        """Return the factory of a scheme; raises UnknownBackend, naming what there is."""
        try:
            return self.stores[scheme]
        except KeyError:
            broken = [f"{p.name} ({p.broken})" for p in self.loaded if p.broken]
            note = f"; broken plugins: {', '.join(broken)}" if broken else ""
            raise UnknownBackend(
                f"no store is called {scheme!r}{note}",
                next_step=f"Known stores: {', '.join(sorted(self.stores))}",
            ) from None


def load_plugins() -> Plugins:
    """Load every plugin of the entry-point group ``registry_backend``.

    A plugin that fails to import or to register is reported in ``loaded`` with the reason, and the
    others work on. Two plugins with one scheme raise SettingsError naming both distributions.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    plugins = Plugins(manager)
    entries = sorted(entry_points(group=PROJECT), key=lambda e: e.name)
    plugins.loaded = tuple(_load(plugins, entry) for entry in entries)
    return plugins


def _load(plugins: Plugins, entry: EntryPoint) -> LoadedPlugin:
    dist = entry.dist
    owner = dist.name if dist else "?"
    version = dist.version if dist else "?"
    taken: dict[str, StoreFactory] = {}

    def register(scheme: str, factory: StoreFactory) -> None:
        other = plugins.owners.get(scheme)
        if other is not None or scheme in taken:
            raise SettingsError(
                f"two plugins register the store {scheme!r}: {other or owner} and {owner}",
                next_step=f"Uninstall {other or owner} or {owner}",
            )
        taken[scheme] = factory

    plugin = None
    try:
        loaded = entry.load()
        plugins.manager.register(loaded, name=f"{owner}:{entry.name}")
        plugin = loaded
        plugins.manager.check_pending()
        hook = plugins.manager.subset_hook_caller(
            "registry_register_stores",
            [p for p in plugins.manager.get_plugins() if p is not plugin],
        )
        hook(register=register)
    except SettingsError:
        raise
    # Whatever a stranger's import raises, the host must come up and name it.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        if plugin is not None and plugins.manager.is_registered(plugin):
            plugins.manager.unregister(plugin)
        reason = f"{type(error).__name__}: {error}"
        log.warning("plugin %s of %s is broken: %s", entry.name, owner, reason)
        return LoadedPlugin(name=entry.name, distribution=owner, version=version, broken=reason)
    plugins.stores.update(taken)
    plugins.owners.update(dict.fromkeys(taken, owner))
    return LoadedPlugin(
        name=entry.name, distribution=owner, version=version, schemes=tuple(sorted(taken))
    )
