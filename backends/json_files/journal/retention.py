"""Which lines of a journal have expired: they stay in the file, but are no longer served."""

from __future__ import annotations

from datetime import datetime

from backends.json_files.journal.file import KnownIds
from backends.json_files.journal.state import JournalState
from registry_api.authoring import KEEP, KEEP_CHANGES
from registry_api.records import created_at

__all__ = ["expired"]


def expired(state: JournalState, ids: KnownIds, now: datetime) -> tuple[int, datetime] | None:
    """Return (floor, latest id time) for the next change line if lines have expired, else None.

    Feed numbers up to the floor are no longer served; their ids are removed from ``ids``.
    """
    oldest = now - KEEP
    # Above the limit a writer trims only once in a while, many lines at a time.
    surplus = 0 if state.revision % 256 else state.revision - KEEP_CHANGES
    if state.oldest_kept is not None and state.oldest_kept >= oldest and surplus <= 0:
        return None
    floor, latest = state.floor, state.expired_before
    newest = max((n for _, n, _ in ids.values()), default=0)
    for key, (revision, number, _) in sorted(ids.items(), key=lambda i: i[1][1]):
        created = created_at(key)
        if created is None:
            continue  # the id of a foreign change has no time: it expires with the next one
        state.oldest_kept = min(created, now)
        if number == newest or not (created < oldest or revision <= surplus):
            break
        floor = max(floor, number)
        latest = max(state.oldest_kept, latest or state.oldest_kept)
    if floor == state.floor or latest is None:
        return None
    for key in [k for k, (_, number, _) in ids.items() if number <= floor]:
        del ids[key]
    return floor, latest
