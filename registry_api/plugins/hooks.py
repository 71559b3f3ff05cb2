"""The pluggy hooks by which plugins add stores and commands and observe operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import pluggy

from registry_api.plugins.health_checks import RegisterCheck
from registry_api.plugins.importers import RegisterImporter
from registry_api.plugins.launchers import RegisterLauncher
from registry_api.records.changeset import Changeset, Commit
from registry_api.store import RegistryStore

if TYPE_CHECKING:
    from registry_api.migration.protocol import Migration
    from registry_api.plugins.context import OpenContext

__all__ = ["Hooks", "RegisterCommand", "RegisterStore", "StoreFactory", "hookimpl", "hookspec"]

PROJECT = "registry_backend"

hookspec = pluggy.HookspecMarker(PROJECT)

hookimpl = pluggy.HookimplMarker(PROJECT)

StoreFactory = Callable[["OpenContext"], RegistryStore]


class RegisterStore(Protocol):
    """The callback that ``registry_register_stores`` receives."""

    def __call__(self, scheme: str, factory: StoreFactory, *, with_server: bool = False) -> None:
        """Register ``factory`` for ``REGISTRY_BACKEND=scheme`` and ``scheme://…``.

        ``with_server``: the store has a server, which may be away.
        """


class RegisterCommand(Protocol):
    """The callback that ``registry_register_commands`` receives."""

    def __call__(self, name: str, command: Callable[..., int]) -> None:
        """Register ``registry-backend name``; cyclopts reads the options from its parameters."""


class Hooks:
    """The hook specifications."""

    @hookspec
    def registry_register_stores(self, register: RegisterStore) -> None:
        """Call ``register(scheme, factory)`` once per store; a scheme taken twice is an error."""

    @hookspec(firstresult=True)
    def registry_open_migration(self, context: OpenContext) -> Migration | None:
        """Return the Migration that operates the workspace's move, or None."""

    @hookspec
    def registry_wrap_store(
        self, store: RegistryStore, context: OpenContext
    ) -> RegistryStore | None:
        """Return a store that wraps ``store``, or None; wrappers are applied in plugin order."""

    @hookspec(firstresult=True)
    def registry_keep_logs(
        self, store: RegistryStore, context: OpenContext
    ) -> RegistryStore | None:
        """Return a wrapper that keeps the logs that ``store`` does not keep itself, or None."""

    @hookspec
    def registry_register_health_checks(self, register: RegisterCheck) -> None:
        """Call ``register(name, check)`` for each check that ``registry-backend doctor`` runs."""

    @hookspec
    def registry_register_commands(self, register: RegisterCommand) -> None:
        """Call ``register(name, function)`` for a further command of ``registry-backend``.

        The function returns the exit code; a name that is taken is refused.
        """

    @hookspec
    def registry_register_launchers(self, register: RegisterLauncher) -> None:
        """Call ``register(name, factory)`` once per launcher of agents; a taken name is refused."""

    @hookspec
    def registry_register_importers(self, register: RegisterImporter) -> None:
        """Call ``register(name, importer)`` for each kind of file that ``registry-backend import``
        reads; a taken name is refused.
        """

    @hookspec
    def registry_committed(self, changeset: Changeset, commit: Commit) -> None:
        """Called after a commit, outside every lock; its exceptions are logged and dropped."""

    @hookspec
    def registry_observe(self, op: str, seconds: float, outcome: str) -> None:
        """Called after each store operation; ``outcome`` is ``ok`` or an error code.

        Also called, as ``compare.<op>``, after a sampled answer was compared with the other store
        of a move: then ``outcome`` is ``matched``, ``mismatched`` or ``in_flight``.
        """
