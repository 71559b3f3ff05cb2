"""What the user of a conductor's client is asked, where the client can ask: the MCP elicitation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from mcp.server.elicitation import AcceptedElicitation, CancelledElicitation, DeclinedElicitation
from mcp.server.mcpserver import Context, Elicit, Resolve
from pydantic import BaseModel, Field

from orchestrator.errors import NotConfirmed
from orchestrator.identity import Role
from orchestrator.rules.draft import Draft, extra_of
from registry_api import PhaseStatus
from registry_api.errors import RegistryError

if TYPE_CHECKING:
    from orchestrator.server import Server

__all__ = ["Confirmation", "Confirmed", "must_be_confirmed"]


class Confirmation(BaseModel):
    """Whether an escalated phase is to be approved without a review."""

    approve: bool = Field(description="approve it without a review")


async def _confirm(
    task_id: str, phase_index: int | None, reason: str, context: Context[Any, Any]
) -> Confirmation | Elicit[Confirmation]:
    """Ask the user before an ESCALATED phase is approved; where nobody can be asked the conductor
    decides, and what would be refused anyway is not asked.
    """
    able = context.client_capabilities
    if able is None or able.elicitation is None:
        return Confirmation(approve=True)
    server: Server = context.mcp_server  # type: ignore[assignment]  # (it is ours)

    def question() -> str | None:
        if server.caller().role is not Role.CONDUCTOR:
            return None
        try:
            phase = Draft(server.service.store.load(task_id)).phase(phase_index)
        except RegistryError:
            return None
        if phase.status is not PhaseStatus.ESCALATED:
            return None
        why = extra_of(phase).get("escalation_reason") or "its review did not decide"
        return (
            f"Phase {phase.phase_index} ({phase.name[:200]}) of task {task_id} is ESCALATED: "
            f"{why}. The conductor wants to approve it without a review: {reason[:1000]}"
        )

    asked = await anyio.to_thread.run_sync(question)
    return Elicit(asked, Confirmation) if asked else Confirmation(approve=True)


Outcome = AcceptedElicitation[Confirmation] | DeclinedElicitation | CancelledElicitation
Confirmed = Annotated[Outcome, Resolve(_confirm)]


def must_be_confirmed(outcome: Outcome) -> None:
    """Raise NotConfirmed unless the user, where one was asked, has approved."""
    if isinstance(outcome, AcceptedElicitation) and outcome.data.approve:
        return
    raise NotConfirmed(
        "the user was asked and does not approve the phase without a review",
        next_step="submit_phase_for_review tries again; cancel_task gives up",
    )
