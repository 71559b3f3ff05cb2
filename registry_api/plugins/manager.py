"""The plugin manager: entry points loaded one by one, so that a broken one breaks nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from email.parser import HeaderParser
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from registry_api.errors import (
    ContractTooNew,
    RegistryError,
    SettingsError,
    Unavailable,
    UnknownBackend,
)
from registry_api.plugins.hooks import PROJECT, Hooks, StoreFactory
from registry_api.store import CONTRACT_VERSION, RegistryStore
from registry_api.typed_errors import hide, typed
from registry_api.workspace.store_location import credentials_in
from registry_api.wrappers.border import Border, answered

if TYPE_CHECKING:
    from registry_api.plugins.context import OpenContext

__all__ = ["LoadedPlugin", "Plugins", "load_plugins"]

_OURS = "registry-backend"

log = logging.getLogger("registry_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlugin:
    """One entry point: the distribution it came with, and why it is broken, if it is."""

    name: str
    distribution: str
    version: str
    schemes: tuple[str, ...] = ()
    broken: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it under the keys of ``plugins --json``."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "stores": list(self.schemes),
            "broken": self.broken or None,
        }


@dataclass(slots=True)
class Plugins:
    """The loaded plugins and the stores they registered, by scheme."""

    manager: pluggy.PluginManager
    stores: dict[str, StoreFactory] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    with_server: set[str] = field(default_factory=set)  # the schemes whose stores have a server
    loaded: tuple[LoadedPlugin, ...] = ()

    def is_ours(self, scheme: str) -> bool:
        """Return whether a store comes with this distribution."""
        return self.owners.get(scheme) in {None, _OURS}

    def may_be_away(self, scheme: str) -> bool:
        """Return whether a store may have a server that cannot be reached."""
        return not self.is_ours(scheme) or scheme in self.with_server

    def factory(self, scheme: str) -> StoreFactory:
        """Return the factory of a scheme; raises UnknownBackend, naming the known ones.

        The factory raises ContractTooNew for a store whose contract has a newer major version:
        its answers may mean something else. A newer minor version only adds capabilities.
        """
        try:
            return partial(_opened, scheme, self.stores[scheme], not self.is_ours(scheme))
        except KeyError:
            broken = [f"{p.name} ({p.broken})" for p in self.loaded if p.broken]
            note = f"; broken plugins: {', '.join(broken)}" if broken else ""
            raise UnknownBackend(
                f"no store is called {scheme!r}{note}",
                next_step=f"Known stores: {', '.join(sorted(self.stores))}",
            ) from None


def _opened(
    scheme: str, factory: StoreFactory, foreign: bool, context: OpenContext
) -> RegistryStore:
    secrets = credentials_in(context.location)
    try:
        store = (
            answered(partial(factory, context), scheme, given_up=[])
            if foreign
            else factory(context)
        )
    except RegistryError as error:
        hide(error, secrets)
        raise
    except Exception as error:
        if typed(error, store=scheme) is None:
            raise
        found = Unavailable(
            f"{scheme} cannot be opened: {error}", next_step="Check the location that it names"
        )
        hide(found, secrets)
        raise found from (None if secrets else error)
    if foreign:  # also inside a move, where only RegistryError is handled
        store = Border(store, secrets=secrets, foreign=True)
    info = store.info
    if _major(info.contract_version) > _major(CONTRACT_VERSION):
        store.close()
        raise ContractTooNew(
            f"the store {info.name} implements contract {info.contract_version}, this host "
            f"supports {CONTRACT_VERSION}",
            next_step="Upgrade registry-backend, or use an older version of the store",
        )
    return store


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def load_plugins() -> Plugins:
    """Load every plugin of the entry-point group ``registry_backend``.

    A plugin that fails to import or to register is reported in ``loaded`` with the reason, and the
    others still work. Two plugins with one scheme raise SettingsError naming both distributions.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    plugins = Plugins(manager)
    entries = sorted(entry_points(group=PROJECT), key=lambda e: e.name)
    plugins.loaded = tuple(_load(plugins, entry) for entry in entries)
    return plugins


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution that has an entry point."""
    if entry.dist is None:
        return "?", "?"
    text = entry.dist.read_text("METADATA")
    return (entry.dist.name, entry.dist.version) if text is None else _name_and_version(text)


@lru_cache  # ``dist.name`` parses the whole file each time, for each entry point
def _name_and_version(metadata: str) -> tuple[str, str]:
    found = HeaderParser().parsestr(metadata)
    return str(found["Name"]), str(found["Version"])


def _load(plugins: Plugins, entry: EntryPoint) -> LoadedPlugin:
    owner, version = _distribution(entry)
    taken: dict[str, StoreFactory] = {}

    def register(scheme: str, factory: StoreFactory, *, with_server: bool = False) -> None:
        other = plugins.owners.get(scheme)
        if other is not None or scheme in taken:
            raise SettingsError(
                f"two plugins register the store {scheme!r}: {other or owner} and {owner}",
                next_step=f"Uninstall {other or owner} or {owner}",
            )
        taken[scheme] = factory
        if with_server:
            plugins.with_server.add(scheme)

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
    # Whatever a plugin's import raises, the host must start and report it.
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever it raises is reported)
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
