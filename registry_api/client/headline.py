"""The sentence above every status: what runs, what waits, what is silent."""

from __future__ import annotations

from datetime import datetime

__all__ = ["headline"]


def headline(
    *,
    all_tasks: int,
    active_tasks: int,
    active_agents: int,
    silent_tasks: int,
    silent_agents: int,
    silent_since: datetime | None = None,
    waiting: str = "",
) -> str:
    """Return the state of a registry in a few sentences.

    The numbers of active tasks and agents include the silent ones. ``silent_since`` is the newest
    last sign of life of all silent tasks: all of them are silent since then. ``waiting`` is a
    further sentence about what waits for a human.
    """
    if all_tasks == 0:
        return "There are no tasks yet."
    tasks, agents = active_tasks - silent_tasks, active_agents - silent_agents
    said = ["Nothing is running."]
    if agents > 0:
        where = f" on {_many(tasks, 'task', 'tasks')}" if tasks > 0 else ""
        said = [f"{_many(agents, 'agent is', 'agents are')} working{where}."]
    elif tasks > 0:
        said = [f"{_many(tasks, 'task is', 'tasks are')} active."]
    if waiting:
        said.append(waiting)
    if silent_tasks:
        since = f" since {silent_since.day} {silent_since:%B %Y}" if silent_since else ""
        noun = _many(silent_tasks, "task is", "tasks are")
        said.append(f"{noun} marked active but silent{since}.")
    return " ".join(said)


def _many(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
