"""For users of a store: transactions, subscriptions, async calls, liveness, paging."""

from registry_api.client.async_store import AsyncStore
from registry_api.client.compaction import compact, compactable
from registry_api.client.headline import headline
from registry_api.client.liveness import (
    AHEAD,
    Silence,
    gave_sign,
    is_ahead,
    is_silent,
    last_sign,
    silent,
)
from registry_api.client.paging import all_records, all_tasks
from registry_api.client.subscriptions import end_of_feed, follow
from registry_api.client.transactions import commit_with_retry, transact

__all__ = [
    "AHEAD",
    "AsyncStore",
    "Silence",
    "all_records",
    "all_tasks",
    "commit_with_retry",
    "compact",
    "compactable",
    "end_of_feed",
    "follow",
    "gave_sign",
    "headline",
    "is_ahead",
    "is_silent",
    "last_sign",
    "silent",
    "transact",
]
