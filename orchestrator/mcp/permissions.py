"""What a caller may do: use its role's tools, on its own task, under its own id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.agents.callers import PASS_IT_ON, Caller, Role, check_acts_as
from orchestrator.errors import NotAllowed
from orchestrator.mcp.tool_offers import Offer
from orchestrator.service import Orchestrator

__all__ = ["check_call", "check_conductor", "check_task"]


def check_call(
    service: Orchestrator, caller: Caller, name: str, offer: Offer, arguments: Mapping[str, Any]
) -> None:
    """Raise NotAllowed unless the caller may call this tool with these arguments."""
    if caller.role not in offer.roles:
        check_conductor(caller, name)
    task_id = arguments.get("task_id", "")
    check_task(caller, task_id)
    if offer.acts_as is None or (caller.role is Role.CONDUCTOR and offer.conductor_may):
        return
    named = arguments[offer.acts_as]
    # The record of a proven caller was read already: a second read would slow each report.
    proven = caller.role in {Role.WORKER, Role.REVIEWER}
    agent = None if proven else service.find_agent(task_id, named)
    check_acts_as(caller, task_id, named, agent)


def check_conductor(caller: Caller, what: str) -> None:
    """Raise NotAllowed unless the caller is a conductor."""
    if caller.role is not Role.CONDUCTOR:
        raise NotAllowed(
            f"only the conductor of a task may use {what}; you are an agent of a task",
            next_step="Report what you need as a finding, or report blocked; list your tools",
        )


def check_task(caller: Caller, task_id: str) -> None:
    """Raise NotAllowed if an agent asks for a task that is not its own."""
    if caller.role is Role.CONDUCTOR or task_id == caller.task_id:
        return
    if not caller.task_id:
        raise NotAllowed(
            "this server works for an agent and does not know which", next_step=PASS_IT_ON
        )
    raise NotAllowed(
        f"you are an agent of task {caller.task_id}, not of {task_id}",
        next_step=f"Pass task_id {caller.task_id}",
    )
