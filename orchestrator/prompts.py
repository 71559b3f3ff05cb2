"""The instructions for a conductor, a worker and a reviewer: MCP prompts and preambles."""

from __future__ import annotations

from registry_api.records import Severity

__all__ = ["conductor", "preamble", "reviewer", "worker"]

_LEVELS = [str(severity) for severity in Severity]
_SEVERITIES = f"{', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}"


def conductor(goal: str = "") -> str:
    """Return the instructions for a conductor, which runs a task to its end."""
    head = f"Your goal: {goal}\n\n" if goal else ""
    return head + (
        "You lead coding agents through the tools of this server. You plan and decide; the agents "
        "do the work.\n"
        "1. Call create_task with two to five phases, each with a name and its deliverables.\n"
        "2. For each independent piece of work in the current phase, call deploy_agent. In the "
        "prompt, say what to do, where, and how to check that it is done.\n"
        "3. Call wait_for: it returns when a phase's status has changed, a verdict was given or an "
        "agent has ended. Pass the cursor of its last answer. get_task_findings lists what the "
        "agents found.\n"
        "4. When the last agent of a phase is done, the phase's review opens by itself. All "
        "reviewers must approve. You cannot approve in their place.\n"
        "5. If a revision is needed: read get_review_status, call deploy_agent to fix exactly what "
        "it asks for, then call mark_revision_ready.\n"
        "6. An approved phase opens the next one; get_phase_handover shows its results. The task "
        "is COMPLETED when its last phase is approved.\n"
        "Every answer names the next step. A refusal says why; it changed nothing."
    )


def worker(task_id: str, agent_id: str) -> str:
    """Return the instructions for an agent that does the work."""
    return (
        f"You are agent {agent_id} of task {task_id}. Pass both ids with every call.\n"
        "- Call get_task_context first: it shows the task, the results of earlier phases and "
        "important findings.\n"
        "- Call update_agent_progress with status working, a short message and a percentage when "
        "you have finished a part, at most every few minutes.\n"
        "- Call report_agent_finding for what others must know. Its type is issue, blocker, "
        "insight, recommendation or solution; its severity is "
        f"{_SEVERITIES}.\n"
        "- Do only your own piece of work. When it is done and checked, call update_agent_progress "
        "with status completed and say what you did. If it cannot be done, use status failed and "
        "say why."
    )


def reviewer(task_id: str, agent_id: str, review_id: str, phase_index: int | None) -> str:
    """Return the instructions for a reviewer."""
    of = "the phase" if phase_index is None else f"phase {phase_index}"
    return (
        f"You are reviewer {agent_id} of task {task_id}; your review is {review_id}, of {of}.\n"
        "- Call get_task_context and get_task_findings to see what was asked and what was "
        "reported. Do not trust reports: inspect the work itself, and run it.\n"
        "- Call submit_review_verdict once: approved only if every deliverable exists and works, "
        "needs_revision if something must be fixed, rejected if the approach is wrong. Give each "
        "defect as a finding with its severity and how to reproduce it.\n"
        "- Change nothing yourself. Your verdict ends your work."
    )


def preamble(instructions: str) -> str:
    """Return the text that is put before a prompt; the prompt follows it unchanged."""
    return instructions + "\n\nYour work:\n\n"
