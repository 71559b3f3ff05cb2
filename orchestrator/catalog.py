"""How a tool is offered: its title, what it does to the registry, and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from mcp.types import ToolAnnotations
from pydantic import BaseModel

from orchestrator.identity import Role

__all__ = ["AGENTS", "EVERYONE", "Effect", "Offer", "offer_of", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
_OFFER = "_offer"

ONLY_CONDUCTOR = frozenset({Role.CONDUCTOR})
AGENTS = frozenset({Role.WORKER, Role.REVIEWER, Role.UNPROVEN})
EVERYONE = frozenset(Role)


class Effect(Enum):
    """What a tool does, as MCP's annotations say it."""

    READS = ToolAnnotations(read_only_hint=True)
    ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False)
    # Called again with the same arguments it changes nothing further.
    SETS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
    ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """``acts_as``: the parameter that says as which agent the caller speaks; ``answer``: what the
    tool returns.
    """

    title: str
    effect: Effect
    roles: frozenset[Role]
    answer: type[BaseModel]
    acts_as: str | None = None


def tool(
    title: str,
    effect: Effect,
    roles: frozenset[Role] = ONLY_CONDUCTOR,
    *,
    acts_as: str | None = None,
) -> Callable[[F], F]:
    """Offer a method as a tool of its name; its docstring is its description."""

    def offered(method: F) -> F:
        answer = method.__annotations__["return"]
        if isinstance(answer, str):
            answer = method.__globals__[answer]
        offer = Offer(title=title, effect=effect, roles=roles, answer=answer, acts_as=acts_as)
        setattr(method, _OFFER, offer)
        return method

    return offered


def offer_of(method: Callable[..., Any]) -> Offer | None:
    """Return how a method is offered, None for one that is no tool."""
    found = getattr(method, _OFFER, None)
    return found if isinstance(found, Offer) else None
