"""Which changes of another store a replica accepts."""

from __future__ import annotations

from registry_api.errors import NotNext
from registry_api.records.chain import next_chain
from registry_api.records.changeset import Change

__all__ = ["check_next", "own_changes"]


def check_next(change: Change, *, lineage: str, revision: int, chain: str = "") -> None:
    """Raise NotNext unless a change is the one after a task's revision, and of the same history.

    ``lineage`` is empty for a task that is not there; its revision is then 0. ``chain`` is that at
    the revision; after the change the task has the chain of the change.
    """
    at = (lineage or change.lineage, revision)
    if at != (change.lineage, change.revision - 1):
        raise NotNext(
            f"task {change.changeset.task_id} is at {at}, the change is revision {change.revision}",
            next_step="Replay the other store's feed from the replication position",
        )
    if not (chain and change.chain):
        return
    # A chain may begin with any change: the source did not know what led to the state before it.
    links = (next_chain(before, change.revision, change.digest) for before in (chain, ""))
    if change.chain not in links:
        raise NotNext(
            f"task {change.changeset.task_id} came to revision {revision} by other changes",
            next_step="Bring the task up to date with replace",
        )


def own_changes() -> NotNext:
    """Return the error for a change of another feed, in a store that has committed itself."""
    return NotNext(
        "the target has changes of its own",
        next_step="Replicate into an empty store, or into one that was a replica before",
    )
