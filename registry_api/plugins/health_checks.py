"""Health checks of a workspace: its problems and how to fix them; ``doctor`` runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from registry_api.plugins.context import OpenContext

__all__ = ["HealthCheck", "Issue", "RegisterCheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One problem in a workspace.

    ``next_step`` is the command or action that fixes it; empty: for information, nothing to do.
    """

    what: str
    next_step: str = ""


HealthCheck = Callable[["OpenContext"], Iterable[Issue]]


class RegisterCheck(Protocol):
    """The callback that ``registry_register_health_checks`` receives."""

    def __call__(self, name: str, check: HealthCheck) -> None:
        """Register a check; it gets a read-only context and must write nothing."""
