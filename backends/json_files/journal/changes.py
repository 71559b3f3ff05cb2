"""Read the changes of a task, which are its part of the feed, from its journal."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from backends.json_files.journal.file import JournalFile
from backends.json_files.journal.lines import IDS
from backends.json_files.journal.state import JournalState
from registry_api.records import Change, FeedCursor, changeset_from

__all__ = ["kept_changes"]

_MOST_PLACES = 10_000


def kept_changes(
    file: JournalFile, known: JournalState, feed_id: str, *, after: int, below: int
) -> Iterator[Change]:
    """Yield the kept changes whose feed number is between the bounds, oldest first.

    The state remembers where the last change that was read ends, so a follower reads on from there.
    """
    after = max(after, known.floor)
    start = known.places.get(after)
    if start is None:  # lines before a base have numbers up to the base's
        start = max(0, known.base) if after >= known.base_number > 0 else 0
    for raw, offset in file.lines(start, known.size):
        found = IDS.match(raw)
        if found is None or not after < int(found[2]) < below:
            continue
        line = orjson.loads(raw)
        if len(known.places) > _MOST_PLACES:
            known.places.clear()
        known.places[line["n"]] = offset + len(raw)
        yield Change(
            cursor=FeedCursor(feed_id=feed_id, number=line["n"]),
            lineage=line["l"],
            revision=line["r"],
            changeset=changeset_from(line["cs"]),
            digest=line["d"],
            chain=line.get("c", ""),
        )
