"""Mutants: stores with one fault each; the contract tests must detect every one.

``mutant://NAME`` is the sqlite store with one fault. The docstring of its class says in one
sentence what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from registry_api import (
    Changeset,
    Put,
    RegistryStore,
    new_changeset,
)
from registry_api.wrappers import StoreWrapper

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Callable[[RegistryStore], RegistryStore]] = {}


def mutant(kind: type[StoreWrapper]) -> type[StoreWrapper]:
    """Register a mutant under its class name in kebab case: LostUpdate is ``lost-update``."""
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__)
    MUTANTS[name.strip("-")] = kind
    return kind


def _again(changeset: Changeset, **fields: Any) -> Changeset:
    """Return a copy of the changeset with a new id and the given fields."""
    ops = fields.pop("ops", changeset.ops)
    expected = fields.pop("expected", changeset.expected)
    task_id = fields.pop("task_id", changeset.task_id)
    return new_changeset(
        task_id, ops, expected=expected, actor=changeset.actor, at=changeset.at, **fields
    )


def _records(changeset: Changeset, change: Callable[[Any], Any]) -> Changeset:
    """Return the changeset with ``change`` applied to each record."""
    ops = tuple(
        replace(op, record=change(op.record)) if isinstance(op, Put) else op for op in changeset.ops
    )
    return replace(changeset, ops=ops)
