"""What an orchestrator has noted about an agent's process, for the agent's page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from registry_api import Agent
from registry_api.records import ACTIVE_AGENT, json_text

__all__ = ["Attempt", "attempt_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt; empty or 1 where nothing was noted. ``attach``: a command for a terminal."""

    number: int = 1
    before: str = ""
    after: str = ""
    host: str = ""
    launcher: str = ""
    attach: str = ""
    reason: str = ""
    last_output: str = ""


def attempt_of(agent: Agent) -> Attempt:
    """Return what was noted; a value of another type, of another program, counts as nothing."""
    found = json_text.parse_trusted(agent.extra.encode())
    noted: dict[str, Any] = found if isinstance(found, dict) else {}

    def text(name: str) -> str:
        value = noted.get(name)
        return value if isinstance(value, str) else ""

    number, attach = noted.get("attempt"), noted.get("attach")
    words = attach if isinstance(attach, list) and agent.status in ACTIVE_AGENT else []
    reasons = ("failure_reason", "termination_reason", "completion_reason")
    return Attempt(
        number=number if type(number) is int and number > 0 else 1,
        before=text("retry_of"),
        after=text("retried_by"),
        host=text("host"),
        launcher=text("launcher"),
        attach=shlex.join(word for word in words if isinstance(word, str)),
        reason=next(filter(None, map(text, reasons)), ""),
        last_output=text("last_output"),
    )
