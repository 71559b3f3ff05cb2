"""The sentence above every status, on the command line and on the dashboard."""

from datetime import UTC, datetime

import pytest

from registry_api.client import headline

SINCE = datetime(2025, 10, 17, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0, 0, 0, 0, 0), "There are no tasks yet."),
        ((5, 0, 0, 0, 0), "Nothing is running."),
        ((5, 2, 3, 0, 0), "3 agents are working on 2 tasks."),
        ((5, 2, 2, 1, 1), "1 agent is working on 1 task. 1 task is marked active but silent."),
        ((5, 0, 1, 0, 0), "1 agent is working."),
        ((5, 1, 0, 0, 0), "1 task is active."),
        ((5, 2, 2, 2, 2), "Nothing is running. 2 tasks are marked active but silent."),
    ],
)
def test_it_counts_those_that_are_not_silent(numbers, said):
    """Active tasks and agents include the silent ones."""
    names = ("all_tasks", "active_tasks", "active_agents", "silent_tasks", "silent_agents")
    assert headline(**dict(zip(names, numbers, strict=True))) == said


def test_it_says_what_waits_and_since_when_all_silent_tasks_are_silent():
    found = headline(
        all_tasks=1,
        active_tasks=1,
        active_agents=1,
        silent_tasks=1,
        silent_agents=1,
        silent_since=SINCE,
        waiting="1 phase waits for a human.",
    )
    assert found == (
        "Nothing is running. 1 phase waits for a human. "
        "1 task is marked active but silent since 17 October 2025."
    )
