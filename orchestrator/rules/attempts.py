"""Attempts: an agent that is started again is a new record, which names the attempt before it.

A terminal agent never reopens, so what an earlier attempt still says is kept in the history and
changes nothing. Each record tells why its attempt ended, and its last output.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.rules.draft import Draft, extra_of, with_extra
from registry_api import Agent
from registry_api.records import json_text

__all__ = [
    "attempt_of",
    "follow",
    "is_superseded",
    "reason_of",
    "retried_by",
    "retry_of",
    "without_retry",
]


_SHOWN = 200  # characters of a reason in a list


def attempt_of(agent: Agent) -> int:
    """Return the number of an agent's attempt, from 1."""
    number = extra_of(agent).get("attempt")
    return number if isinstance(number, int) and number > 0 else 1


def retry_of(agent: Agent) -> str | None:
    """Return the agent whose work this one does again."""
    return _name(agent, "retry_of")


def retried_by(agent: Agent) -> str | None:
    """Return the agent that does this one's work again."""
    return _name(agent, "retried_by")


def is_superseded(agent: Agent) -> bool:
    """Return whether a later attempt has taken over an agent's work."""
    return retried_by(agent) is not None


def follow(draft: Draft, before: Agent, after: Agent) -> None:
    """Put ``after`` as the attempt that follows ``before``."""
    draft.put(with_extra(before, retried_by=after.agent_id))
    draft.put(with_extra(after, attempt=attempt_of(before) + 1, retry_of=before.agent_id))


def reason_of(agent: Agent) -> str | None:
    """Return why an agent ended, cut; None if that was not recorded."""
    extra = extra_of(agent)
    for name in ("failure_reason", "termination_reason", "completion_reason"):
        said = extra.get(name)
        if isinstance(said, str):
            return said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…"
    return None


def without_retry(agent: Agent) -> Agent:
    """Return an agent that no later attempt has taken over from."""
    extra = extra_of(agent)
    extra.pop("retried_by", None)
    return replace(agent, extra=json_text.dump_text(extra))


def _name(agent: Agent, field: str) -> str | None:
    found = extra_of(agent).get(field)
    return found if isinstance(found, str) else None
