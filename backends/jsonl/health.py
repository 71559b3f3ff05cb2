"""The check of ``doctor`` that the logs next to a store agree with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from backends.jsonl.store import LoggedStore, is_kept_for
from backends.jsonl.times import Times
from registry_api.errors import Unavailable
from registry_api.opening import open_store
from registry_api.plugins import Issue, OpenContext

__all__ = ["check_logs"]

_NEXT = "registry-backend reconcile"


def check_logs(context: OpenContext) -> Iterator[Issue]:
    """Yield lines of other programs that are not absorbed, and records that have no line."""
    if context.settings.logs == "off":
        return
    try:
        store = open_store(context.settings, plugins=context.plugins, read_only=True)
    except Unavailable:
        return  # nothing is stored yet
    with closing(store):
        if not is_kept_for(store, context.settings):
            return
        times = Times.named(context.settings.legacy_tz)
        logged = LoggedStore(store, context.workspace, times=times, now=context.now)
        found = logged.reconcile(dry_run=True)
    if found.taken:
        yield Issue(
            what=f"{found.taken} line(s) that other programs appended to the logs are not absorbed",
            next_step=_NEXT,
        )
    if found.written:
        yield Issue(
            what=f"{found.written} record(s) have no line in the logs that legacy programs read",
            next_step=_NEXT,
        )
