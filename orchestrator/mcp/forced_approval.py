"""Ask the user of a conductor's client before a forced approval, if the client supports it.

The question is an MCP elicitation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from mcp.server.elicitation import AcceptedElicitation, CancelledElicitation, DeclinedElicitation
from mcp.server.mcpserver import Context, Elicit, Resolve
from pydantic import BaseModel, Field

from orchestrator.agents.callers import Role
from orchestrator.errors import NotConfirmed
from orchestrator.rules.draft import Draft, extra_of
from registry_api import PhaseStatus
from registry_api.errors import RegistryError

if TYPE_CHECKING:
    from orchestrator.mcp.server import Server

__all__ = ["AskedAbout", "Confirmation", "Confirmed", "must_be_confirmed"]


class Confirmation(BaseModel):
    """The user's answer: whether to approve an escalated phase without a review."""

    approve: bool = Field(description="approve the phase without a review")


class PhaseAskedAbout(BaseModel):
    """The phase to approve and the question; without a question the user is not asked."""

    phase_index: int | None
    question: str = ""


async def _phase(
    task_id: str, phase_index: int | None, reason: str, context: Context[Any, Any]
) -> PhaseAskedAbout:
    """Return the phase before the user is asked: meanwhile another may become the current one.

    The user is not asked about a call that will be refused. If the client cannot ask, the conductor
    decides.
    """
    able = context.client_capabilities
    server: Server = context.mcp_server  # type: ignore[assignment]  # (it is ours)

    def look() -> PhaseAskedAbout:
        found = PhaseAskedAbout(phase_index=phase_index)
        if able is None or able.elicitation is None:
            return found
        if server.caller().role is not Role.CONDUCTOR:
            return found
        try:
            phase = Draft(server.service.store.load(task_id)).phase(phase_index)
        except RegistryError:
            return found
        if phase.status is not PhaseStatus.ESCALATED:
            return found
        why = extra_of(phase).get("escalation_reason") or "its review ended without a decision"
        question = (
            f"Phase {phase.phase_index} ({phase.name[:200]}) of task {task_id} is ESCALATED: "
            f"{why}. The conductor wants to approve it without a review: {reason[:1000]}"
        )
        return PhaseAskedAbout(phase_index=phase.phase_index, question=question)

    return await anyio.to_thread.run_sync(look)


AskedAbout = Annotated[PhaseAskedAbout, Resolve(_phase)]


async def _confirm(asked_about: AskedAbout) -> Confirmation | Elicit[Confirmation]:
    """Ask the user before an ESCALATED phase is approved."""
    if asked_about.question:
        return Elicit(asked_about.question, Confirmation)
    return Confirmation(approve=True)


Outcome = AcceptedElicitation[Confirmation] | DeclinedElicitation | CancelledElicitation
Confirmed = Annotated[Outcome, Resolve(_confirm)]


def must_be_confirmed(outcome: Outcome) -> None:
    """Raise NotConfirmed if the user was asked and did not approve."""
    if isinstance(outcome, AcceptedElicitation) and outcome.data.approve:
        return
    raise NotConfirmed(
        "the user was asked and did not approve the phase without a review",
        next_step="submit_phase_for_review opens a new review; cancel_task ends the task",
    )
