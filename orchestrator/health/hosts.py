"""Hosts of agents: whether a health daemon looks after those of another host.

An agent is judged by the daemon of its own host only. While no daemon of that host holds the lease
the agent is ``lost``: nobody can say whether it runs. That is derived and changes no record; when
the host comes back its agents go on.
"""

from __future__ import annotations

from orchestrator.agents import process_identity
from orchestrator.agents.deployment import Deployment, process_of
from orchestrator.rules.draft import extra_of
from registry_api import Agent, RegistryStore
from registry_api.errors import NotSupported
from registry_api.leases import leases_of
from registry_api.records import ACTIVE_AGENT

__all__ = ["AWAY", "Hosts", "lease_name"]

AWAY = frozenset({"elsewhere", "lost"})  # states of processes that only another host can see


def lease_name(host: str) -> str:
    """Return the name of the lease that the health daemon of a host holds."""
    return f"health-{host}"


class Hosts:
    """The hosts that a store's agents run on, each looked up once."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._lost: dict[str, bool] = {process_identity.host(): False}

    def process(self, agent: Agent, deployment: Deployment) -> str:
        """Return the state of an active agent's process; see Deployment.process.

        ``lost`` instead of ``elsewhere``: nobody looks after the agent's host.
        """
        found = deployment.process(agent)
        return "lost" if found == "elsewhere" and self.is_lost(agent) else found

    def is_lost(self, agent: Agent) -> bool:
        """Whether an active agent runs on a host without a health daemon."""
        if agent.status not in ACTIVE_AGENT:
            return False
        owner = process_of(agent) or extra_of(agent).get("reserved_by")
        host = process_identity.host_of(owner) if isinstance(owner, str) else None
        if host is None:
            return False
        if host not in self._lost:
            try:
                held = leases_of(self._store).lease_holder(lease_name(host))
            except NotSupported:  # a store for reading only
                return False
            self._lost[host] = held is None
        return self._lost[host]
