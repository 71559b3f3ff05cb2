"""Find the commit of a changeset that was already applied, by its id in the feed."""

from __future__ import annotations

from backends.sql.write_transaction import Execute, Feed
from registry_api import Changeset, Commit, FeedCursor
from registry_api.authoring import check_same_content

__all__ = ["find_replay"]


def find_replay(execute: Execute, changeset: Changeset, digest: str) -> Commit | None:
    """Return the earlier commit, None for an unknown id; raises IdempotencyMismatch."""
    row = execute("replayed", task_id=changeset.task_id, changeset_id=str(changeset.id)).fetchone()
    if row is None:
        return None
    number, lineage, revision, known, chain = row
    check_same_content(changeset, digest, known)
    feed = Feed.of(execute("feed_state").fetchone())
    return Commit(
        task_id=changeset.task_id,
        changeset_id=changeset.id,
        lineage=lineage,
        revision=revision,
        cursor=FeedCursor(feed_id=feed.feed_id, number=number),
        replayed=True,
        chain=chain,
    )
