"""Hooks and entry points that bring stores, launchers, checks and commands."""

from registry_api.plugins.context import OpenContext
from registry_api.plugins.health_checks import HealthCheck, Issue, RegisterCheck
from registry_api.plugins.hooks import (
    Hooks,
    RegisterCommand,
    RegisterStore,
    StoreFactory,
    hookimpl,
    hookspec,
)
from registry_api.plugins.importers import ImportedTask, Importer, RegisterImporter
from registry_api.plugins.launchers import (
    Launch,
    Launcher,
    LauncherFactory,
    Prepared,
    RegisterLauncher,
    Running,
    Stopped,
)
from registry_api.plugins.manager import LoadedPlugin, Plugins, load_plugins

__all__ = [
    "HealthCheck",
    "Hooks",
    "ImportedTask",
    "Importer",
    "Issue",
    "Launch",
    "Launcher",
    "LauncherFactory",
    "LoadedPlugin",
    "OpenContext",
    "Plugins",
    "Prepared",
    "RegisterCheck",
    "RegisterCommand",
    "RegisterImporter",
    "RegisterLauncher",
    "RegisterStore",
    "Running",
    "Stopped",
    "StoreFactory",
    "hookimpl",
    "hookspec",
    "load_plugins",
]
