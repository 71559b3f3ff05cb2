"""Find the commit of a changeset that was already applied, by its id in the task's journal."""

from __future__ import annotations

from typing import NamedTuple

from backends.json_files.journal.journal import Journal
from registry_api.authoring import check_same_content
from registry_api.records import ValidatedChangeset

__all__ = ["Replay", "find_replay"]


class Replay(NamedTuple):
    """The revision and the feed number of the earlier commit."""

    revision: int
    number: int


def find_replay(journal: Journal, change: ValidatedChangeset) -> Replay | None:
    """Return the earlier commit, None for an unknown id; raises IdempotencyMismatch."""
    known = journal.known_ids().get(change.changeset.id)
    if known is None:
        return None
    revision, number, digest = known
    check_same_content(change.changeset, change.digest, digest)
    return Replay(revision, number)
