"""Views of a task that wait_for compares: its statuses, verdicts and ended agents, as lines."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.queries.reading import cut
from orchestrator.rules.attempts import reason_of
from orchestrator.rules.draft import Draft
from registry_api import Agent, AgentStatus, TaskSnapshot
from registry_api.records import ACTIVE_AGENT, TERMINAL_AGENT, TERMINAL_TASK

__all__ = ["View", "changes_between", "is_worked_on", "view_of"]

View = Mapping[tuple[str, str], str]  # ("phase", "0") -> "IN_REVIEW"


def is_worked_on(snapshot: TaskSnapshot, phase_index: int | None) -> bool:
    """Return whether an agent is active, so that the task will change by itself."""
    if snapshot.status in TERMINAL_TASK:
        return False
    return any(a.status in ACTIVE_AGENT for a in _agents_of(snapshot, phase_index))


def view_of(snapshot: TaskSnapshot, phase_index: int | None, *, reports: bool) -> View:
    """Return the view of a task or of one of its phases; raises PhaseNotFound."""
    if phase_index is not None:
        Draft(snapshot).phase(phase_index)
    view = {("task", ""): str(snapshot.status)}
    for phase in snapshot.phases:
        if phase_index in {None, phase.phase_index}:
            rounds = f", revision {phase.revision_round}" if phase.revision_round else ""
            view["phase", str(phase.phase_index)] = f"{phase.status}{rounds}"
    reviews = [r for r in snapshot.reviews if phase_index in {None, r.phase_index}]
    ids = {r.review_id for r in reviews}
    for review in reviews:
        decided = f": {review.verdict}" if review.verdict else ""
        view["review", review.review_id] = f"{review.status}{decided}"
    for verdict in snapshot.verdicts:
        if verdict.review_id in ids:
            view["verdict", f"{verdict.review_id} {verdict.reviewer_id}"] = verdict.verdict
    agents = {a.agent_id: a for a in _agents_of(snapshot, phase_index)}
    for agent in agents.values():
        if agent.status in TERMINAL_AGENT or agent.status is AgentStatus.BLOCKED:
            why = reason_of(agent)
            view["agent", agent.agent_id] = f"{agent.status}{f': {why}' if why else ''}"
    if reports:
        for entry in snapshot.latest:
            if entry.agent_id in agents:
                view["report", entry.agent_id] = (
                    f"{entry.status} {entry.progress}% at {entry.timestamp:%H:%M:%S.%f}: "
                    f"{cut(entry.message)}"
                )
    return view


def _agents_of(snapshot: TaskSnapshot, phase_index: int | None) -> list[Agent]:
    """Return the agents that work on a phase or review it, all agents without an index."""
    reviews = {r.review_id for r in snapshot.reviews if r.phase_index == phase_index}
    return [
        a
        for a in snapshot.agents
        if phase_index is None or a.phase_index == phase_index or a.review_id in reviews
    ]


def changes_between(before: View, now: View) -> list[str]:
    """Return the changes from one view to another, one line each."""
    lines = [
        f"{kind} {which} {value}".replace("  ", " ")
        for (kind, which), value in now.items()
        if before.get((kind, which)) != value
    ]
    return lines + [
        f"{kind} {which} continues" for kind, which in before if (kind, which) not in now
    ]
