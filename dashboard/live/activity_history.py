"""Numbers of active agents in the last hour: sampled every few seconds, kept in memory only."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from registry_api import AgentStatus, AsyncStore
from registry_api.errors import RegistryError
from registry_api.records import ACTIVE_AGENT

__all__ = ["ACTIVE", "EVERY", "ActivityHistory"]

log = logging.getLogger("registry_backend")
ACTIVE = tuple(s for s in AgentStatus if s in ACTIVE_AGENT)
EVERY = 15.0  # seconds between two samples
_KEPT = int(3600 / EVERY)


class ActivityHistory:
    """Samples of the agent counts of one store, taken while ``sample`` runs."""

    def __init__(self, store: AsyncStore, *, every: float = EVERY) -> None:
        self._store = store
        self._every = every
        self.rows: deque[tuple[int, ...]] = deque(maxlen=_KEPT)

    async def sample(self) -> None:
        """Take samples until cancelled."""
        while True:
            try:
                agents = (await self._store.counts()).agents
                self.rows.append(tuple(agents.get(status, 0) for status in ACTIVE))
            except RegistryError as error:
                log.warning("the counts of the store cannot be read: %s", error)
            await asyncio.sleep(self._every)
