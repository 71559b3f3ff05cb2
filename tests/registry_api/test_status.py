"""registry_api.records.status: the derived status of a task, row by row."""

import pytest

from registry_api.records import (
    ACTIVE_AGENT,
    AGENT_TRANSITIONS,
    TERMINAL_AGENT,
    AgentStatus,
    PhaseStatus,
    TaskStatus,
    agent_status,
    task_status,
)

P, A, T = PhaseStatus, AgentStatus, TaskStatus


@pytest.mark.parametrize(
    ("recorded", "phases", "agents", "derived"),
    [
        (T.INITIALIZED, [], [], T.INITIALIZED),
        (T.INITIALIZED, [P.ACTIVE, P.PENDING], [], T.INITIALIZED),
        (T.INITIALIZED, [P.APPROVED, P.ACTIVE], [], T.ACTIVE),
        (T.INITIALIZED, [P.ACTIVE], [A.COMPLETED], T.ACTIVE),
        (T.INITIALIZED, [], [A.COMPLETED, A.WORKING], T.ACTIVE),
        (T.INITIALIZED, [], [A.COMPLETED, A.FAILED], T.COMPLETED),
        (T.INITIALIZED, [], [A.FAILED, A.KILLED, A.ERROR, A.TERMINATED], T.FAILED),
        (T.INITIALIZED, [P.APPROVED], [A.FAILED], T.COMPLETED),
        (T.INITIALIZED, [P.APPROVED, P.FAILED], [A.COMPLETED], T.FAILED),
        (T.ACTIVE, [], [], T.INITIALIZED),
        (T.CANCELLED, [P.ACTIVE], [A.RUNNING], T.CANCELLED),
        (T.COMPLETED, [P.PENDING], [], T.COMPLETED),
        (T.INITIALIZED, [P.FAILED], [A.BLOCKED], T.ACTIVE),
        (T.INITIALIZED, [], [A.COMPLETED, A.UNKNOWN], T.ACTIVE),
        (T.INITIALIZED, [], [A.FAILED, A.UNKNOWN], T.ACTIVE),
        (T.INITIALIZED, [P.APPROVED], [A.UNKNOWN], T.COMPLETED),
    ],
)
def test_derived(recorded, phases, agents, derived):
    """Each rule of the derivation, in order."""
    assert task_status(recorded, phases, agents) is derived


def test_vocabularies_are_closed():
    """Every agent status but UNKNOWN is active or terminal; a terminal one has no transitions."""
    assert set(AgentStatus) == ACTIVE_AGENT | TERMINAL_AGENT | {A.UNKNOWN}
    assert not ACTIVE_AGENT & TERMINAL_AGENT
    assert all(not AGENT_TRANSITIONS[s] for s in TERMINAL_AGENT)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("COMPLETED ", A.COMPLETED),
        ("pending", A.RUNNING),
        ("banana", A.WORKING),
        ("", A.WORKING),
        (None, A.WORKING),
        (7, A.WORKING),
        ("phase_completed", A.PHASE_COMPLETED),
    ],
)
def test_agent_status_is_normalised(text, status):
    """An unknown status in a report counts as WORKING: an agent that reports is active."""
    assert agent_status(text) is status
