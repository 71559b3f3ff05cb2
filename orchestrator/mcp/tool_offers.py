"""How a tool is offered: its title, what it does to the registry, and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from mcp.types import ToolAnnotations
from pydantic import BaseModel

from orchestrator.agents.callers import Role

__all__ = ["ALL_BUT_REVIEWERS", "EVERYONE", "ONLY_CONDUCTOR", "Effect", "Offer", "offer_of", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
_OFFER = "_offer"

ONLY_CONDUCTOR = frozenset({Role.CONDUCTOR})
EVERYONE = frozenset(Role)
ALL_BUT_REVIEWERS = EVERYONE - {Role.REVIEWER}


class Effect(Enum):
    """What a tool does to the registry, as MCP annotations."""

    READS = ToolAnnotations(read_only_hint=True)
    ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False)
    # Called again with the same arguments it changes nothing further.
    SETS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
    ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How a tool is shown, and who may call it.

    ``acts_as``: the parameter that names the agent for which the caller acts; ``conductor_may``: a
    conductor may name any agent there. ``answer``: what the tool returns.
    """

    title: str
    effect: Effect
    roles: frozenset[Role]
    answer: type[BaseModel]
    acts_as: str | None = None
    conductor_may: bool = False


def tool(
    title: str,
    effect: Effect,
    roles: frozenset[Role] = ONLY_CONDUCTOR,
    *,
    acts_as: str | None = None,
    conductor_may: bool = False,
) -> Callable[[F], F]:
    """Offer a method as a tool of the same name, with its docstring as description."""

    def offered(method: F) -> F:
        answer = method.__annotations__["return"]
        if isinstance(answer, str):
            answer = method.__globals__[answer]
        offer = Offer(
            title=title,
            effect=effect,
            roles=roles,
            answer=answer,
            acts_as=acts_as,
            conductor_may=conductor_may,
        )
        setattr(method, _OFFER, offer)
        return method

    return offered


def offer_of(method: Callable[..., Any]) -> Offer | None:
    """Return how a method is offered, None if it is not a tool."""
    found = getattr(method, _OFFER, None)
    return found if isinstance(found, Offer) else None
