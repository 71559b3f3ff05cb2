"""Load a task, decide, commit; and retry when another commit came first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from registry_api.errors import Conflict, OutcomeUnknown, Unavailable
from registry_api.records.changeset import Changeset, Commit, Op, new_changeset
from registry_api.records.snapshot import TaskSnapshot
from registry_api.store import RegistryStore

__all__ = ["commit_with_retry", "transact"]

Decide = Callable[[TaskSnapshot], Iterable[Op]]


def transact(
    store: RegistryStore,
    task_id: str,
    decide: Decide,
    *,
    actor: str = "unknown",
    attempts: int = 50,
    timeout: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Commit | None:
    """Load the task, ask ``decide`` for ops, commit them against the revision that was read.

    On Conflict all of it is repeated, with jitter; ``decide`` must be free of side effects.
    Returns None, committing nothing, when ``decide`` returns no ops. Raises Conflict after
    ``attempts`` tries or ``timeout`` seconds, and any other error of the store.
    """
    deadline = time.monotonic() + timeout
    for attempt in range(attempts):
        snapshot = store.load(task_id)
        ops = tuple(decide(snapshot))
        if not ops:
            return None
        changeset = new_changeset(task_id, ops, expected=snapshot.revision, actor=actor)
        try:
            return commit_with_retry(store, changeset, deadline=deadline, sleep=sleep)
        except Conflict:
            if attempt + 1 == attempts or time.monotonic() > deadline:
                raise
            # Full jitter: writers that collided once must not collide again at the same time.
            sleep(random.uniform(0, min(0.05, 0.0005 * 2 ** min(attempt, 10))))
    raise AssertionError("unreachable")


def commit_with_retry(
    store: RegistryStore,
    changeset: Changeset,
    *,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Commit:
    """Commit one changeset, retrying Unavailable and OutcomeUnknown until ``deadline``.

    That is a time of ``time.monotonic()``, e.g. ``time.monotonic() + 30``.

    The changeset id makes this safe: if a first try was applied but its answer was lost, the retry
    is answered as a replay.
    """
    pause = 0.001
    while True:
        try:
            return store.commit(changeset)
        except (Unavailable, OutcomeUnknown):
            if time.monotonic() + pause > deadline:
                raise
        sleep(random.uniform(pause / 2, pause))
        pause = min(pause * 2, 0.25)
