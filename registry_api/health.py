"""What is not as it should be in a workspace, and what to do about it: asked by ``doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from registry_api.opening import OpenContext

__all__ = ["HealthCheck", "Issue", "RegisterCheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One thing that is not as it should be.

    ``next_step`` is the command or the act that mends it; empty: good to know, nothing to do.
    """

    what: str
    next_step: str = ""


HealthCheck = Callable[["OpenContext"], Iterable[Issue]]


class RegisterCheck(Protocol):
    """What ``registry_register_health_checks`` is given to call."""

    def __call__(self, name: str, check: HealthCheck) -> None:
        """Offer a check; it gets a context for reading and must write nothing."""
