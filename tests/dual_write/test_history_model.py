"""A model of a source that is restored from a backup beside its replica: every order of few steps.

A history is the tuple of the changes that were made. The replica follows by the rules of the
replicator, which sees only what a rule for "the same state" tells it. The rule by the chain is
right in every order; the two rules that were used before it are not, so the model can fail.
"""

from collections import deque

import pytest

DEPTH = 7
STEPS = ("write", "write unseen", "send again", "send again unseen", "backup", "restore", "look")

# What each rule sees of a history.
RULES = {
    "number": len,
    "newest change": lambda history: (len(history), history[-1:]),
    "chain": lambda history: history,  # a hash of all of it
}


def follow(source, target, seen):
    """Return the replica's history after it has followed the source."""
    if seen(target) == seen(source):
        return target
    # A change is applied only onto the state before it, else the whole history is taken.
    following = len(target) < len(source) and seen(target) == seen(source[: len(target)])
    return target + source[len(target) :] if following else source


def after(state, step, seen):
    """Return the state after a step, None if the step cannot be made.

    A state: the source's and the replica's history, the backup, how many changes were made.
    """
    source, target, backup, made = state
    match step:
        case "write" | "write unseen":
            source, made = (*source, made), made + 1
        case "send again" | "send again unseen":
            if not target or target[-1] in source:
                return None  # the source knows it: a replay
            source = (*source, target[-1])
        case "backup":
            return source, target, source, made
        case "restore":
            return (backup, target, backup, made) if backup != source else None
    if "unseen" not in step:
        target = follow(source, target, seen)
    return source, target, backup, made


def wrong_order(rule):
    """Return the first order of steps after which a look leaves the replica with another history
    than the source, None if there is none."""
    seen, start = RULES[rule], ((), (), (), 0)
    known, queue = {start}, deque([(start, ())])
    while queue:
        state, steps = queue.popleft()
        for step in STEPS:
            following = after(state, step, seen)
            if following is None:
                continue
            if step == "look" and following[0] != following[1]:
                return (*steps, step)
            if following not in known and len(steps) + 1 < DEPTH:
                known.add(following)
                queue.append((following, (*steps, step)))
    return None


@pytest.mark.parametrize("rule", RULES)
def test_only_the_chain_tells_two_histories_apart(rule):
    """By its chain a replica always ends with the source's history."""
    found = wrong_order(rule)
    assert (found is None) == (rule == "chain"), found
    if rule == "newest change":
        assert any(step.startswith("send again") for step in found)
