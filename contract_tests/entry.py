"""The plugin: the command ``contract``, and the mutants as stores that any process can open."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from registry_api.errors import UnknownBackend
from registry_api.plugins import RegisterCommand, RegisterStore, hookimpl
from registry_api.store import RegistryStore

if TYPE_CHECKING:
    from registry_api.plugins import OpenContext

__all__ = ["MUTANT_OF", "registry_register_commands", "registry_register_stores"]

MUTANT_OF = "CONTRACT_MUTANT_OF"  # the variable with the URL of the store that mutants are made of


@hookimpl
def registry_register_stores(register: RegisterStore) -> None:
    """Offer ``mutant://NAME``: a store with one fault, for testing the contract tests.

    The store is sqlite, or the one whose URL the variable CONTRACT_MUTANT_OF holds.
    """
    register("mutant", _open)


@hookimpl
def registry_register_commands(register: RegisterCommand) -> None:
    """Offer ``registry-backend contract``."""
    from contract_tests.runner.command import contract  # noqa: PLC0415  (not needed to open a store)

    register("contract", contract)


def _open(context: OpenContext) -> RegistryStore:
    from contract_tests.mutation import MUTANTS  # noqa: PLC0415  (only needed for a mutant)

    scheme, _, location = os.environ.get(MUTANT_OF, "sqlite://mutant.sqlite3").partition("://")
    correct = context.plugins.factory(scheme)
    inside = replace(context, location=location)
    if context.location == "correct":  # the control: the same store without a fault passes
        return correct(inside)
    wrong = MUTANTS.get(context.location)
    if wrong is None:
        raise UnknownBackend(
            f"there is no mutant {context.location!r}",
            next_step=f"Known mutants: {', '.join(sorted(MUTANTS))}",
        )
    return wrong(correct(replace(inside, **getattr(wrong, "context", {}))))
