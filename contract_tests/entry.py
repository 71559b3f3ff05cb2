"""The plugin: the command ``contract``, and the mutants as stores that any process can open."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from registry_api.errors import UnknownBackend
from registry_api.plugins import RegisterCommand, RegisterStore, hookimpl
from registry_api.store import RegistryStore

if TYPE_CHECKING:
    from registry_api.plugins import OpenContext

__all__ = ["registry_register_commands", "registry_register_stores"]


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer ``mutant://NAME``: sqlite with one fault, for testing the contract tests."""
    register("mutant", _open)


@hookimpl
def registry_register_commands(register: RegisterCommand) -> None:
    """Offer ``registry-backend contract``."""
    from contract_tests.runner.command import contract  # noqa: PLC0415  (not needed to open a store)

    register("contract", contract)


def _open(context: OpenContext) -> RegistryStore:
    from contract_tests.mutation import MUTANTS  # noqa: PLC0415  (only needed for a mutant)

    correct = context.plugins.factory("sqlite")
    inside = replace(context, location="mutant.sqlite3")
    if context.location == "correct":  # the control: the same store without a fault passes
        return correct(inside)
    wrong = MUTANTS.get(context.location)
    if wrong is None:
        raise UnknownBackend(
            f"there is no mutant {context.location!r}",
            next_step=f"Known mutants: {', '.join(sorted(MUTANTS))}",
        )
    return wrong(correct(replace(inside, **getattr(wrong, "context", {}))))
