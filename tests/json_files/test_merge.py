"""The state that a legacy program most likely read: the step-by-step search finds the nearest."""

from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.json_files.merge import differing, nearest, touched
from contract_tests import build
from contract_tests.test_model import DELETES, records
from registry_api import Put, Task, new_changeset
from registry_api.errors import RecordExists
from registry_api.records import TaskState

OPS = st.lists(records("t").map(Put) | DELETES, min_size=1, max_size=3)


def distance(state, theirs):
    """Return in how many fields two states differ, computed in the simple way."""
    count = 0
    for key in differing(state, theirs):
        mine, other = state.record(*key), theirs.record(*key)
        if mine is None or other is None:
            count += len(fields(mine or other))
        else:
            count += sum(getattr(mine, f.name) != getattr(other, f.name) for f in fields(mine))
    return count


@given(history=st.lists(OPS, max_size=8), place=st.integers(0, 8), edit=OPS)
@settings(max_examples=300, deadline=None)
def test_the_nearest_state_is_found_step_by_step(history, place, edit):
    """For any history, and any edit of one of its states, no other state is nearer than the one
    found.
    """
    state = TaskState(Task(task_id="t", created_at=build.T0))
    recent = [(state, frozenset())]
    for ops in history:
        state = state.copy()
        change = new_changeset("t", ops, expected=1)
        for op in ops:
            state.apply(op, known=lambda *_: False)
        recent.append((state, touched(change)))
    theirs = recent[place % len(recent)][0].copy()
    for op in edit:
        try:
            theirs.apply(op, known=lambda *_: False)
        except RecordExists:
            continue
    recent.reverse()
    found = nearest(theirs, recent)
    least = min(distance(s, theirs) for s, _ in recent)
    assert distance(found, theirs) == least
    assert found is next(s for s, _ in recent if distance(s, theirs) == least)
