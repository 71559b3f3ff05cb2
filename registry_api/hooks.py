"""The hooks by which plugins bring stores and watch what happens (pluggy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import pluggy

from registry_api.changeset import Changeset, Commit
from registry_api.health import RegisterCheck
from registry_api.launching import RegisterLauncher
from registry_api.store import RegistryStore

if TYPE_CHECKING:
    from registry_api.migration import Migration
    from registry_api.opening import OpenContext

__all__ = ["Hooks", "RegisterCommand", "RegisterStore", "StoreFactory", "hookimpl", "hookspec"]

PROJECT = "registry_backend"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

StoreFactory = Callable[["OpenContext"], RegistryStore]


class RegisterStore(Protocol):
    """What ``registry_register_stores`` is given to call."""

    def __call__(self, scheme: str, factory: StoreFactory) -> None:
        """Offer ``factory`` for ``REGISTRY_BACKEND=scheme`` and ``scheme://…``."""


class RegisterCommand(Protocol):
    """What ``registry_register_commands`` is given to call."""

    def __call__(self, name: str, command: Callable[..., int]) -> None:
        """Offer ``registry-backend name``; its parameters are the command's (cyclopts)."""


class Hooks:
    """The hook specifications."""

    @hookspec
    def registry_register_stores(self, register: RegisterStore) -> None:
        """Call ``register(scheme, factory)`` once per store; a scheme taken twice is an error."""

    @hookspec(firstresult=True)
    def registry_open_migration(self, context: OpenContext) -> Migration | None:
        """Open the operator's side of the workspace's move."""

    @hookspec
    def registry_wrap_store(
        self, store: RegistryStore, context: OpenContext
    ) -> RegistryStore | None:
        """Return a store around ``store``, or None; wrappers are applied in plugin order."""

    @hookspec(firstresult=True)
    def registry_keep_logs(
        self, store: RegistryStore, context: OpenContext
    ) -> RegistryStore | None:
        """Return the store with the logs round it that it does not keep itself, or None."""

    @hookspec
    def registry_register_health_checks(self, register: RegisterCheck) -> None:
        """Call ``register(name, check)`` for what ``registry-backend doctor`` should look at."""

    @hookspec
    def registry_register_commands(self, register: RegisterCommand) -> None:
        """Call ``register(name, function)`` for a further command of ``registry-backend``.

        The function returns the exit code; a name that is taken is refused.
        """

    @hookspec
    def registry_register_launchers(self, register: RegisterLauncher) -> None:
        """Call ``register(name, factory)`` once per launcher of agents; a taken name is refused."""

    @hookspec
    def registry_committed(self, changeset: Changeset, commit: Commit) -> None:
        """Called after a commit, outside every lock; what it raises is logged and dropped."""

    @hookspec
    def registry_observe(self, op: str, seconds: float, outcome: str) -> None:
        """Called after each store operation; ``outcome`` is ``ok`` or an error code.

        And, as ``compare.<op>``, after a sampled answer was compared with the other side of a move:
        then it is ``matched``, ``mismatched`` or ``in_flight``.
        """
