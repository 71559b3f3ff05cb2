"""What a task waits for, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dashboard.views.reviews import OPEN, objections_to
from registry_api import PhaseStatus, TaskSnapshot, TaskStatus, Verdict
from registry_api.client import gave_sign
from registry_api.records import ACTIVE_AGENT

__all__ = ["Waiting", "waiting_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A sentence, and the index of the phase that a person must decide on, if there is one, with
    what its reviewers objected to in their last review.
    """

    says: str
    decide: int | None = None
    objections: tuple[Verdict, ...] = ()


def waiting_of(snapshot: TaskSnapshot, before: datetime) -> Waiting:
    """Return what a task waits for; agents without a sign of life since ``before`` are silent."""
    if snapshot.status in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}:
        return Waiting(says=f"It has ended: {snapshot.status.lower()}.")
    for phase in snapshot.phases:
        if phase.status is PhaseStatus.ESCALATED:
            return Waiting(
                says=f"Phase {phase.name} waits for a human: its reviewers did not approve it "
                f"after {_many(phase.revision_round, 'revision')}.",
                decide=phase.phase_index,
                objections=objections_to(phase, snapshot.reviews, snapshot.verdicts),
            )
    active = [agent for agent in snapshot.agents if agent.status in ACTIVE_AGENT]
    silent = sum(not gave_sign(agent, before) for agent in active)
    for review in snapshot.reviews:
        if review.status in OPEN:
            given = sum(v.review_id == review.review_id for v in snapshot.verdicts)
            return Waiting(
                says=f"It waits for reviewers: {given} of {_many(review.num_reviewers, 'verdict')} "
                "given." + _silence(silent)
            )
    current = next(
        (p for p in snapshot.phases if p.phase_index == snapshot.task.current_phase_index), None
    )
    where = f" in phase {current.name}" if current else ""
    if active:
        many = f"{_many(len(active), 'agent')} {'is' if len(active) == 1 else 'are'} active"
        return Waiting(says=f"{many}{where}." + _silence(silent))
    return Waiting(says=f"No agent is active{where}: it waits for one to be deployed.")


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _silence(silent: int) -> str:
    return f" {_many(silent, 'agent')} {'is' if silent == 1 else 'are'} silent." if silent else ""
